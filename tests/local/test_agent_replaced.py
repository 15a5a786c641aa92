"""A pod's two containers: the first prepares, the second joins and works; pods are replaced at every moment before."""

from __future__ import annotations

import os
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.agent_pods import Pod, kill, wait_for
from tests.agents import events, in_nodes, status, wait
from tests.jobs import script
from tests.scripts import ran
from torchnet.agent.handover import Handover
from torchnet.config.fault_syntax import Fault
from torchnet.local.topology import SandboxShape

pytestmark = pytest.mark.waits

SCRIPT = """
import os, sys
folder, rank, count = sys.argv[1], os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
open(os.path.join(folder, "ran-" + rank + "-" + os.environ["MASTER_ADDR"]), "a").close()
if os.path.exists(os.path.join(folder, "fail-once")) and count == "0":
    sys.exit(7)
if os.path.exists(os.path.join(folder, "fail-with-75")):
    sys.exit(75)
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


def test_each_pod_is_prepared_alone_and_then_all_work(folder: Path) -> None:
    pods = [Pod(folder, rank, 3) for rank in range(3)]

    def late() -> int:
        wait(lambda: joined(folder, "uid-0-work", "2/3"))  # neither waits for this pod to prepare
        return pods[2].both()

    assert in_nodes([pods[0].both, pods[1].both, late]) == [0, 0, 0]
    assert ran(folder) == [f"ran-{rank}-{PREFIX}1" for rank in range(3)]
    # Rank 0's container is the last to end: with it its unsent words would go.
    assert ended(folder, "uid-0-work") > max(ended(folder, f"uid-{rank}-work") for rank in (1, 2))
    assert "6/6 paths at 9000 bytes" in texts(folder, "uid-0-work", "phase")
    for pod in pods:
        state = Handover.read(str(pod.state))
        assert (state.node_rank, state.uid) == (pod.told.node_rank, pod.uid)
        assert [entry.interface for entry in state.attachments] == ["net1"]
        assert "localhost" in (pod.state / "hosts").read_text()
        assert [path.name for path in sorted(pod.state.iterdir())] == ["hosts", "started", "state.json"]
        assert stat.S_ISFIFO((pod.state / "started").stat().st_mode)
        # It opens no port, joins nobody, and has no receipt.
        kinds = {event["event"] for event in events(folder, f"{pod.uid}-prepare")}
        assert kinds == {"time", "own_time", "end"}
    (receipt,) = (event["receipt"] for event in events(folder, "uid-0-work", "receipt"))
    assert (receipt["exit_code"], receipt["nnodes"], receipt["findings"]) == (0, 3, [])


def test_each_phase_tells_its_own_time(folder: Path) -> None:
    def late() -> int:
        time.sleep(1.5)
        return Pod(folder, 1, 2).both()

    assert in_nodes([Pod(folder, 0, 2).both, late]) == [0, 0]
    phases = {"prepare": ["start", "discover", "save"]}
    phases["work"] = ["start", "discover", "join", "preflight", "spawn"]
    for phase, expected in phases.items():
        spans = events(folder, f"uid-0-{phase}", "time")
        assert [span["phase"] for span in spans] == expected
        (whole,) = events(folder, f"uid-0-{phase}", "own_time")
        assert whole["own_s"] == pytest.approx(sum(span["own_s"] for span in spans), abs=1e-6)
        assert 0 < whole["own_s"] < 1.4
    (join,) = (span for span in events(folder, "uid-0-work", "time") if span["phase"] == "join")
    assert join["waited_s"] > 1
    assert join["own_s"] < 0.3


def test_a_bad_path_ends_all_and_nothing_runs(folder: Path) -> None:
    pods = [Pod(folder, rank, 3) for rank in range(3)]
    shape = SandboxShape(faults=(Fault(1, "net1", "mtu", "1400"),))
    assert in_nodes([pod.both for pod in pods], shape) == [4, 4, 4]
    assert ran(folder) == []
    (receipt,) = (event["receipt"] for event in events(folder, "uid-0-work", "receipt"))
    assert "MTU 1400 on run-1" in receipt["reason"]
    assert "MTU 1400" in texts(folder, "uid-2-work", "stopping")[0]


def test_a_pod_without_its_network_fails_before_it_meets_anybody(folder: Path) -> None:
    def alone() -> int:
        return Pod(folder, 1, 2, node=2).both()

    def there() -> int:
        wait(lambda: events(folder, "uid-1-prepare", "end"))
        return 0

    assert in_nodes([there, there, there, alone]) == [0, 0, 0, 4]
    (text,) = texts(folder, "uid-1-prepare", "failure")
    assert f"network-status has {PREFIX}3, but the kernel has {PREFIX}4/64" in text
    assert not (folder / "state-uid-1" / "state.json").exists()


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


def test_a_worker_that_is_killed_before_the_start_is_waited_for(folder: Path) -> None:
    def old() -> int:
        pod = Pod(folder, 1, 3, uid="old")
        assert pod.prepare() == 0
        first = pod.start("work")
        wait(lambda: joined(folder, "uid-0-work", "2/3"))
        kill(first)
        return 0

    def left() -> bool:
        return any("left" in text for text in texts(folder, "uid-0-work", "phase"))

    def new() -> int:
        wait(left)  # a Job replaces pods that have ended
        return Pod(folder, 1, 3, node=3, uid="new").both()

    def last() -> int:
        wait(left)
        return Pod(folder, 2, 3).both()

    assert in_nodes([Pod(folder, 0, 3).both, old, last, new]) == [0, 0, 0, 0]
    assert ran(folder) == [f"ran-{rank}-{PREFIX}1" for rank in range(3)]


@pytest.mark.parametrize(("replaced", "code"), [(0, 75), (None, 143)])
def test_a_worker_that_is_stopped_before_the_start_is_replaced_where_a_job_does_that(
    folder: Path, replaced: int | None, code: int
) -> None:
    def old() -> int:
        pod = Pod(folder, 1, 3, uid="old", replaced=replaced)
        assert pod.prepare() == 0
        first = pod.start("work")
        wait(lambda: joined(folder, "uid-0-work", "2/3"))
        os.kill(first, signal.SIGTERM)
        return wait_for(first)

    def new() -> int:
        wait(lambda: events(folder, "old-work", "end"))
        return Pod(folder, 1, 3, node=3, uid="new").both()

    def last() -> int:
        wait(lambda: joined(folder, "uid-0-work", "2/3") and events(folder, "old-work", "end"))
        return Pod(folder, 2, 3).both()

    assert in_nodes([Pod(folder, 0, 3).both, old, last, new]) == [0, code, 0, 0]
    assert len(ran(folder)) == 3
    kind = "failure" if replaced is None else "replaced"
    (event,) = events(folder, "old-work", kind)
    # What it says is the signal's code, and its container's is for the Job.
    assert (event["text"], event["code"]) == ("stopped by SIGTERM", 143)


def test_a_script_that_ends_with_the_code_of_a_replacement_is_not_replaced(folder: Path) -> None:
    (folder / "fail-with-75").touch()
    pods = [Pod(folder, 0, 2, replaced=0), Pod(folder, 1, 2)]
    assert in_nodes([pod.both for pod in pods]) == [1, 75]
    (receipt,) = (event["receipt"] for event in events(folder, "uid-0-work", "receipt"))
    assert receipt["exit_code"] == 75


def test_rank_0_that_is_replaced_before_the_start_is_found_anew(folder: Path) -> None:
    new = folder / "new"

    def where() -> str:
        return status(3 if new.exists() else 0)

    def old() -> int:
        pod = Pod(folder, 0, 3, uid="old")
        assert pod.prepare() == 0
        first = pod.start("work")
        wait(lambda: joined(folder, "old-work", "2/3"))
        kill(first)
        new.touch()
        return 0

    def replaced() -> int:
        wait(new.exists)
        return Pod(folder, 0, 3, node=3, uid="new").both()

    def last() -> int:
        wait(lambda: joined(folder, "new-work", "2/3"))
        return Pod(folder, 2, 3, rank0=where).both()

    assert in_nodes([old, Pod(folder, 1, 3, rank0=where).both, last, replaced]) == [0, 0, 0, 0]
    assert ran(folder) == [f"ran-{rank}-{PREFIX}4" for rank in range(3)]
    assert "rank 0 left before the start: joining again" in texts(folder, "uid-1-work", "notice")


def test_a_worker_that_does_not_come_to_work_is_named(folder: Path) -> None:
    pods = [Pod(folder, rank, 3, start_timeout=4.0) for rank in range(3)]
    assert in_nodes([pods[0].both, pods[1].both, pods[2].prepare]) == [124, 124, 0]
    (said,) = texts(folder, "uid-0-work", "failure")
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
