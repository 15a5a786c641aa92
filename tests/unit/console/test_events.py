"""torchnet's own lines: phases, notices, what is hostile or malformed."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest

from tests import golden
from tests.unit.screens import Screen
from torchnet.console import console
from torchnet.console.console import Console
from torchnet.console.files import problem, write_json

ERASE = "\r\x1b[K"


def test_phases_in_a_pipe_are_a_line_each_at_their_end() -> None:
    screen = Screen()
    screen.phase("join", "1/4 joined")
    screen.phase("join", "4/4 joined")
    assert screen.stderr == ""
    screen.phase("preflight", "12 paths at 9000 bytes")
    assert screen.stderr == "torchnet: join: 4/4 joined\n"
    screen.phase("run", "")
    assert screen.stderr == "torchnet: join: 4/4 joined\ntorchnet: preflight: 12 paths at 9000 bytes\n"


def test_phases_on_a_terminal_are_one_rewritten_line() -> None:
    screen = Screen(tty=True, color=False)
    screen.phase("join", "1/4 joined")
    screen.phase("join", "4/4 joined")
    screen.phase("preflight", "12 paths at 9000 bytes")
    screen.phase("run", "")
    last = "torchnet: join 4/4 joined · preflight 12 paths at 9000 bytes"
    assert screen.stderr.split(ERASE)[-2:] == [last, last + " · run\n"]
    assert screen.stderr.count("\n") == 1


def test_a_notice_between_phases_keeps_the_line_below_it() -> None:
    screen = Screen(tty=True, color=False)
    screen.phase("join", "1/4 joined")
    screen.notice("warning", "slow", node=2)
    line = "torchnet: join 1/4 joined"
    assert screen.stderr == f"{line}{ERASE}torchnet: warning: node 2: slow\n{line}"


def test_a_long_line_of_phases_keeps_its_newest_part() -> None:
    screen = Screen(tty=True, color=False)
    for phase in ("discover", "join", "preflight"):
        screen.phase(phase, "x" * 30)
    line = screen.stderr.split(ERASE)[-1]
    assert len(line) <= 79
    assert line.startswith("torchnet: … · ")
    assert line.endswith("preflight " + "x" * 30)


def test_the_start_of_the_processes_ends_the_phases() -> None:
    screen = Screen(tty=True, color=False)
    screen.phase("join", "4/4 joined")
    screen.console.event({"event": "started", "node": 0, "attempt": 0, "ranks": [0], "pids": [1]})
    screen.notice("info", "later")
    line = "torchnet: join 4/4 joined"
    assert screen.stderr == f"{line}{ERASE}{line}\ntorchnet: later\n"


def test_node_0_speaks_for_all() -> None:
    screen = Screen()
    screen.phase("join", "2/2 joined", node=0)
    screen.phase("preflight", "other", node=1)
    screen.phase("run", "", node=0)
    assert screen.stderr == "torchnet: join: 2/2 joined\n"


def test_quiet_drops_phases_and_what_is_below_a_warning() -> None:
    screen = Screen(quiet=True, tty=True, color=False)
    screen.phase("join", "4/4 joined")
    screen.notice("info", "nothing")
    screen.notice("warning", "something")
    screen.output(0, "output")
    assert screen.stderr == "torchnet: warning: something\n"
    assert screen.stdout == "[rank 0] output\n"


def test_hostile_texts_are_escaped() -> None:
    screen = Screen()
    screen.notice("error", "value \x1b]0;x\x07\u202e: {}\nsecond \x1b[31mline")
    screen.phase("join", "\x1b[2J")
    screen.phase("run", "")
    assert "\x1b" not in screen.stderr
    assert screen.stderr.splitlines() == [
        "torchnet: error: value \\x1b]0;x\\x07\\u202e: {}",
        "torchnet:   second \\x1b[31mline",
        "torchnet: join: \\x1b[2J",
    ]


@pytest.mark.parametrize(
    "event", [{"event": "from-the-future"}, {}, {"event": None}, {"event": "worker_receipt"}]
)
def test_unknown_events_pass(event: dict[str, Any]) -> None:
    screen = Screen()
    screen.console.event(event)
    assert screen.stderr == ""


@pytest.mark.parametrize(
    "event",
    [
        {"event": "output"},
        {"event": "output", "rank": "x"},
        {"event": "phase"},
        {"event": "receipt", "receipt": 3},
    ],
)
def test_malformed_events_are_told_and_do_not_raise(event: dict[str, Any]) -> None:
    screen = Screen()
    screen.console.event(event)
    assert screen.stderr.count("malformed") == 1


def test_wording() -> None:
    """A whole job on the screen, and what can go wrong with it."""
    screen = Screen()
    screen.phase("join", "2/2 joined")
    screen.phase("run", "")
    screen.notice("warning", "slow", node=1)
    screen.console.event({"event": "stall", "text": "rank 1 waits for rank 0\n  train.py:12"})
    screen.failure(restart=True)
    screen.console.event({"event": "started", "node": 0, "attempt": 1, "ranks": [0], "pids": [1]})
    screen.failure(tail=["Traceback", "boom"])
    screen.failure(rank=0, code=143, text="rank 0 on node-0 exited with code 143", at=2.0)
    screen.output(0, "terminated", stream="stderr")
    for event in ({"event": "output"}, {"event": "failure", "tail": 5}):
        screen.console.event(event)
    screen.console.close()
    other = Screen()
    other.failure(kind="lost", rank=None, text="", code=70)
    other.console.close()
    err = io.StringIO()
    with open("/dev/full", "w") as full:
        console = Console(err, full, world_size=1, environ={})
        console.event({"event": "output", "rank": 0, "stream": "stdout", "data": "x", "end": "\n"})
        console.close()
    write_json("/dev/full", {}, stdout=io.StringIO(), stderr=err)
    problems = [f"{path!a}: {problem(path)}" for path in (".", "no/folder/x", "a\0b")]
    parts = [screen.stderr, other.stderr, err.getvalue(), "\n".join(problems)]
    golden.check("console-events.txt", "\n".join(parts).replace(os.getcwd(), "PWD"))


@pytest.mark.parametrize(
    ("rank", "text"),
    [(3, "rank 3 reads its standard input, which is empty"), (None, "--stdin-rank RANK gives it torchnet's")],
)
def test_an_empty_standard_input_is_explained_once(
    rank: int | None, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for missed in (True, False):
        monkeypatch.setattr(console, "is_null", lambda _descriptor, missed=missed: not missed)
        screen = Screen()
        for one in (rank, 1):
            screen.console.event({"event": "stdin", "rank": one})
        assert screen.stderr.count("\n") == missed
        assert (text in screen.stderr) == missed
