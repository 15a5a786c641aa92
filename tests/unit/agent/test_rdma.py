"""RDMA devices as /sys shows them: which are on the rails, and what they have moved."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agents import spec
from torchnet.agent import process_env, rdma, training_phase
from torchnet.agent.accounting import TrafficAccount
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.messages import Heartbeat
from torchnet.agent.process_env import ProcessEnvironment
from torchnet.agent.training_phase import TrainingPhase
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerTable


def port(root: Path, device: str, number: str, sent: object, received: object) -> None:
    folder = root / device / "ports" / number / "counters"
    folder.mkdir(parents=True)
    (folder / "port_xmit_data").write_text(f"{sent}\n")
    (folder / "port_rcv_data").write_text(f"{received}\n")


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A /dev/infiniband by which processes can open RDMA devices."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "uverbs0").touch()
    return str(folder)


def test_rdma_counters_count_words_of_four_bytes(tmp_path: Path, nodes: str) -> None:
    port(tmp_path, "mlx5_1", "1", 1000, 24)
    port(tmp_path, "mlx5_0", "1", 7, 0)
    port(tmp_path, "mlx5_0", "2", 0, 0)
    port(tmp_path, "broken", "1", "not a number", 5)
    (tmp_path / "hidden" / "ports" / "1").mkdir(parents=True)  # as in a pod: the device, without counters
    (tmp_path / "bare").mkdir()
    assert rdma.devices(str(tmp_path), nodes) == ("bare", "broken", "hidden", "mlx5_0", "mlx5_1")
    assert rdma.port_bytes(str(tmp_path), nodes) == {"mlx5_0/1": 28, "mlx5_0/2": 0, "mlx5_1/1": 4096}
    assert rdma.devices(str(tmp_path / "none"), nodes) == ()
    assert rdma.port_bytes(str(tmp_path / "none"), nodes) == {}
    # A container shows its machine's devices, whether or not it may open them.
    assert rdma.devices(str(tmp_path), str(tmp_path / "none")) == ()
    assert rdma.port_bytes(str(tmp_path), str(tmp_path / "none")) == {}


class Cards:
    """A machine's /sys/class/infiniband and /sys/class/net."""

    def __init__(self, folder: Path, nodes: str) -> None:
        self._root, self._net, self._nodes = folder / "infiniband", folder / "net", nodes

    def device(self, name: str, *interfaces: str, gids: tuple[str, ...] = ()) -> None:
        for interface in interfaces:
            (self._root / name / "device" / "net" / interface).mkdir(parents=True)
        folder = self._root / name / "ports" / "1" / "gids"
        folder.mkdir(parents=True)
        for number, gid in enumerate(gids):
            (folder / str(number)).write_text(f"{gid}\n")
        (folder / "255").mkdir()  # one that cannot be read

    def above(self, interface: str, *lower: str) -> None:
        for name in lower:
            (self._net / interface / f"lower_{name}").mkdir(parents=True)

    def on(self, *rails: tuple[str, str]) -> tuple[str, ...]:
        return rdma.on_rails(rails, str(self._root), str(self._net), self._nodes)


def test_rdma_devices_on_rails_are_told_from_the_frontends(tmp_path: Path, nodes: str) -> None:
    cards = Cards(tmp_path, nodes)
    cards.device("mlx5_0", "eth0")
    cards.device("mlx5_1", "net1")  # a virtual function in the pod
    cards.device("mlx5_2", "ens2", "ens3")
    gid = "fd00:0001:0000:0000:0000:0000:0000:0009"
    # The card is in the host's namespace, its child here: only the GIDs tell.
    cards.device("mlx5_3", gids=("0000:" * 7 + "0000", gid))
    cards.device("mlx5_4", gids=("0000:0000:0000:0000:0000:ffff:0a01:0203",))
    cards.above("net2", "bond0", "loop")
    cards.above("bond0", "ens2")
    cards.above("loop", "net2")
    assert cards.on(("net1", "fd00::1")) == ("mlx5_1",)
    assert cards.on(("net2", "fd00::1")) == ("mlx5_2",)
    assert cards.on(("net9", "fd00:1::9")) == ("mlx5_3",)
    assert cards.on(("net9", "10.1.2.3")) == ("mlx5_4",)
    assert cards.on(("net1", "fd00::1"), ("net9", "10.1.2.3")) == ("mlx5_1", "mlx5_4")
    assert cards.on(("net9", "fd00::1")) == ()
    (Path(nodes) / "uverbs0").unlink()
    assert cards.on(("net1", "fd00::1")) == ()


def test_only_devices_on_rails_reach_the_environment(
    tmp_path: Path, nodes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, net = str(tmp_path / "infiniband"), str(tmp_path / "net")
    monkeypatch.setattr(process_env, "on_rails", partial(rdma.on_rails, root=root, net=net, nodes=nodes))
    monkeypatch.setattr(process_env, "devices", partial(rdma.devices, root, nodes))
    for name in ("NCCL_NET", "NCCL_IB_HCA", "NCCL_IB_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    cards = Cards(tmp_path, nodes)
    cards.device("mlx5_0", "eth0")

    def made(runtime: str = "kubernetes", **fields: Any) -> ProcessEnvironment:
        rails = (Rail(0, None, "net1", "fd00::1", 6, 64, 9000),)
        return ProcessEnvironment(
            spec(entry="program", runtime=runtime, **fields), "fd00::1", rails, 29501, 0
        )

    given = made().given(0)
    assert (given.get("NCCL_NET"), given.get("NCCL_IB_HCA")) == (None, None)
    assert made("local").given(0)["NCCL_NET"] == "Socket"
    (warning,) = [text for text in made().warnings() if "mlx5_0" in text]
    assert "NCCL_IB_HCA" in warning
    assert "NCCL_NET=Socket" in warning
    assert made().bypass == ("mlx5_0",)
    for chosen in ({"NCCL_NET": "IB"}, {"NCCL_IB_HCA": "mlx5_0"}):  # no warning, but perhaps a finding
        assert not [text for text in made(env=chosen).warnings() if "mlx5_0" in text]
        assert made(env=chosen).bypass == ("mlx5_0",)
    tcp = [made(env={name: value}) for name, value in (("NCCL_NET", "socket"), ("NCCL_IB_DISABLE", "1"))]
    for quiet in (*tcp, made("local"), made(loopback=True)):
        assert not [text for text in quiet.warnings() if "mlx5_0" in text]
        assert quiet.bypass == ()
    cards.device("mlx5_1", "net1")
    given = made().given(0)
    assert (given.get("NCCL_NET"), given["NCCL_IB_HCA"]) == (None, "=mlx5_1")
    assert (given["NCCL_IB_ADDR_RANGE"], made().rdma) == ("fd00::/64", ("mlx5_1",))
    assert not [text for text in made().warnings() if "mlx5_" in text]
    assert made().bypass == ()  # NCCL_IB_HCA confines NCCL to the rails
    assert made(env={"NCCL_IB_HCA": "mlx5"}).bypass == ("mlx5_0",)
    assert made(env={"NCCL_IB_HCA": "^mlx5_0"}).bypass == ()


@pytest.mark.parametrize(
    ("chosen", "admitted"),
    [
        ("", "mlx5_1 mlx5_10 irdma0"),
        ("mlx5_1", "mlx5_1 mlx5_10"),
        ("=mlx5_1", "mlx5_1"),
        ("=mlx5_1:1,irdma0", "mlx5_1 irdma0"),
        ("^mlx5_1", "irdma0"),
        ("^=mlx5_1", "mlx5_10 irdma0"),
        ("^=mlx5_1:1", "mlx5_1 mlx5_10 irdma0"),
    ],
)
def test_nccl_ib_hca_as_nccl_reads_it(chosen: str, admitted: str) -> None:
    devices = ("mlx5_1", "mlx5_10", "irdma0")
    assert [one for one in devices if rdma.admitted(chosen, one)] == admitted.split()


def test_bytes_by_rdma_are_a_jobs_movement(
    tmp_path: Path, nodes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_phase, "port_bytes", partial(rdma.port_bytes, str(tmp_path), nodes))
    port(tmp_path, "mlx5_0", "1", 100, 0)
    port(tmp_path, "mlx5_1", "1", 100, 0)
    loop = EventLoop()
    one = TrainingPhase(loop, spec(), None, ended=print, rail_lost=print, notice=print)  # type: ignore[arg-type]
    try:
        assert one.heartbeat(frozen=False) == Heartbeat()
        one._account = TrafficAccount(PeerTable(()), 0, set())
        assert one.heartbeat(frozen=False).bytes == 0
        (tmp_path / "mlx5_1" / "ports" / "1" / "counters" / "port_rcv_data").write_text("25\n")
        assert one.heartbeat(frozen=False).bytes == 100  # nothing tells what is on a rail: any may be
        one._hcas = ("mlx5_1",)
        assert one.heartbeat(frozen=False).bytes == 100
        one._hcas = ("mlx5_0",)
        assert one.heartbeat(frozen=False).bytes == 0
        one._bypass = ("mlx5_1", "mlx5_7")
        findings = one.receipt(PeerTable(()), ())["findings"]
        assert any("mlx5_7 (no counters)" in text for text in findings)
        assert not any("mlx5_1" in text for text in findings), "its counter says that it was not used"
    finally:
        one.close()
        loop.close()
