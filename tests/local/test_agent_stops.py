"""All stop for a restart, and something comes in between: a signal, a lost worker, one that does not stop."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.agents import spec
from tests.namespaces import isolated
from tests.rounds import Job, Other
from torchnet.agent import coordinator, join
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.message_socket import MessageSocket
from torchnet.agent.messages import (
    ProcessesStopped,
    Stop,
    Table,
    WorkerFailed,
    WorkerMessage,
    decode_from_worker,
)
from torchnet.agent.stop_signals import interrupted
from torchnet.agent.worker import Worker, WorkerState
from torchnet.agent.worker_processes import WorkerProcesses
from torchnet.errors import ClusterError, NotYetError
from torchnet.launcher import loopback_source
from torchnet.network.network_status import StatusEntry

pytestmark = pytest.mark.waits


class Kept:
    pending = 0

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def flush(self) -> None:
        pass


SCRIPT = Failure("script", "rank 1 on run-1 exited with code 7", 7, rank=1, node="run-1", at=1.0)
SIGNAL = interrupted(15)


def running(**fields: Any) -> tuple[Job, list[Other]]:
    job = Job("all", max_restarts=3, grace=0.2, **fields)
    others = [job.join(rank) for rank in range(3)]
    job.say(others, lambda other: other.checked())
    assert [other.types() for other in others] == [["Table", "Start"]] * 3
    return job, others


def fails(job: Job, other: Other, failure: Failure, seconds: float = 0.05) -> None:
    other.send(WorkerFailed(failure))
    job.turn(seconds)


def stopped(job: Job, others: list[Other]) -> None:
    job.say(others, lambda other: other.send(ProcessesStopped()))


def ends(job: Job, others: list[Other]) -> dict[str, Any]:
    """The receipt of a job whose workers have been asked for theirs."""
    assert [other.types()[-1] for other in others] == ["ReceiptRequest"] * len(others)
    job.turn(coordinator._RECEIPT_SECONDS + 0.2)
    (made,) = (event["receipt"] for event in job.events if event["event"] == "receipt")
    return made  # type: ignore[no-any-return]


@isolated
def test_a_signal_during_the_stop_before_a_restart_ends_the_job() -> None:
    job, others = running()
    fails(job, others[1], SCRIPT, 0.5)
    assert [other.last(Stop).restart for other in others] == [True] * 3
    stopped(job, others[:1])
    fails(job, others[2], SIGNAL)
    assert [other.last(Stop).restart for other in others] == [False] * 3
    assert others[0].last(Stop).failure.text == "stopped by SIGTERM"
    stopped(job, others)
    made = ends(job, others)
    assert (made["exit_code"], made["reason"], made["restarts"]) == (143, "stopped by SIGTERM", 0)


@isolated
def test_a_signal_close_to_the_failure_is_not_lost_either() -> None:
    job, others = running()
    fails(job, others[1], SCRIPT)
    fails(job, others[2], SIGNAL)
    assert others[0].last(Stop).restart is False
    assert others[0].last(Stop).failure.kind == "interrupted"


@isolated
def test_another_script_that_fails_meanwhile_is_restarted_as_well() -> None:
    job, others = running()
    fails(job, others[1], SCRIPT, 0.5)
    fails(job, others[2], SCRIPT)
    stopped(job, others)
    assert [other.types() for other in others] == [["Table", "Start", "Stop", "Table"]] * 3


@isolated
@pytest.mark.parametrize("rank", [0, 99])
def test_a_worker_that_renews_the_row_of_another_is_lost(rank: int) -> None:
    job, others = running()
    fails(job, others[1], SCRIPT, 0.5)
    row = others[1].last(Table).table.rows[1]
    others[1].send(ProcessesStopped(replace(row, node_rank=rank)))
    job.turn()
    assert [other.gone for other in others] == [False, True, False]
    stopped(job, [others[0], others[2]])
    made = ends(job, [others[0], others[2]])
    assert (made["exit_code"], made["failure"]["kind"], made["failure"]["node"]) == (70, "lost", "run-1")


@isolated
def test_a_worker_that_goes_during_the_stop_before_a_restart_is_lost() -> None:
    job, others = running()
    fails(job, others[1], SCRIPT, 0.5)
    others[2].connection.close()
    job.turn()
    stopped(job, others[:2])
    made = ends(job, others[:2])
    assert (made["exit_code"], made["failure"]["kind"]) == (70, "lost")
    assert made["failure"]["node"] == "run-2"


@pytest.mark.parametrize("stops", [False, True])
@isolated
def test_a_worker_that_falls_silent_during_the_stop_before_a_restart_is_named(stops: bool) -> None:
    """Also one that has stopped, while another has not."""
    job, others = running(link_grace=0.0)
    fails(job, others[1], SCRIPT, 0.5)
    stopped(job, [others[0], others[2 if stops else 1]])
    for member in list(job.coordinator._members.values())[:2]:
        member.last_message_at += 60
    job.coordinator._members[2].last_message_at -= 60
    job.turn(1.2)
    stopped(job, others[:2])
    made = ends(job, others[:2])
    assert made["exit_code"] == 4
    assert "127.0.0.3" in made["reason"]


@isolated
def test_a_worker_that_does_not_stop_gets_no_new_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are still there: the end of the old ones would be the end of the new ones."""
    for name in ("_STOP_SECONDS", "RENEW_SECONDS"):
        monkeypatch.setattr(coordinator, name, 0.3)
    job, others = running()
    fails(job, others[1], SCRIPT, 0.5)
    stopped(job, others[:2])
    job.turn(1.0)
    assert [other.types()[2:] for other in others] == [["Stop", "Stop", "ReceiptRequest"]] * 3
    made = ends(job, others)
    assert (made["exit_code"], made["failure"]["kind"]) == (70, "lost")
    assert made["failure"]["node"] == "run-2"


@isolated
def test_a_signal_that_nobody_answers_stops_a_worker_in_any_state() -> None:
    for state in (WorkerState.STOPPING, WorkerState.PREFLIGHT, WorkerState.RUNNING):
        loop, kept = EventLoop(), Kept()
        ours, theirs = socket.socketpair()
        worker = Worker(
            loop, spec(Path("/nowhere"), 1, 2, loopback=True), loopback_source.LoopbackSource(1), kept
        )
        messages: list[WorkerMessage] = []
        other: MessageSocket[WorkerMessage] = MessageSocket(
            loop, theirs, decode_from_worker, messages.append, print
        )
        worker._use(ours)
        worker._state.current = state
        worker.interrupt(SIGNAL)
        loop.later(5, loop.stop)
        began = time.monotonic()
        loop.run()
        assert time.monotonic() - began > 2.9, state
        assert worker.code == 143
        assert messages[0] == WorkerFailed(SIGNAL)
        other.close()
        worker.close()


@pytest.mark.parametrize("word", [True, False])
@isolated
def test_the_search_for_a_restarts_addresses_ends_by_a_word_to_stop_or_with_its_time(
    monkeypatch: pytest.MonkeyPatch, word: bool
) -> None:
    monkeypatch.setattr(join, "RENEW_SECONDS", 0.6)

    class Late(loopback_source.LoopbackSource):
        asked = 0

        def attachments(self) -> tuple[StatusEntry, ...]:
            self.asked += 1
            raise NotYetError(ClusterError("the API server cannot be reached"), 0.4)

    loop, source = EventLoop(), Late(1)
    ours, theirs = socket.socketpair()
    worker = Worker(loop, spec(Path("/nowhere"), 1, 2, loopback=True), source, Kept())
    messages: list[WorkerMessage] = []
    other: MessageSocket[WorkerMessage] = MessageSocket(
        loop, theirs, decode_from_worker, messages.append, print
    )
    worker._use(ours)
    other.send(Stop(SCRIPT, restart=True))
    if word:
        loop.later(0.2, lambda: other.send(Stop(SIGNAL)))
    loop.later(1.5, loop.stop)
    loop.run()
    if word:
        assert (source.asked, messages) == (1, [ProcessesStopped()])
    else:
        (failed,) = messages
        assert isinstance(failed, WorkerFailed)
        assert (source.asked, failed.failure.code) == (3, 3)
    other.close()
    worker.close()


@isolated
def test_two_words_to_stop_are_one_stop(tmp_path: Path) -> None:
    """What the first began must not go on when the second has ended: it would end what is started then."""
    (tmp_path / "script.py").write_text("import time; time.sleep(600)")
    loop = EventLoop()
    gang = WorkerProcesses(loop, spec(tmp_path, 0, 1, grace=0.5), Kept(), lambda _process: None)
    called: list[str] = []

    def start() -> None:
        gang.start(len(called), "run", lambda _rank, _file: {"PATH": os.environ["PATH"]})

    def second() -> None:
        called.append("second")
        start()
        loop.later(1.0, loop.stop)

    start()
    gang.stop(lambda: called.append("first"))
    gang.stop(second)
    loop.run()
    assert called == ["second"]
    assert gang.running == 1
    gang.stop(loop.stop)
    loop.run()
    assert gang.codes() == {"0": 128 + signal.SIGTERM}
    gang.close()
    loop.close()
