"""Standard input: one rank's if asked for, so that breakpoint() works, and /dev/null for all others."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from tests.jobs import Job, lines, run, script
from tests.terminal import on_terminal

BREAK = """
    import os, sys
    answer = 41
    if os.environ["RANK"] == "1":
        breakpoint()
    print("answer", answer)
"""


def type_into(file: IO[Any] | None, text: str) -> None:
    assert file is not None
    file.write(text.encode())
    file.flush()


def test_breakpoint_through_a_pipe(tmp_path: Path) -> None:
    with Job("--stdin-rank", "1", script(tmp_path, BREAK), stdin=subprocess.PIPE) as job:
        # The prompt is no whole line, and is shown all the same.
        job.wait_for(r"^\[rank 1\] \(Pdb\) ", on="stdout")
        type_into(job.process.stdin, "p 'the answer', answer\n")
        job.wait_for(r"\('the answer', 41\)", on="stdout")
        type_into(job.process.stdin, "answer = 42\n")
        type_into(job.process.stdin, "c\n")
        done = job.finish()
    assert done.code == 0, done.stderr
    assert lines(done.stdout, 0) == ["answer 41"]
    assert done.stdout.count("answer 42") == 1


def test_breakpoint_on_a_terminal(tmp_path: Path) -> None:
    with on_terminal("--stdin-rank", "1", script(tmp_path, BREAK)) as terminal:
        terminal.job.wait_for(r"\(Pdb\) ", on="stdout")
        terminal.type("answer = 42\r")
        terminal.job.wait_for(r"\(Pdb\) [\s\S]*answer = 42[\s\S]*\(Pdb\) ", on="stdout")
        terminal.type("c\r")
        done = terminal.finish()
    assert done.code == 0, done.stdout
    assert re.search("answer 42", done.stdout)


def test_ctrl_c_ends_a_breakpoint(tmp_path: Path) -> None:
    with on_terminal("--stdin-rank", "1", "--grace", "2", script(tmp_path, BREAK)) as terminal:
        terminal.job.wait_for(r"\(Pdb\) ", on="stdout")
        terminal.type("\x03")
        done = terminal.finish()
    assert done.code == 130, done.stdout


@pytest.mark.parametrize("rank", ["0", "3"])
def test_a_pipe_arrives_whole_and_ends(tmp_path: Path, rank: str) -> None:
    text = """
        import hashlib, os, sys
        data = sys.stdin.buffer.read()
        print(len(data), hashlib.sha256(data).hexdigest()[:8])
    """
    data = bytes(range(256)) * 20_000
    (tmp_path / "data").write_bytes(data)
    with open(tmp_path / "data", "rb") as file:
        arguments = ("--nnodes", "2", "--nproc-per-node", "2", "--stdin-rank", rank, script(tmp_path, text))
        done = run(*arguments, stdin=file)
    assert done.code == 0, done.stderr
    empty = f"0 {hashlib.sha256(b'').hexdigest()[:8]}"
    whole = f"{len(data)} {hashlib.sha256(data).hexdigest()[:8]}"
    assert [lines(done.stdout, n) for n in range(4)] == [
        [whole if str(n) == rank else empty] for n in range(4)
    ]


def test_nobody_reads_it_unasked(tmp_path: Path) -> None:
    """Input typed or piped while a job runs is left to the shell; a script that reads it gets a notice."""
    (tmp_path / "data").write_text("for somebody else\n")
    text = "import os, sys; print(repr(sys.stdin.read()), os.isatty(0))"
    with open(tmp_path / "data", "rb") as file:
        done = run("--nnodes", "2", script(tmp_path, text), stdin=file)
        assert file.read() == b"for somebody else\n"
    assert done.code == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"[rank {rank}] '' False" for rank in (0, 1)]
    (line,) = [line for line in done.stderr.splitlines() if "--stdin-rank" in line]
    assert re.match(r"torchnet: warning: rank [01] reads its standard input, which is empty", line)


def test_a_single_process_has_it(tmp_path: Path) -> None:
    """Even its script may come from there."""
    text = "import sys; print(repr(sys.stdin.read()), sys.argv)"
    (tmp_path / "data").write_text("line1\nline2\n")
    with open(tmp_path / "data", "rb") as file:
        done = run("--nnodes", "1", script(tmp_path, text), "${local_rank}", "$$5 $", stdin=file)
    assert done.code == 0, done.stderr
    assert lines(done.stdout, 0)[0].startswith(r"'line1\nline2\n' [")
    assert lines(done.stdout, 0)[0].endswith("'0', '$5 $']")
    with open(tmp_path / "script.py", "rb") as file:  # one process, whatever GPUs there are
        done = run("--nnodes", "1", "-", "x", stdin=file, env={"CUDA_VISIBLE_DEVICES": "0,1"})
    assert (done.code, lines(done.stdout, 0)) == (0, ["'' ['-', 'x']"]), done.stderr


def test_a_closed_stdin_is_no_problem(tmp_path: Path) -> None:
    text = script(tmp_path, "import sys; print(repr(sys.stdin and sys.stdin.read()))")
    shell = 'exec "$@" <&-'
    command = ("sh", "-c", shell, "sh", sys.executable, "-m", "torchnet", "launch")
    done = run("--stdin-rank", "0", text, command=command)
    assert done.code == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
