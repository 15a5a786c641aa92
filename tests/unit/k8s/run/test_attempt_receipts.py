"""The receipt of an attempt that is over: when it is complete, and what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import Server, client, serving
from tests.unit.kubernetes_objects import RUN, ended, facts, failure, message, pod, running
from torchnet.agent.events import Failure
from torchnet.k8s.run.attempt_receipts import AttemptReceipts
from torchnet.k8s.run.launch import attempt_path
from torchnet.k8s.run.log_stream import LogSelection
from torchnet.k8s.run.worker_set import WorkerSet

server = pytest.fixture(serving)
WHY = Failure("interrupted", "attempt 1 was suspended", 143, at=2000.0)
INTERRUPTED = failure("interrupted", 143)
BOTH = frozenset({"uid-0", "uid-1"})


class Seen:
    """A run of two workers, and what was told of its attempts."""

    def __init__(self, server: Server, folder: Path) -> None:
        info = facts(2)
        self.client = client(server, folder)
        self.worker_set = WorkerSet(2, replaces=True)
        self.logged: dict[str, object] = {}
        self.told: list[tuple[int, dict[str, Any]]] = []
        selection = LogSelection(self.client, info)
        told = lambda number, receipt: self.told.append((number, receipt))  # noqa: E731
        self.receipts = AttemptReceipts(info, self.worker_set, selection, self.logged, told)


@pytest.fixture
def seen(server: Server, tmp_path: Path) -> Any:
    server.answers = [(404, {}, {"message": "the pod is gone"})]
    one = Seen(server, tmp_path)
    yield one
    one.client.stop.set()


def stopped(rank: int, **more: Any) -> dict[str, Any]:
    return ended(rank, 143, message(rank, 143, failure=INTERRUPTED), version=2, **more)


def test_it_comes_when_all_pods_have_ended_and_rank_0s_log_is_read(seen: Seen) -> None:
    trains: dict[str, Any] = {"phase": "Running", "worker": running()}
    seen.worker_set.relist([pod(0, **trains), pod(1, **trains)])
    seen.receipts.add(1, BOTH, lambda: WHY, 100.0)
    seen.receipts.collect(101.0)
    seen.worker_set.event("MODIFIED", stopped(1))
    seen.receipts.collect(102.0)
    seen.worker_set.event("MODIFIED", stopped(0))
    seen.receipts.collect(103.0)
    assert seen.told == [], "rank 0's last lines are on their way"
    seen.receipts.collect(107.0)
    ((number, receipt),) = seen.told
    assert (number, receipt["exit_code"], receipt["reason"]) == (1, 143, "attempt 1 was suspended")
    seen.receipts.add(1, BOTH, lambda: WHY, 108.0)
    seen.receipts.collect(200.0, all_of_them=True)
    assert len(seen.told) == 1, "once"


def test_with_rank_0s_receipt_it_comes_at_once(seen: Seen) -> None:
    seen.worker_set.relist([stopped(0), stopped(1)])
    seen.receipts.add(1, BOTH, lambda: WHY, 100.0)
    seen.logged["uid-0"] = {}
    seen.receipts.collect(100.1)
    assert len(seen.told) == 1


def test_a_script_that_failed_before_is_the_reason(seen: Seen) -> None:
    failed = failure("script", 42, at=1999.0)
    seen.worker_set.relist([ended(rank, 42, message(rank, 42, failure=failed)) for rank in range(2)])
    seen.receipts.add(1, BOTH, lambda: WHY, 100.0)
    seen.receipts.collect(200.0)
    seen.receipts.collect(300.0)
    assert seen.told[0][1]["failure"]["kind"] == "script"


def test_a_script_that_has_saved_and_ended_well_was_still_suspended(seen: Seen) -> None:
    seen.worker_set.relist([ended(rank, 0) for rank in range(2)])
    seen.receipts.add(1, BOTH, lambda: WHY, 100.0)
    seen.receipts.collect(200.0, all_of_them=True)
    assert seen.told[0][1]["exit_code"] == 143


def test_a_pod_on_a_lost_node_is_not_waited_for_without_end(seen: Seen) -> None:
    seen.worker_set.relist([stopped(0), pod(1, phase="Running", worker=running())])
    seen.receipts.add(1, BOTH, lambda: WHY, 100.0)
    seen.receipts.collect(219.0)
    assert seen.told == []
    seen.receipts.collect(221.0)
    assert len(seen.told) == 1


def test_pods_that_are_known_later_belong_to_it(seen: Seen) -> None:
    seen.worker_set.relist([stopped(0), stopped(1)])
    seen.receipts.add(1, frozenset({"uid-1"}), lambda: WHY, 100.0)
    seen.receipts.collect(100.5)
    seen.receipts.add(1, frozenset({"uid-0"}), lambda: WHY, 100.6)
    seen.logged["uid-0"] = {}
    seen.receipts.collect(100.7)
    ((_, receipt),) = seen.told
    assert {one["node"] for one in receipt["ranks"]} in ({f"{RUN}-0", f"{RUN}-1"}, set())


def test_each_attempts_file_is_beside_the_last_ones() -> None:
    assert attempt_path("a/r.json", 2) == "a/r.attempt-2.json"
    assert attempt_path("a.b/receipt", 1) == "a.b/receipt.attempt-1"
