"""RDMA devices as /sys shows them: which can be opened, are on the rails, are the pod's, and what they have moved."""

from __future__ import annotations

import resource
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from tests.unit.agent.rdma_trees import DRIVERS, HW, Tree, add, move
from tests.unit.agents import MB, counted, flow, rails, spec, table, traffic
from torchnet.agent import rdma, rdma_check, training_phase
from torchnet.agent.accounting import Flow, TrafficAccount
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.messages import Heartbeat
from torchnet.agent.process_env import ProcessEnvironment
from torchnet.agent.rdma_counters import RdmaMeter
from torchnet.agent.receipt import job, worker
from torchnet.agent.training_phase import TrainingPhase
from torchnet.agent.transports import Transports
from torchnet.linux import rtnetlink
from torchnet.linux.rtnetlink import Counters
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerTable


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "root")


def test_only_devices_that_can_be_opened_are_the_jobs(tree: Tree) -> None:
    for number, name in enumerate(("mlx5_1", "mlx5_0", "mlx5_2")):
        tree.device(name)
        tree.write(f"sys/class/infiniband_verbs/uverbs{number}/ibdev", name)
    assert (rdma.visible(tree.root), rdma.devices(tree.root)) == (("mlx5_0", "mlx5_1", "mlx5_2"), ())
    tree.node("mlx5_0", 1)
    assert rdma.devices(tree.root) == ("mlx5_0",)
    assert rdma.devices(tree.root + "/none") == ()
    tree.device("hfi1_0", "ib0")
    for path in ("infiniband/uverbs7", "hfi1_0", "cxi0", "cxil", "null"):
        tree.write(f"dev/{path}", "")
    assert rdma.devices(tree.root) == ("cxi0", "hfi1_0", "mlx5_0", "uverbs7")
    transports = Transports(RdmaMeter(isolated=True, root=tree.root).read(("mlx5_0",)))
    assert [device.name for device in transports.unreadable] == ["cxi0", "hfi1_0", "mlx5_0", "uverbs7"]
    assert [device.on_rail for device in transports.unreadable] == [False, False, True, False]


def test_rdma_devices_on_rails_are_told_from_the_frontends(tree: Tree) -> None:
    gid = "fd00:0001:0000:0000:0000:0000:0000:0009"
    tree.device("mlx5_0", "eth0")
    tree.device("mlx5_1", "net1")  # a virtual function in the pod
    tree.device("mlx5_2", "ens2", "ens3")
    # The card is in the host's namespace, its child here: only the GIDs tell.
    tree.device("mlx5_3", gids=("0000:" * 7 + "0000", gid))
    tree.device("mlx5_4", gids=("0000:0000:0000:0000:0000:ffff:0a01:0203",))
    tree.above("net2", "bond0", "loop")
    tree.above("bond0", "ens2")
    tree.above("loop", "net2")
    on = partial(rdma.on_rails, root=tree.root)
    assert on([("net1", "fd00::1")]) == ("mlx5_1",)
    assert on([("net2", "fd00::1")]) == ("mlx5_2",)
    assert on([("net9", "fd00:1::9")]) == ("mlx5_3",)
    assert on([("net9", "10.1.2.3")]) == ("mlx5_4",)
    assert on([("net1", "fd00::1"), ("net9", "10.1.2.3")]) == ("mlx5_1", "mlx5_4")
    assert on([("net9", "fd00::1")]) == ()


def test_a_device_of_this_pod_alone(tree: Tree) -> None:
    exclusive = partial(rdma.exclusive, root=tree.root)
    tree.device("vf", "net1")
    tree.device("pf", "net2")
    tree.write("sys/class/infiniband/pf/device/sriov_numvfs", 8)
    tree.device("host", driver="mlx5_core")
    tree.device("efa_0", driver="efa")
    tree.device("ipoib", "net3")
    for name, number in (("ifindex", 7), ("iflink", 4)):
        tree.write(f"sys/class/net/net3/{name}", number)
    assert not exclusive("ipoib"), "a child of the machine's ib0"
    assert [exclusive(name) for name in ("vf", "pf", "host", "efa_0")] == [True, False, False, True]
    tree.write("proc/self/status", "CapEff:\t000001ffffffffff\n")
    assert not exclusive("efa_0"), "a privileged pod opens every device, and so may others"
    tree.write("sys/module/ib_core/parameters/netns_mode", "N")
    assert [exclusive(name) for name in ("host", "pf")] == [True, False]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("alone", "on_rail", "proof", "share"),
    [
        (True, True, "inferred", int((76 * MB + 2700) / (80 * MB + 2700) * MB) / MB),
        (False, True, "measured", 0.95),  # as TCP says: fewer bytes than the slack
        (True, False, "measured", 0.95),
    ],
)
def test_the_bytes_of_each_driver(
    tree: Tree, driver: str, alone: bool, on_rail: bool, proof: str, share: float
) -> None:
    tree.device("one_0", *(["net1"] if alone else []))
    tree.node("one_0")
    add(tree, driver, "one_0")
    meter = RdmaMeter(isolated=True, root=tree.root)
    assert meter.read(())[0].total == 0
    move(tree, driver, "one_0")
    hcas = ("one_0",) if on_rail else ()
    (device,) = meter.read(hcas)
    assert (device.sent_bytes, device.received_bytes, device.reason) == (1000, 2000, "")
    assert (device.on_rail, device.exclusive, device.openable) == (on_rail, alone, True)
    assert device.source == ("counters" if driver in ("mlx5", "rxe_recent") else "hw_counters")
    assert meter.moved(hcas) == 3000
    assert proven(Transports((device,))) == (proof, share)


def proven(transports: Transports) -> tuple[str, float | None]:
    """Return the proof and the share of a job whose one worker has these, and 95 % of 40 MB of TCP on the rail."""
    seen = traffic({(1, "net1"): flow(19), (1, "eth0"): flow(1)}, {"net1": counted(19), "eth0": counted(1)})
    one = worker(spec(), table(), rails(), seen, {}, [], transports)
    back = traffic(
        {(0, name): Flow(f.received_bytes, f.sent_bytes) for (_, name), f in seen.peers.items()},
        seen.counters,
    )
    two = {**worker(spec(1), table(), rails(), back, {}, []), "node": "node-1"}
    whole = job(spec=spec(), receipts=[one, two], attachments=(), failure=None, began=0, restarts=0)
    return whole["proof"], whole["backend_share"]


def test_what_cannot_be_read_makes_the_proof_unknown(tree: Tree) -> None:
    tree.device("hns_0", "net1")
    tree.count("hns_0", {"port_xmit_data": "N/A (no PMA)", "port_rcv_data": 5})
    tree.count("hns_0", {"rx_pkts": 5}, HW)
    meter = RdmaMeter(isolated=True, root=tree.root)
    assert proven(Transports(meter.read(("hns_0",)))) == ("measured", 0.95), "the job cannot open it"
    tree.node("hns_0")
    (device,) = RdmaMeter(isolated=True, root=tree.root).read(())
    assert (device.total, device.source) == (None, "")
    assert proven(Transports((device,))) == ("unknown", None)


def test_rxe_counts_packets(tree: Tree) -> None:
    tree.device("rxe_0", "net1")
    tree.node("rxe_0")
    tree.count("rxe_0", {"sent_pkts": 7, "rcvd_pkts": 8, "rdma_sends": 0}, HW)
    meter = RdmaMeter(isolated=True, root=tree.root)
    assert proven(Transports(meter.read(("rxe_0",)))) == ("measured", 0.95)
    tree.count("rxe_0", {"sent_pkts": 8}, HW)
    (device,) = meter.read(("rxe_0",))
    assert (device.total, device.source) == (None, "packets")
    assert proven(Transports((device,))) == ("unknown", None)


def test_what_keeps_processes_from_using_a_device(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [resource.RLIM_INFINITY]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits[0], limits[0]))
    required: list[str] = []

    def check(devices: list[str]) -> list[str]:
        rails = [("net1", "10.1.2.3")]
        failures, warnings = rdma_check.problems(devices, rails, tree.root, required=required)
        assert failures == []
        return warnings

    tree.device("mlx5_0")
    tree.port("mlx5_0", "Ethernet", "1: DOWN")
    down, gid = check(["mlx5_0"])
    assert ("DOWN" in down, "10.1.2.3" in gid) == (True, True)
    tree.write("sys/class/infiniband/mlx5_0/ports/1/gids/3", "0000:0000:0000:0000:0000:ffff:0a01:0203")
    tree.port("mlx5_0", "Ethernet")
    assert check(["mlx5_0"]) == []
    tree.device("mlx5_1")
    tree.port("mlx5_1", "InfiniBand")
    assert check(["mlx5_1"]) == []
    limits[0] = 8 << 20
    assert check(["mlx5_0"]) == []  # this tree's processes have CAP_IPC_LOCK
    tree.write("proc/self/status", "CapEff:\t0000000000000000\n")
    (limit,) = check(["mlx5_0"])
    assert "8192 KiB" in limit
    assert check([]) == []
    # A required device fails where its state is known, and only then.
    required.append("mlx5_2")
    tree.device("mlx5_2")
    tree.write("proc/self/status", "CapEff:\t0000000000004000\n")
    (unknown,) = check(["mlx5_2"])
    assert "cannot be read" in unknown
    tree.port("mlx5_2", "InfiniBand", "2: INIT")
    (failure,), warnings = rdma_check.problems(["mlx5_2"], [], tree.root, required=required)
    assert ("INIT" in failure, "fix: " in failure, warnings) == (True, True, [])
    tree.count("mlx5_2", {"link_layer": "InfiniBand", "state": "4: ACTIVE"}, "ports/2")
    assert check(["mlx5_2"]) == []


def test_ip_over_infiniband_is_no_rdma(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its packets are in both counters: counted twice, they would raise the share."""
    counters = {"net1": Counters(5000, 5000)}
    monkeypatch.setattr(rtnetlink, "counters", lambda: dict(counters))
    for number, layer in enumerate(("InfiniBand", "Ethernet")):
        tree.device(f"mlx5_{number}", "net1")
        tree.port(f"mlx5_{number}", layer)
        tree.count(f"mlx5_{number}", {"port_xmit_data": 0, "port_rcv_data": 0})
    meter = RdmaMeter(isolated=True, root=tree.root)
    for number in (0, 1):
        tree.count(f"mlx5_{number}", {"port_xmit_data": 2000, "port_rcv_data": 300})
    counters["net1"] = Counters(6000, 6100)
    ib, roce = meter.read(())
    assert (ib.sent_bytes, ib.received_bytes) == (6000, 0)
    assert (roce.sent_bytes, roce.received_bytes) == (8000, 1200)


def test_a_reset_and_a_counter_at_its_maximum_leave_no_figure(tree: Tree) -> None:
    for number, name in enumerate(("mlx4_0", "mlx5_0", "old_0")):
        tree.device(name, f"net{number}")
        tree.node(name, number)
        tree.count(name, {"port_xmit_data": 1000, "port_rcv_data": 1000})
    meter = RdmaMeter(isolated=True, root=tree.root)
    tree.count("mlx4_0", {"port_xmit_data": 0})
    assert meter.moved(("mlx4_0",)) == 0
    tree.count("mlx4_0", {"port_xmit_data": 5000})  # more than at the start, but only since the reset
    tree.count("mlx5_0", {"port_xmit_data": 1 << 32})
    tree.count("old_0", {"port_xmit_data": (1 << 32) - 1})
    reset, wide, saturated = meter.read(())
    assert (reset.total, saturated.total) == (None, None)
    assert wide.sent_bytes == 4 * ((1 << 32) - 1000)
    # Two ports count together, and one without counters hides what it moved.
    tree.count("mlx5_0", {"port_xmit_data": 0, "port_rcv_data": 0}, "ports/2/counters")
    meter = RdmaMeter(isolated=True, root=tree.root)
    tree.count("mlx5_0", {"port_xmit_data": 6, "port_rcv_data": 0}, "ports/2/counters")
    assert [device.total for device in meter.read(())][1] == 24
    assert not any(device.exclusive for device in RdmaMeter(isolated=False, root=tree.root).read(()))
    (tree.path / "sys/class/infiniband/mlx5_0/ports/2/counters/port_rcv_data").unlink()
    assert meter.read(())[1].total is None
    assert RdmaMeter(isolated=True, root=tree.root).read(())[1].total is None


def test_only_devices_on_rails_reach_the_environment(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.show(monkeypatch)
    tree.device("mlx5_0", "eth0")
    tree.node("mlx5_0", 0)

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
    forced = made(env={"NCCL_NET": "IB"})  # no warning, but perhaps a finding
    assert (forced.bypass, [text for text in forced.warnings() if "mlx5_0" in text]) == (("mlx5_0",), [])
    tcp = [made(env={name: value}) for name, value in (("NCCL_NET", "socket"), ("NCCL_IB_DISABLE", "1"))]
    for quiet in (*tcp, made("local"), made(loopback=True)):
        assert not [text for text in quiet.warnings() if "mlx5_0" in text]
        assert quiet.bypass == ()
    tree.device("mlx5_1", "net1")
    assert (made().on_rails, made().rdma) == (("mlx5_1",), ()), "the job cannot open it"
    tree.node("mlx5_1", 1)
    given = made().given(0)
    assert (given.get("NCCL_NET"), given["NCCL_IB_HCA"]) == (None, "=mlx5_1")
    assert (given["NCCL_IB_ADDR_RANGE"], made().rdma) == ("fd00::/64", ("mlx5_1",))
    assert not [text for text in made().warnings() if "mlx5_" in text]
    assert made().bypass == ()  # NCCL_IB_HCA confines NCCL to the rails
    assert made(env={"NCCL_IB_HCA": "^mlx5_0"}).bypass == ()
    # The devices that the user names are the rails, wherever they are connected.
    tree.port("mlx5_0")
    named = made(env={"NCCL_IB_HCA": "mlx5_0"})
    assert (named.rdma, named.bypass, named.warnings()) == (("mlx5_0",), (), made(env={}).warnings())
    given = named.given(0)
    assert ("NCCL_IB_HCA" in given, given.get("NCCL_IB_ADDR_RANGE")) == (False, None)
    assert given["NVSHMEM_HCA_LIST"] == "mlx5_0"
    # --network rdma: names further devices of the backend, and an exported NCCL_IB_HCA still wins.
    network = made(devices=("mlx5_0",))
    assert (network.given(0)["NCCL_IB_HCA"], network.bypass) == ("=mlx5_1,mlx5_0", ())
    assert not [text for text in network.warnings() if "NCCL_IB_HCA" in text]
    assert network.given(0).get("NCCL_IB_ADDR_RANGE") is None
    exported = made(devices=("mlx5_0",), env={"NCCL_IB_HCA": "mlx5_0"})
    assert ("NCCL_IB_HCA" in exported.given(0), exported.of(0, "")["NCCL_IB_HCA"]) == (False, "mlx5_0")


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


def test_bytes_by_rdma_are_a_jobs_movement(tree: Tree) -> None:
    for number in (0, 1):
        tree.device(f"mlx5_{number}")
        tree.node(f"mlx5_{number}", number)
        add(tree, "mlx5", f"mlx5_{number}")
    loop = EventLoop()
    one = TrainingPhase(loop, spec(), None, ended=print, rail_lost=print, notice=print)  # type: ignore[arg-type]
    move(tree, "mlx5", "mlx5_1")  # before the start: somebody else's
    try:
        assert one.heartbeat(frozen=False) == Heartbeat()
        one._account = TrafficAccount(PeerTable(()), 0, set())
        one._rdma = RdmaMeter(isolated=False, root=tree.root)
        assert one.heartbeat(frozen=False).bytes == 0
        move(tree, "mlx5", "mlx5_1", 2)
        assert one.heartbeat(frozen=False).bytes == 3000  # nothing tells what is on a rail: any may be
        one._hcas = ("mlx5_1",)
        assert one.heartbeat(frozen=False).bytes == 3000
        one._hcas = ("mlx5_0",)
        assert one.heartbeat(frozen=False).bytes == 0
        assert one.receipt(PeerTable(()), ())["rdma_stray"] == {"mlx5_1": 3000}
        tree.count("mlx5_1", {"port_xmit_data": 0})
        assert one.heartbeat(frozen=False).unseen == "", "it is on no rail"
        tree.count("mlx5_0", {"port_xmit_data": 0})
        assert one.heartbeat(frozen=False).unseen == "mlx5_0: its counters were reset"
    finally:
        one.close()
        loop.close()


def test_the_base_is_taken_when_the_script_starts(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joining can take minutes, in which other jobs use the port."""
    for name in ("TrafficAccount", "ProcessEnvironment", "LinkMonitor", "causes"):
        monkeypatch.setattr(training_phase, name, MagicMock())
    training_phase.ProcessEnvironment.return_value.on_rails = ("mlx5_0",)  # type: ignore[attr-defined]
    meters: list[RdmaMeter] = []

    def meter(*, isolated: bool) -> RdmaMeter:
        meters.append(RdmaMeter(isolated=isolated, root=tree.root))
        return meters[-1]

    monkeypatch.setattr(training_phase, "RdmaMeter", meter)
    tree.device("mlx5_0", "net1")
    tree.node("mlx5_0")
    add(tree, "mlx5", "mlx5_0")
    reporter: Any = MagicMock()
    one = TrainingPhase(reporter, spec(), reporter, ended=print, rail_lost=print, notice=print)
    one.processes = MagicMock()
    move(tree, "mlx5", "mlx5_0", 5)
    for attempt in (0, 1):  # a restart counts on
        one.start(table(), rails(), 29501, attempt)
        move(tree, "mlx5", "mlx5_0", 6 + attempt)
    assert [device.total for made in meters for device in made.read(("mlx5_0",))] == [6000]
    one.close()
