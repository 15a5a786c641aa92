"""What may have carried bytes besides TCP: doubts about the counts, and devices that NCCL did not use."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tests.unit.agents import MB, counted, flow, rails, spec, table, traffic
from torchnet.agent import rdma_check, transports
from torchnet.agent.accounting import Flow
from torchnet.agent.rdma_counters import RdmaDevice
from torchnet.agent.receipt import job, worker
from torchnet.agent.transports import NcclWatch, Transports, unseen

RAIL = RdmaDevice("mlx5_0", True, True, True, 500 * MB, 500 * MB, "counters")
STRAY = replace(RAIL, name="mlx5_9", on_rail=False)
SHARED = replace(RAIL, name="mlx5_1", exclusive=False)
IDLE = replace(RAIL, sent_bytes=0, received_bytes=0)
BLIND = replace(RAIL, sent_bytes=None, received_bytes=None, reason="its counters cannot be read")
CLOSED = replace(BLIND, openable=False)


@pytest.mark.parametrize(
    ("devices", "nccl", "tcp", "proof", "share", "tokens"),
    [
        ((), False, 20, "measured", 0.95, ()),
        ((RAIL,), True, 20, "inferred", 976 / 980, ()),
        # As many bytes as on the rail itself: the device of a storage network, or of another job.
        ((RAIL, STRAY), True, 20, "inferred", 976 / 1980, ("mlx5_9", "1.000 GB")),
        # The lower bound is TCP's.
        ((SHARED,), True, 20, "inferred", 0.95, ("mlx5_1", "1.000 GB")),
        ((BLIND,), False, 20, "unknown", None, ("mlx5_0", "cannot be read")),
        ((CLOSED,), False, 20, "measured", 0.95, ()),
        ((replace(STRAY, openable=False),), False, 20, "measured", 0.95, ()),
        ((replace(STRAY, sent_bytes=64 << 10, received_bytes=64 << 10),), False, 20, "measured", 0.95, ()),
        # A group of NCCL that exchanged nothing by what is counted.
        ((), True, 1, "unknown", None, ("NVLink", "TCPX", "cxi")),
        ((RAIL,), True, 1, "inferred", 903.8 / 904, ()),
        ((), False, 1, "measured", 0.95, ()),
        # It fell back to TCP: that concerns the speed, not the proof.
        ((IDLE,), True, 20, "measured", 0.95, ("mlx5_0", "sockets")),
        ((IDLE,), False, 20, "measured", 0.95, ()),
    ],
)
def test_the_proof_and_the_findings(
    devices: tuple[RdmaDevice, ...],
    nccl: bool,
    tcp: int,
    proof: str,
    share: float | None,
    tokens: tuple[str, ...],
) -> None:
    """``tcp``: MB in each direction, of which 95 % over the rail."""
    seen = traffic(
        {(1, "net1"): flow(tcp * 0.95), (1, "eth0"): flow(tcp * 0.05)},
        {"net1": counted(tcp * 0.95), "eth0": counted(tcp * 0.05)},
    )
    one = worker(spec(), table(), rails(), seen, {}, [], Transports(devices, nccl))
    back = traffic(
        {(0, name): Flow(f.received_bytes, f.sent_bytes) for (_, name), f in seen.peers.items()},
        seen.counters,
    )
    two = {**worker(spec(1), table(), rails(), back, {}, []), "node": "node-1"}
    whole = job(
        spec=spec(min_share=0.9), receipts=[one, two], attachments=(), failure=None, began=0, restarts=0
    )
    assert whole["proof"] == proof
    assert whole["backend_share"] == (share if share is None else pytest.approx(share, abs=1e-4))
    assert whole["exit_code"] == (5 if share is None or share < 0.9 else 0)
    assert len(whole["findings"]) == bool(tokens)
    assert all(token in whole["findings"][0] for token in tokens)


def limits(*devices: RdmaDevice) -> tuple[int, int, int, int]:
    found = Transports(devices).payload
    return found.backend_low, found.backend_high, found.elsewhere_low, found.elsewhere_high


def test_rdma_bounds_the_payload() -> None:
    """Shared devices raise the upper bound alone, others lower the lower one; what cannot be opened does neither."""
    closed = replace(STRAY, name="mlx5_8", openable=False)
    assert limits(RAIL, SHARED, STRAY, closed) == (900 * MB, 2000 * MB, 0, 1000 * MB)
    assert limits(SHARED, BLIND) == (0, 1000 * MB, 0, 0)


def test_the_causes_of_an_unused_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    monkeypatch.setattr(rdma_check, "capable", lambda *_: False)
    limited = transports.causes({"NCCL_IB_DISABLE": "1", "NCCL_NET": "Socket"})
    assert limited[:2] == ("NCCL_IB_DISABLE=1", "NCCL_NET=Socket")
    assert "8192 KiB" in limited[2]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert transports.causes({"NCCL_IB_DISABLE": "0", "NCCL_NET": "IB"}) == ()
    (finding,) = Transports((IDLE,), True, limited).unused(5 * MB)
    assert all(cause in finding for cause in limited)
    (finding,) = Transports((IDLE,), True).unused(5 * MB)
    assert "GID" in finding
    (finding,) = Transports((replace(IDLE, openable=False),), True).unused(5 * MB)
    assert "/dev/infiniband" in finding
    assert Transports((IDLE,), True).unused(MB) == Transports((RAIL,), True).unused(5 * MB) == []


def test_a_process_group_of_nccl_is_noticed() -> None:
    """torch names a thread of each process; the kernel cuts names to 15 characters."""
    script = """
import threading, time
def name(text):
    open(f"/proc/self/task/{threading.get_native_id()}/comm", "w").write(text)
    print("named", flush=True)
    time.sleep(60)
threading.Thread(target=name, args=("pt_nccl_watchdg",), daemon=True).start()
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            watch = NcclWatch()
            watch.poll(lambda: [1 << 22])  # a process that has ended
            assert not watch.seen
            watch = NcclWatch()
            watch.poll(lambda: [process.pid])
            assert watch.seen
        finally:
            process.kill()


def test_later_looks_are_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = NcclWatch()
    looks: list[float] = []

    def pids() -> list[int]:
        looks.append(now[0] - 100)
        return []

    for _ in range(1000):
        now[0] += 1.0
        watch.poll(pids)
    assert looks[:5] == [1, 2, 3, 4, 5]
    assert 30 < len(looks) < 70
    assert all(later - before <= before * 0.1 + 1 for before, later in itertools.pairwise(looks))


def test_what_may_move_without_being_seen() -> None:
    assert unseen([], 0, nccl=False) == unseen([], 5 * MB, nccl=True) == ""
    assert "NVLink" in unseen([], MB, nccl=True)
    assert unseen(["a: reset", "b: gone"], 5 * MB, nccl=True) == "a: reset; b: gone"
