"""How a job ends on the screen: the root cause, and the receipt."""

from __future__ import annotations

from typing import Any

from tests.unit.receipts import receipt
from tests.unit.screens import Screen


def test_the_root_cause_names_what_its_text_leaves_out() -> None:
    screen = Screen()
    screen.failure(text="out of memory")
    screen.console.close()
    assert "root cause: out of memory (rank 3, exit code 42)" in screen.stderr


def test_the_earliest_failure_is_the_cause_whatever_comes_first() -> None:
    screen = Screen()
    screen.failure(rank=0, text="rank 0 was stopped", at=2.0)
    screen.failure(at=1.0)
    screen.console.close()
    assert "root cause: rank 3 on node-1 exited with code 42" in screen.stderr


def test_a_failure_that_was_the_last_word_is_not_said_twice() -> None:
    screen = Screen()
    screen.failure(
        kind="network", rank=None, code=4, tail=[], text="node-1: net1 has no address\n  fix: add one"
    )
    screen.console.close()
    assert screen.stderr == "torchnet: error: node-1: net1 has no address\ntorchnet:     fix: add one\n"


def test_one_failure_that_several_report_is_told_once() -> None:
    screen = Screen()
    screen.failure(tail=["boom"], at=1.0)
    screen.failure(tail=[], at=1.5)  # another agent heard of it a moment later, and has no lines
    assert screen.stderr.count("exited with code 42") == 1
    screen.failure(rank=2)
    assert screen.stderr.count("exited with code 42") == 2


def test_a_restart_forgives() -> None:
    screen = Screen()
    screen.failure(restart=True)
    screen.output(0, "stopped", stream="stderr")
    screen.console.event({"event": "started", "node": 0, "attempt": 1, "ranks": [0], "pids": [1]})
    screen.console.close()
    assert screen.stderr == "torchnet: warning: rank 3 on node-1 exited with code 42\n[rank 0] stopped\n"


def test_the_cause_in_the_receipt_counts() -> None:
    screen = Screen()
    failure: dict[str, Any] = {
        "kind": "lost",
        "rank": None,
        "node": "node-1",
        "code": 70,
        "text": "lost node-1",
        "tail": [],
        "at": 2.0,
    }
    screen.failure(kind="script", tail=[])
    whole = receipt(failure=failure, exit_code=70, reason="lost node-1")
    screen.console.event({"event": "receipt", "receipt": whole})
    screen.console.close()
    assert screen.stderr.splitlines()[-1] == "torchnet: error: root cause: lost node-1 (exit code 70)"


def test_a_cause_that_others_talked_over_is_repeated_behind_a_receipt_of_one_line() -> None:
    failure: dict[str, Any] = {
        "kind": "network",
        "rank": None,
        "node": "node-1",
        "code": 4,
        "text": "no net1",
        "tail": [],
        "at": 1.0,
    }
    nodes = [node | {"interfaces": {}} for node in receipt()["nodes"]]
    whole = receipt(failure=failure, exit_code=4, reason="no net1", nodes=nodes)
    for talk in (False, True):
        screen = Screen()
        screen.failure(**failure)
        if talk:
            screen.notice("warning", "something else")
        screen.console.event({"event": "receipt", "receipt": whole})
        screen.console.close()
        assert screen.stderr.count("no net1") == 1 + talk


def test_the_receipt_is_a_table_on_standard_error() -> None:
    screen = Screen()
    screen.console.event({"event": "receipt", "receipt": receipt()})
    assert screen.stdout == ""
    last = "backend share 99.97 % (measured, TCP) of 405.3 MB exchanged between the workers, over net1"
    assert screen.stderr.splitlines()[-1] == last
    quiet = Screen(quiet=True)
    quiet.console.event({"event": "receipt", "receipt": receipt()})
    assert quiet.stdout == quiet.stderr == ""
    short = receipt(exit_code=5, reason="the backend's share is below --min-share 1: 0.9997", min_share=1.0)
    quiet.console.event({"event": "receipt", "receipt": short})
    assert quiet.stderr == "torchnet: error: the backend's share is below --min-share 1: 0.9997\n"


def test_a_receipt_that_cannot_be_read_is_told() -> None:
    screen = Screen()
    screen.console.event({"event": "receipt", "receipt": receipt(backend_share=7)})
    assert "torchnet: error: malformed receipt: " in screen.stderr
    assert "backend_share" in screen.stderr


def test_no_failure_no_cause() -> None:
    screen = Screen()
    screen.output(0, "fine")
    screen.console.close()
    assert screen.stderr == ""


def test_the_receipt_of_an_earlier_attempt_is_shown_and_is_not_the_jobs() -> None:
    screen = Screen()
    failure: dict[str, Any] = {
        "kind": "interrupted", "rank": None, "node": None, "code": 143, "text": "attempt 1 was suspended", "at": 1.0
    }  # fmt: skip
    body = receipt(exit_code=143, reason="attempt 1 was suspended", failure=failure)
    screen.console.event({"event": "receipt", "receipt": body, "attempt": 1})
    screen.console.event({"event": "receipt", "receipt": receipt()})
    screen.console.close()
    assert "exit code 143" in screen.stderr
    assert "root cause" not in screen.stderr
