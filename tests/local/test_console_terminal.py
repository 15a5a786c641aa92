"""A real terminal emulator (tmux), before and after a script that tries to leave it in another state."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import needs

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = itertools.count()
STATE = (
    "alternate_on", "cursor_flag", "insert_flag", "keypad_cursor_flag", "keypad_flag", "mouse_any_flag", "origin_flag",
    "wrap_flag", "pane_title", "scroll_region_upper", "scroll_region_lower", "cursor_x", "history_size",
)  # fmt: skip
HOSTILE = (
    b"\x1b[?1049h", b"\x1b[?25l", b"\x1b[4h", b"\x1b[?1h", b"\x1b=", b"\x1b[?1000h", b"\x1b[?6h", b"\x1b[?7l",
    b"\x1b]0;owned\x07", b"\x1b[5;10r", b"\x1b(0", b"\x0e", b"\x1b[31;7m", b"\x1b[10C", b"\x9b?25l", b"\xc2\x9b?25l",
    b"\x1b]0;never ended", b"\x1b[", b"\xff\xfe\x00\x08\x08",
)  # fmt: skip
PROGRAM = """
import sys
from torchnet.agent.rank_process import LineSplitter
from torchnet.console.console import Console

console = Console(world_size=2)
event = {"event": "output", "rank": 1, "stream": "stdout"}
lines = LineSplitter(lambda data, end: console.event({**event, "data": data, "end": end}))
lines.feed(open(sys.argv[1], "rb").read())
lines.idle()
console.event({**event, "data": "END", "end": "\\n"})
console.close()
"""


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[..., str]]:
    needs.program("tmux")

    def call(*arguments: str) -> str:
        env = {**os.environ, "TMUX_TMPDIR": str(tmp_path), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["tmux", "-f", "/dev/null", "-L", "test", *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("new-session", "-d", "-x", "100", "-y", "30", "env PS1='$ ' sh")
    yield call
    call("kill-server")


def state(tmux: Callable[..., str]) -> list[str]:
    return tmux("display-message", "-p", "\n".join(f"{name}=#{{{name}}}" for name in STATE)).splitlines()


def run(tmux: Callable[..., str], command: str) -> str:
    """Type a command, wait until its last line and the next prompt stand there; the screen, with its colours."""
    start = f"START {next(NUMBERS)}"  # of this command: the last one's screen stands there until the shell reads on
    tmux("send-keys", f"clear; echo {start}; {command}", "Enter")
    deadline = time.monotonic() + 30
    while True:
        screen = tmux("capture-pane", "-p", "-e")
        lines = screen.rstrip("\n").split("\n")
        if start in screen and "END" in screen and lines[-1].endswith("$"):
            return screen
        assert time.monotonic() < deadline, screen
        time.sleep(0.05)


def test_the_terminals_state_stays(tmux: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    program = f"{shlex.quote(sys.executable)} {tmp_path}/program.py"
    (tmp_path / "plain").write_bytes(b"nothing\n")
    run(tmux, f"{program} {tmp_path}/plain")
    before = state(tmux)
    for number, end in enumerate((b"\n", b"\r", b"")):
        (tmp_path / "hostile").write_bytes(end.join(sequence + b"text" for sequence in HOSTILE) + end)
        screen = run(tmux, f"{program} {tmp_path}/hostile")
        assert state(tmux) == before, number
        assert screen.rstrip().endswith("$"), screen  # the prompt has no colour
        assert "[rank 1]" in screen


def test_the_bytes_themselves_would_change_it(tmux: Callable[..., str], tmp_path: Path) -> None:
    """The control: without torchnet in between the terminal is another one afterwards."""
    before = state(tmux)
    (tmp_path / "hostile").write_bytes(b"".join(HOSTILE[:8]) + b"\x1b]0;owned\x07")
    tmux("send-keys", f"cat {tmp_path}/hostile", "Enter")
    deadline = time.monotonic() + 10
    while state(tmux)[:9] == before[:9]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
