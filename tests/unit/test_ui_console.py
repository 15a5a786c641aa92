"""What people see: the events of a job as lines on a terminal and in a pipe."""

from __future__ import annotations

import io
import os
import pty
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.receipts import receipt
from torchnet.ui.console import Console
from torchnet.ui.lines import PALETTE

ERASE = "\r\x1b[K"


class Screen:
    """A console on two files in memory, with a clock that stands until it is moved."""

    def __init__(self, **options: Any) -> None:
        self.err, self.out, self.now = io.StringIO(), io.StringIO(), 0.0
        if options.pop("one", False):
            self.out = self.err
        options = {"world_size": 4, "environ": {}, **options}
        self.console = Console(self.err, self.out, clock=lambda: self.now, **options)

    def output(self, rank: int, data: str, end: str = "\n", stream: str = "stdout") -> None:
        self.console.event({"event": "output", "rank": rank, "stream": stream, "data": data, "end": end})

    def phase(self, phase: str, text: str, node: int = 0) -> None:
        self.console.event({"event": "phase", "node": node, "phase": phase, "text": text})

    def notice(self, level: str, text: str, node: int | None = None) -> None:
        self.console.event({"event": "notice", "node": node, "level": level, "text": text})

    def failure(self, **fields: Any) -> None:
        failure = {
            "kind": "script",
            "rank": 3,
            "node": "node-1",
            "code": 42,
            "tail": ["boom"],
            "at": 1.0,
            **fields,
        }
        self.console.event({"event": "failure", "text": "rank 3 on node-1 exited with code 42", **failure})

    @property
    def stdout(self) -> str:
        return self.out.getvalue()

    @property
    def stderr(self) -> str:
        return self.err.getvalue()


# Lines


def test_each_stream_goes_to_its_own_with_the_rank() -> None:
    screen = Screen()
    screen.output(0, "to out")
    screen.output(3, "to err", stream="stderr")
    assert (screen.stdout, screen.stderr) == ("[rank 0] to out\n", "[rank 3] to err\n")


def test_prefixes_are_aligned_and_can_be_searched_for() -> None:
    screen = Screen(world_size=100)
    for rank in (0, 10, 99):
        screen.output(rank, "x")
    assert screen.stdout == "[rank 0]  x\n[rank 10] x\n[rank 99] x\n"


def test_an_empty_line_has_no_blank_at_its_end() -> None:
    screen = Screen()
    screen.output(0, "")
    assert screen.stdout == "[rank 0]\n"


def test_ranks_filters_output_but_never_a_failure() -> None:
    screen = Screen(ranks=(0,))
    screen.output(0, "shown")
    screen.output(3, "hidden")
    screen.failure()
    screen.console.close()
    assert screen.stdout == "[rank 0] shown\n"
    assert "rank 3 on node-1 exited with code 42" in screen.stderr
    assert "[rank 3] boom" in screen.stderr


def test_an_unfinished_line_is_shown_at_once_and_goes_on() -> None:
    screen = Screen()
    screen.output(0, "name? ", end="")
    assert screen.stdout == "[rank 0] name? "
    screen.output(0, "and ", end="")
    screen.output(0, "more")
    assert screen.stdout == "[rank 0] name? and more\n"


def test_an_unfinished_line_is_closed_by_another_rank_and_resumed_with_a_prefix() -> None:
    screen = Screen()
    screen.output(0, "one ", end="")
    screen.output(1, "whole")
    screen.output(0, "two", end="")
    screen.output(0, "")
    screen.output(0, "next")
    assert screen.stdout == "[rank 0] one \n[rank 1] whole\n[rank 0] two\n[rank 0] next\n"


def test_the_end_of_a_line_that_was_closed_for_it_is_no_empty_line() -> None:
    screen = Screen()
    screen.output(0, "one", end="")
    screen.output(1, "whole")
    screen.output(0, "")
    assert screen.stdout == "[rank 0] one\n[rank 1] whole\n"


def test_an_unfinished_line_on_a_separate_stream_is_left_alone() -> None:
    screen = Screen()
    screen.output(0, "one ", end="")
    screen.notice("info", "something")
    screen.output(0, "two")
    assert screen.stdout == "[rank 0] one two\n"


def test_both_streams_on_one_terminal_know_each_other() -> None:
    screen = Screen(one=True)
    screen.output(0, "one ", end="")
    screen.output(0, "warning", stream="stderr")
    screen.output(0, "two")
    assert screen.stdout == "[rank 0] one \n[rank 0] warning\n[rank 0] two\n"


def test_close_ends_what_is_unfinished() -> None:
    screen = Screen()
    screen.output(0, "unfinished", end="")
    screen.console.close()
    screen.console.close()
    assert screen.stdout == "[rank 0] unfinished\n"


def test_a_line_of_64_kib_is_passed_whole() -> None:
    screen = Screen()
    screen.output(0, "x" * 65536, end="")
    screen.output(0, "y" * 65536)
    assert screen.stdout == f"[rank 0] {'x' * 65536}{'y' * 65536}\n"


# Carriage returns


def bar(screen: Screen, states: list[str], step: float, rank: int = 0) -> None:
    """As tqdm writes them: a carriage return before each state, a newline at the end."""
    for state in states:
        screen.output(rank, "", end="\r", stream="stderr")
        screen.output(rank, state, end="", stream="stderr")
        screen.now += step
    screen.output(rank, "", end="\n", stream="stderr")


def test_a_bar_in_a_pipe_is_two_lines_a_second_and_the_last() -> None:
    screen = Screen()
    bar(screen, [f"{n} %" for n in range(101)], step=0.1)
    lines = screen.stderr.splitlines()
    assert lines[0] == "[rank 0] 0 %"
    assert lines[-1] == "[rank 0] 100 %"
    assert 18 <= len(lines) <= 22


def test_a_bar_that_ends_its_states_in_carriage_returns() -> None:
    screen = Screen()
    for n in range(101):
        screen.output(0, f"{n} %", end="\r")
    screen.output(0, "")
    screen.output(0, "after")
    assert screen.stdout == "[rank 0] 0 %\n[rank 0] 100 %\n[rank 0] after\n"


def test_the_newest_state_is_shown_when_its_time_has_come() -> None:
    screen = Screen()
    screen.output(0, "1 %", end="\r")
    screen.output(0, "2 %", end="\r")
    assert screen.stdout == "[rank 0] 1 %\n"
    screen.now += 1
    screen.console.tick()
    assert screen.stdout == "[rank 0] 1 %\n[rank 0] 2 %\n"


def test_the_last_state_is_not_lost_at_the_end() -> None:
    screen = Screen()
    screen.output(0, "1 %", end="\r")
    screen.output(0, "2 %", end="\r")
    screen.console.close()
    assert screen.stdout == "[rank 0] 1 %\n[rank 0] 2 %\n"


def test_lines_that_end_in_cr_lf_are_lines() -> None:
    screen = Screen()
    for line in ("one", "one", "", "three"):
        screen.output(0, line, end="\r")
        screen.output(0, "", end="\n")
    assert screen.stdout == "[rank 0] one\n[rank 0] one\n[rank 0]\n[rank 0] three\n"


def test_a_line_in_two_pieces_that_ends_in_cr_lf() -> None:
    screen = Screen()
    screen.output(0, "hel", end="")
    screen.output(0, "lo", end="\r")
    screen.output(0, "", end="\n")
    assert screen.stdout == "[rank 0] hello\n"


def test_a_bar_is_rewritten_in_place_where_one_rank_has_the_terminal() -> None:
    screen = Screen(world_size=1, tty=True, color=False, one=True)
    bar(screen, ["1 %", "2 %"], step=0.1)
    screen.output(0, "done")
    assert screen.stdout == f"[rank 0] 1 %{ERASE}[rank 0] 2 %{ERASE}[rank 0] 2 %\n[rank 0] done\n"


def test_a_bar_in_place_fits_the_width_until_it_is_done() -> None:
    screen = Screen(world_size=1, tty=True, color=False, one=True)
    bar(screen, ["x" * 200], step=0.1)
    assert screen.stdout == f"[rank 0] {'x' * 70}{ERASE}[rank 0] {'x' * 200}\n"


def test_bars_of_many_ranks_on_a_terminal_are_lines() -> None:
    screen = Screen(world_size=2, tty=True, color=False, one=True)
    for rank in (0, 1):
        screen.output(rank, "1 %", end="\r")
    assert screen.stdout == "[rank 0] 1 %\n[rank 1] 1 %\n"


PIECES = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["a", "bb", "", "\x1b[31m", "\x1b[2"]), st.sampled_from("\n\r")
    ),
    max_size=30,
) | st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["a", "bb", "", "\x1b[31m"]), st.sampled_from(["\n", "\r", ""])
    ),
    max_size=30,
)


@given(PIECES, st.booleans(), st.booleans(), st.sampled_from([1, 3]))
def test_any_order_of_pieces_leaves_whole_lines(
    pieces: list[tuple[int, str, str]], tty: bool, one: bool, world_size: int
) -> None:
    screen = Screen(world_size=world_size, tty=tty, one=one)
    for rank, data, end in pieces:
        screen.output(rank % world_size, data, end)
        screen.now += 0.1
    screen.console.close()
    assert screen.stdout == "" or screen.stdout.endswith("\n")
    for line in screen.stdout.replace(ERASE, "\n").splitlines():
        assert line == "" or "[rank " in line
        assert line.count("\x1b[31m") == 0 or line.endswith("\x1b[0m")
    if not tty:
        assert "\x1b" not in screen.stdout


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.text("xyz", max_size=3), st.sampled_from(["\n", ""])), max_size=30
    )
)
def test_no_text_is_lost_or_mixed(pieces: list[tuple[int, str, str]]) -> None:
    screen = Screen()
    for rank, data, end in pieces:
        screen.output(rank, data, end)
    screen.console.close()
    for rank in range(3):
        sent = "".join(data for r, data, _ in pieces if r == rank)
        lines = [line for line in screen.stdout.splitlines() if line.startswith(f"[rank {rank}]")]
        assert "".join(line.removeprefix(f"[rank {rank}]").removeprefix(" ") for line in lines) == sent


# Colours


@pytest.mark.parametrize(
    ("environ", "tty", "colored"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_when_colours_are_used(environ: dict[str, str], tty: bool, colored: bool) -> None:
    screen = Screen(environ=environ, tty=tty)
    screen.output(0, "\x1b[31mred")
    expected = f"\x1b[{PALETTE[0]}m[rank 0]\x1b[0m \x1b[31mred\x1b[0m\n" if colored else "[rank 0] red\n"
    assert screen.stdout == expected


# Phases and notices


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


def test_a_stall_is_told_in_lines() -> None:
    screen = Screen()
    screen.console.event({"event": "stall", "text": "rank 1 waits for rank 0\n  train.py:12"})
    assert screen.stderr == "torchnet: warning: rank 1 waits for rank 0\ntorchnet:     train.py:12\n"


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
    assert "cannot be read" in screen.stderr


# The end


def test_the_root_cause_stands_at_the_end() -> None:
    screen = Screen()
    screen.failure(tail=["Traceback", "boom \x1b[2J"])
    screen.failure(rank=0, code=143, text="rank 0 on node-0 exited with code 143", at=2.0)
    screen.output(0, "terminated", stream="stderr")
    screen.console.close()
    assert screen.stderr.splitlines() == [
        "torchnet: error: rank 3 on node-1 exited with code 42",
        "torchnet: error: rank 0 on node-0 exited with code 143",
        "[rank 0] terminated",
        "torchnet: error: root cause: rank 3 on node-1 exited with code 42",
        "torchnet: the last lines of rank 3:",
        "[rank 3] Traceback",
        "[rank 3] boom ",
    ]


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
    screen.failure()
    screen.failure()
    assert screen.stderr.count("exited with code 42") == 1


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


def test_the_receipt_is_a_table_on_standard_error() -> None:
    screen = Screen()
    screen.console.event({"event": "receipt", "receipt": receipt()})
    assert screen.stdout == ""
    last = "backend share 99.97 % (measured) of 405.3 MB exchanged between the workers, over net1"
    assert screen.stderr.splitlines()[-1] == last
    quiet = Screen(quiet=True)
    quiet.console.event({"event": "receipt", "receipt": receipt()})
    assert quiet.stdout == quiet.stderr == ""


def test_a_receipt_that_cannot_be_read_is_told() -> None:
    screen = Screen()
    screen.console.event({"event": "receipt", "receipt": receipt(backend_share=7)})
    assert "torchnet: error: the receipt cannot be read" in screen.stderr
    assert "backend_share" in screen.stderr


def test_no_failure_no_cause() -> None:
    screen = Screen()
    screen.output(0, "fine")
    screen.console.close()
    assert screen.stderr == ""


# Real terminals, pipes and full disks


@contextmanager
def terminal() -> Iterator[tuple[Any, int]]:
    """A pseudo terminal: a text file to write to, and the descriptor that shows what arrived."""
    above, below = pty.openpty()
    with os.fdopen(below, "w") as file:
        yield file, above
    os.close(above)


def test_a_real_terminal() -> None:
    with terminal() as (file, above):
        console = Console(file, file, world_size=2, environ={})
        console.event({"event": "phase", "node": 0, "phase": "join", "text": "2/2 joined"})
        console.event(
            {"event": "output", "rank": 1, "stream": "stdout", "data": "\x1b[?1049hä\udc80", "end": "\n"}
        )
        console.close()
        shown = ""
        while "x80\r\n" not in shown and select.select([above], [], [], 10)[0]:
            shown += os.read(above, 4096).decode()
    assert "join 2/2 joined" in shown
    assert "\x1b[33m[rank 1]\x1b[0m ä\\x80\r\n" in shown
    assert "1049" not in shown


def test_an_ascii_locale_does_not_break_it(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with open(path, "w", encoding="ascii") as file:
        console = Console(file, file, world_size=1, environ={})
        console.event({"event": "output", "rank": 0, "stream": "stdout", "data": "日本", "end": "\n"})
        console.close()
    assert path.read_text() == "[rank 0] \\u65e5\\u672c\n"


def test_a_reader_that_went_away_does_not_stop_the_job() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    err = io.StringIO()
    with os.fdopen(writing, "w") as file:
        console = Console(err, file, world_size=1, environ={})
        for _ in range(3):
            console.event({"event": "output", "rank": 0, "stream": "stdout", "data": "x", "end": "\n"})
        console.close()
    assert err.getvalue() == "torchnet: warning: standard output is given up: Broken pipe\n"


def test_a_full_disk_does_not_stop_the_job() -> None:
    err = io.StringIO()
    with open("/dev/full", "w") as file:
        console = Console(err, file, world_size=1, environ={})
        console.event({"event": "output", "rank": 0, "stream": "stdout", "data": "x", "end": "\n"})
        console.close()
    assert err.getvalue() == "torchnet: warning: standard output is given up: No space left on device\n"


def test_a_slow_reader_of_a_non_blocking_pipe_gets_all() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got = bytearray()

    def read() -> None:
        time.sleep(0.2)  # the pipe is full by then
        while data := os.read(reading, 1000):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "w") as file:
        console = Console(io.StringIO(), file, world_size=1, environ={})
        console.event(
            {"event": "output", "rank": 0, "stream": "stdout", "data": "x" * 1_000_000, "end": "\n"}
        )
        console.close()
    reader.join(10)
    os.close(reading)
    assert len(got) == 1_000_010
