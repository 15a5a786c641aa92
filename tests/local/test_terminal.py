"""On a real terminal: colours, one line for the phases, keys, and a terminal that is left as it was."""

from __future__ import annotations

import re
import signal
import time
import uuid
from pathlib import Path

import pytest

from tests.jobs import PATIENCE, Job, lines, marked, receipt, script
from tests.terminal import COLUMNS, on_terminal

POLITE = """
    import os, signal, sys, time
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP):
        signal.signal(number, lambda number, frame: (print("heard", number, flush=True), sys.exit(0)))
    print("ready", flush=True)
    while True:
        time.sleep(0.1)
"""
COLOUR = r"\x1b\[[\d;]*m"


def plain(text: str) -> str:
    """Without colours, and lines that end as on a terminal."""
    return re.sub(COLOUR, "", text).replace("\r\n", "\n")


def ready(job: Job) -> None:
    for rank in (0, 1):
        job.wait_for(rf"\[rank {rank}\]({COLOUR})? +ready", on="stdout")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_ranks_have_colours_unless_no_color_is_set(tmp_path: Path, no_color: str) -> None:
    text = "import sys; print('\\x1b[1mbold'); print('err', file=sys.stderr)"
    with on_terminal(script(tmp_path, text), env={"NO_COLOR": no_color}) as terminal:
        assert terminal.finish().code == 0
        said = terminal.job.text("stdout")
    shown = plain(said)
    assert (lines(shown, 0), lines(shown, 1)) == (["bold", "err"], ["bold", "err"]) or sorted(
        lines(shown, 0)
    ) == [
        "bold",
        "err",
    ]
    if no_color:
        assert not re.search(COLOUR, said)
    else:
        assert "\x1b[36m[rank 0]\x1b[0m \x1b[1mbold\x1b[0m\r\n" in said, "a colour ends with its line"
        assert "\x1b[33m[rank 1]\x1b[0m err\r\n" in said


def test_the_phases_are_one_line(tmp_path: Path) -> None:
    with on_terminal("--nnodes", "4", script(tmp_path, "pass")) as terminal:
        assert terminal.finish().code == 0
        said = plain(terminal.job.text("stdout"))
    assert "torchnet: join 4/4 joined · preflight 12/12 paths at 9000 bytes\n" in said
    drawn = [line.rpartition("\x1b[K")[2] for line in said.splitlines() if "torchnet: join" in line]
    assert all(len(line) < COLUMNS for line in drawn)


def test_ctrl_c_reaches_each_rank_once_by_torchnet(tmp_path: Path) -> None:
    with on_terminal(script(tmp_path, POLITE)) as terminal:
        ready(terminal.job)
        terminal.type("\x03")
        done = terminal.finish()
    assert done.code == 130
    for rank in (0, 1):
        assert lines(plain(done.stdout), rank) == ["ready", f"heard {signal.SIGINT:d}"]
    assert "stopping" in done.stdout
    assert "root cause: stopped by SIGINT" in plain(done.stdout)


def test_ctrl_c_twice(tmp_path: Path) -> None:
    text = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    )
    with on_terminal(script(tmp_path, text)) as terminal:
        ready(terminal.job)
        terminal.type("\x03")
        terminal.job.wait_for("stopping", on="stdout")
        typed = time.monotonic()
        terminal.type("\x03")
        done = terminal.finish()
    assert done.code == 130
    assert done.at - typed < 3


def test_a_window_that_is_closed_stops_the_job(tmp_path: Path) -> None:
    """Row 5: SIGHUP, with nowhere left to write to."""
    path, mark, said = tmp_path / "receipt.json", uuid.uuid4().hex, ""
    arguments = ("--json", path, script(tmp_path, POLITE))
    with on_terminal(*arguments, env={"TEST_JOB": mark}, listen=False) as terminal:
        while said.count("ready") < 2:
            said += terminal.read()
        closed = time.monotonic()
        terminal.close()
        assert terminal.job.process.wait(PATIENCE) == 129
    assert time.monotonic() - closed < 10
    assert receipt(path)["reason"] == "stopped by SIGHUP"
    assert not any(marked(mark))


def test_hostile_output_does_not_change_the_terminal(tmp_path: Path) -> None:
    text = r"""
        import sys
        sys.stdout.write("\x1b[31mred\n")
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J\x1b[5;1Hmoved\x1b]0;title\x07\x1bc\x0e\n")
        sys.stdout.write("\x1b[>4;2m\x1b[?2004h\x9b31m\x90q\x9c keyboard\n")
        sys.stdout.write("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\\n\x1b[38;5;")
    """
    with on_terminal("--standalone", script(tmp_path, text)) as terminal:
        assert terminal.finish().code == 0
        said = terminal.job.text("stdout")
    # Colours, and the erasing of torchnet's own progress line, are all that passes.
    left = re.sub(rf"{COLOUR}|\r\x1b\[K", "", said)
    assert "\x1b" not in left
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", left)
    assert "\x1b[31mred\x1b[0m\r\n" in said
    assert lines(plain(said), 0)[1] == "moved\\x0e"


def test_a_lone_ranks_bar_is_rewritten_in_place(tmp_path: Path) -> None:
    text = """
        import sys, time
        for percent in range(0, 101, 2):
            sys.stderr.write(f"\\r{percent:3d}%|{'#' * percent}{' ' * (100 - percent)}|")
            sys.stderr.flush()
            time.sleep(0.02)
        sys.stderr.write("\\n")
    """
    with on_terminal("--standalone", script(tmp_path, text)) as terminal:
        assert terminal.finish().code == 0
        said = re.sub(COLOUR, "", terminal.job.text("stdout"))
    states = re.findall(r"\r\x1b\[K\[rank 0\] +(\d+)%\|(#*)", said)
    assert len(states) > 3
    bar = said[: said.index("receipt of")]
    assert bar.count("\n") <= 3, "it is one line"
    assert all(len(state) < COLUMNS for state in re.findall(r"\x1b\[K([^\r\n]*)", bar) if "100%" not in state)
