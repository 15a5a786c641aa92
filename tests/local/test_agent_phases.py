"""A pod's two containers: the first prepares, the second works; pods are replaced at every moment between."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.agent_pods import Pod, kill
from tests.agents import events, in_nodes, status, wait
from tests.jobs import script
from tests.scripts import ran
from torchnet.agent import rendezvous_client
from torchnet.agent.handover import Handover
from torchnet.config.fault_syntax import Fault
from torchnet.local.topology import SandboxShape

SCRIPT = """
import os, sys
folder, rank, count = sys.argv[1], os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
open(os.path.join(folder, "ran-" + rank + "-" + os.environ["MASTER_ADDR"]), "a").close()
if os.path.exists(os.path.join(folder, "fail-once")) and count == "0":
    sys.exit(7)
"""
PREFIX = "fcbb:0:800:ffff::"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return script(tmp_path, SCRIPT).parent


def texts(folder: Path, log: str, kind: str) -> list[str]:
    return [event["text"] for event in events(folder, log, kind)]


def joined(folder: Path, log: str, count: str) -> bool:
    return f"{count} joined" in texts(folder, log, "phase")


def ended(folder: Path, log: str) -> float:
    (end,) = events(folder, log, "end")
    return float(end["at"])


def test_a_whole_job_is_prepared_and_then_worked(folder: Path) -> None:
    pods = [Pod(folder, rank, 3) for rank in range(3)]
    assert in_nodes([pod.both for pod in pods]) == [0, 0, 0]
    assert ran(folder) == [f"ran-{rank}-{PREFIX}1" for rank in range(3)]
    # Rank 0's container is the last to end: with it its unsent words would go.
    assert ended(folder, "uid-0-prepare") > max(ended(folder, f"uid-{rank}-prepare") for rank in (1, 2))
    assert "6/6 paths at 9000 bytes" in texts(folder, "uid-0-prepare", "phase")
    assert "unchanged since the preparation" in texts(folder, "uid-0-work", "phase")
    for pod in pods:
        state = Handover.read(str(pod.state))
        assert [row.uid for row in state.table.rows] == ["uid-0", "uid-1", "uid-2"]
        assert state.rank0 == (f"{PREFIX}1",)
        assert [entry.interface for entry in state.attachments] == ["net1"]
        hosts = (pod.state / "hosts").read_text()
        assert f"{PREFIX}2\trun-1\t# torchnet 'the-run'\n" in hosts
        assert "localhost" in hosts
        assert [path.name for path in sorted(pod.state.iterdir())] == ["hosts", "state.json"]
    # No receipt of a preparation that went well, one of the work.
    assert events(folder, "uid-0-prepare", "receipt") == []
    (receipt,) = (event["receipt"] for event in events(folder, "uid-0-work", "receipt"))
    assert (receipt["exit_code"], receipt["nnodes"], receipt["findings"]) == (0, 3, [])


def test_each_phase_tells_its_own_time(folder: Path) -> None:
    def late() -> int:
        time.sleep(1.5)
        return Pod(folder, 1, 2).both()

    assert in_nodes([Pod(folder, 0, 2).both, late]) == [0, 0]
    for log, last in (("uid-0-prepare", "save"), ("uid-0-work", "spawn")):
        spans = events(folder, log, "time")
        assert [span["phase"] for span in spans] == ["start", "discover", "join", "preflight", last]
        (whole,) = events(folder, log, "own_time")
        assert whole["own_s"] == pytest.approx(sum(span["own_s"] for span in spans), abs=1e-6)
        assert 0 < whole["own_s"] < 1.4
    (join,) = (span for span in events(folder, "uid-0-prepare", "time") if span["phase"] == "join")
    assert join["waited_s"] > 1
    assert join["own_s"] < 0.3


def test_a_bad_path_ends_the_preparation_of_all_and_nothing_runs(folder: Path) -> None:
    pods = [Pod(folder, rank, 3) for rank in range(3)]
    shape = SandboxShape(faults=(Fault(1, "net1", "mtu", "1400"),))
    assert in_nodes([pod.both for pod in pods], shape) == [4, 4, 4]
    assert ran(folder) == []
    (receipt,) = (event["receipt"] for event in events(folder, "uid-0-prepare", "receipt"))
    assert "MTU 1400 on run-1" in receipt["reason"]
    assert not (folder / "state-uid-1" / "state.json").exists()
    assert "MTU 1400" in texts(folder, "uid-2-prepare", "stopping")[0]


@pytest.mark.parametrize(("replaced", "code"), [(0, 75), (2, 75), (3, 4), (None, 4)])
def test_a_pod_whose_address_is_taken_asks_for_another_one_some_times(
    folder: Path, replaced: int | None, code: int
) -> None:
    """The address is that of node 1, in which no agent runs."""

    def there() -> int:
        wait(lambda: events(folder, "uid-1-prepare", "end"))
        return 0

    faults = (Fault(2, "net1", "address", f"{PREFIX}2"), Fault(2, "net1", "duplicate-detection"))
    pod = Pod(folder, 1, 2, node=2, replaced=replaced)
    assert in_nodes([there, there, pod.prepare], SandboxShape(faults=faults)) == [0, 0, code]
    kind = "replaced" if code == 75 else "failure"
    (event,) = events(folder, "uid-1-prepare", kind)
    assert (event["kind"], event["code"]) == ("network", code)
    assert f"duplicate address detection failed for {PREFIX}2" in event["text"]
    assert ("another pod replaces it" in event["text"]) is (code == 75)
    assert ("fix: " in event["text"]) is (code == 4)


def test_an_init_container_that_is_started_again_joins_again(folder: Path) -> None:
    def again() -> int:
        pod = Pod(folder, 1, 3)
        first = pod.start("prepare")
        wait(lambda: joined(folder, "uid-0-prepare", "2/3"))
        kill(first)
        return pod.both()

    def last() -> int:
        wait(lambda: any("left" in text for text in texts(folder, "uid-0-prepare", "phase")))
        return Pod(folder, 2, 3).both()

    assert in_nodes([Pod(folder, 0, 3).both, again, last]) == [0, 0, 0]
    assert len(ran(folder)) == 3


def test_rank_0_that_is_replaced_during_the_preparation_is_found_anew(folder: Path) -> None:
    new = folder / "new"

    def where() -> str:
        return status(3 if new.exists() else 0)

    def old() -> int:
        first = Pod(folder, 0, 3, uid="old").start("prepare")
        wait(lambda: joined(folder, "old-prepare", "2/3"))
        kill(first)
        new.touch()
        return 0

    def replaced() -> int:
        wait(new.exists)
        return Pod(folder, 0, 3, node=3, uid="new").both()

    def last() -> int:
        wait(lambda: joined(folder, "new-prepare", "2/3"))
        return Pod(folder, 2, 3, rank0=where).both()

    assert in_nodes([old, Pod(folder, 1, 3, rank0=where).both, last, replaced]) == [0, 0, 0, 0]
    assert ran(folder) == [f"ran-{rank}-{PREFIX}4" for rank in range(3)]
    assert [row.uid for row in Handover.read(str(folder / "state-uid-1")).table.rows] == [
        "new",
        "uid-1",
        "uid-2",
    ]


def test_a_worker_that_is_replaced_after_the_preparation_meets_those_that_work(folder: Path) -> None:
    """Its new pod prepares while the others wait at the second barrier: all paths are probed once more."""

    def old() -> int:
        return Pod(folder, 1, 3, uid="old").prepare()

    def replaced() -> int:
        wait(lambda: joined(folder, "uid-0-work", "2/3"))
        return Pod(folder, 1, 3, node=3, uid="new").both()

    roles = [Pod(folder, 0, 3).both, old, Pod(folder, 2, 3).both, replaced]
    assert in_nodes(roles) == [0, 0, 0, 0]
    assert ran(folder) == [f"ran-{rank}-{PREFIX}1" for rank in range(3)]
    said = texts(folder, "uid-0-work", "phase")
    assert "6/6 paths at 9000 bytes" in said
    # When it comes again to work, nothing is new any more.
    assert said.index("6/6 paths at 9000 bytes") < said.index("unchanged since the preparation")
    assert Handover.read(str(folder / "state-new")).table.rows[1].uid == "new"


def test_a_rank_0_that_is_replaced_after_the_preparation_at_its_address_meets_those_that_work(
    folder: Path,
) -> None:
    def replaced() -> int:
        assert Pod(folder, 0, 3, uid="old").prepare() == 0
        return Pod(folder, 0, 3, uid="new").both()

    assert in_nodes([replaced, Pod(folder, 1, 3).both, Pod(folder, 2, 3).both]) == [0, 0, 0]
    assert len(ran(folder)) == 3
    assert "6/6 paths at 9000 bytes" in texts(folder, "new-prepare", "phase")
    assert "unchanged since the preparation" in texts(folder, "new-work", "phase")


def test_a_rank_0_that_is_replaced_elsewhere_after_the_preparation_ends_the_job_with_the_reason(
    folder: Path,
) -> None:
    def worker(rank: int) -> int:
        rendezvous_client.GONE_SECONDS = 3.0
        pod = Pod(folder, rank, 3)
        assert pod.prepare() == 0
        state = Handover.read(str(pod.state))
        replace(state, rank0=(f"{PREFIX}99",)).write(str(pod.state))  # nobody has that address any more
        return pod.work()

    def replaced() -> int:
        wait(lambda: events(folder, "old-prepare", "end"))
        return Pod(folder, 0, 3, node=3, uid="new", start_timeout=6.0).both()

    roles = [Pod(folder, 0, 3, uid="old").prepare, lambda: worker(1), lambda: worker(2), replaced]
    began = time.monotonic()
    assert in_nodes(roles) == [0, 70, 70, 124]
    assert time.monotonic() - began < 30
    (said,) = texts(folder, "uid-1-work", "failure")
    assert said.startswith("lost rank 0: ")
    assert ran(folder) == []


def test_a_worker_that_does_not_come_to_work_is_lost(folder: Path) -> None:
    pods = [Pod(folder, rank, 3, start_timeout=4.0) for rank in range(3)]
    assert in_nodes([pods[0].both, pods[1].both, pods[2].prepare]) == [70, 70, 0]
    (said,) = texts(folder, "uid-0-work", "failure")
    assert said.startswith("after the preparation, ")
    assert said.endswith("2 of 3 workers joined; missing: node rank 2")


def test_an_address_that_went_after_the_preparation_is_named(folder: Path) -> None:
    def changed() -> int:
        pod = Pod(folder, 1, 2)
        assert pod.prepare() == 0
        state = Handover.read(str(pod.state))
        replace(state, attachments=(replace(state.attachments[0], ips=(f"{PREFIX}77",)),)).write(
            str(pod.state)
        )
        return pod.work()

    assert in_nodes([Pod(folder, 0, 2, start_timeout=6.0).both, changed])[1] == 4
    (said,) = texts(folder, "uid-1-work", "failure")
    assert f"network-status has {PREFIX}77, but the kernel has {PREFIX}2/64" in said


def test_a_restart_needs_the_state_and_the_kernel_alone(folder: Path) -> None:
    (folder / "fail-once").touch()
    pods = [Pod(folder, rank, 2, max_restarts=1) for rank in range(2)]
    assert in_nodes([pod.both for pod in pods]) == [0, 0]
    (receipt,) = (event["receipt"] for event in events(folder, "uid-0-work", "receipt"))
    assert (receipt["restarts"], receipt["exit_code"]) == (1, 0)
    # Another attempt probes its paths as the first did.
    assert texts(folder, "uid-0-work", "phase")[-1] == "2/2 paths at 9000 bytes"
