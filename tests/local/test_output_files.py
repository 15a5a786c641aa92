"""--log-dir, --tee and --redirects: each rank's raw output in a file, and what is shown beside."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import Job, lines, run, script, state, until

JUNK = bytes(range(256)) + b"\r50%\r100%\n\x1b[2Jno newline \xff"
TEXT = f"""
    import os
    os.write(1, {JUNK!r})
    os.write(2, b"err " + os.environ["RANK"].encode())
"""
QUIET, OUT, ERR, BOTH = set[str](), {"out"}, {"err"}, {"out", "err"}


def test_each_rank_has_a_file_with_what_it_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "a b"
    text = TEXT + "    open('/dev/stdout', 'w')\n" + "    os.write(1, b'x' * 3_000_000)\n"
    done = run("--nproc-per-node", "2", "--log-dir", folder, script(tmp_path, text))
    assert done.code == 0, done.stderr
    assert sorted(os.listdir(folder)) == [f"rank-{rank}.log" for rank in range(4)]
    for rank in range(4):
        written = (folder / f"rank-{rank}.log").read_bytes()
        # Both streams in one file; each has its own order.
        assert f"err {rank}".encode() in written
        assert written.replace(f"err {rank}".encode(), b"") == JUNK + b"x" * 3_000_000
        assert lines(done.stdout, rank), "and it is shown, too"


def test_what_waits_in_the_pipe_at_the_end_is_kept(tmp_path: Path) -> None:
    """Its agent is held up while a process writes and fails, and a child keeps the pipe open."""
    text = """
        import fcntl, os, subprocess, time
        fcntl.fcntl(1, 1031, 1 << 20)  # F_SETPIPE_SZ
        subprocess.Popen(["sleep", "60"])
        while not os.path.exists("go"):
            time.sleep(0.01)
        os.write(1, b"x" * 900_000)
        os._exit(3)
    """
    arguments = ("--standalone", "--log-dir", tmp_path / "logs", script(tmp_path, text))
    with Job(*arguments, cwd=tmp_path) as job:
        until(job.ranks, "the rank runs")
        agent, rank = job.agent(0), job.ranks()[0]
        os.kill(agent, signal.SIGSTOP)
        (tmp_path / "go").touch()
        until(lambda: state(rank) == "Z", "it has ended")
        os.kill(agent, signal.SIGCONT)
        done = job.finish()
    assert done.code == 3, done.stderr
    assert (tmp_path / "logs" / "rank-0.log").read_bytes() == b"x" * 900_000
    assert done.stdout.count("x") == 900_000


def test_a_restart_has_a_file_of_its_own(tmp_path: Path) -> None:
    text = """
        import os, sys
        print("attempt", os.environ["TORCHELASTIC_RESTART_COUNT"], flush=True)
        sys.exit(os.environ["TORCHELASTIC_RESTART_COUNT"] == "0")
    """
    done = run(
        "--standalone", "--max-restarts", "1", "--log-dir", "logs", script(tmp_path, text), cwd=tmp_path
    )
    assert done.code == 0, done.stderr
    assert {file.name: file.read_text() for file in (tmp_path / "logs").iterdir()} == {
        "rank-0.log": "attempt 0\n",
        "rank-0.restart-1.log": "attempt 1\n",
    }


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (("--redirects", "3"), (QUIET, QUIET)),
        (("--redirects", "1"), (ERR, ERR)),
        (("--redirects", "0:2,1:3"), (OUT, QUIET)),
        (("--redirects", "1:3"), (BOTH, QUIET)),
        (("-r", "3", "--tee", "0:1,1:2"), (OUT, ERR)),
        (("--tee", "3"), (BOTH, BOTH)),
    ],
)
def test_redirects_hides_and_tee_shows(
    tmp_path: Path, flags: tuple[str, ...], shown: tuple[set[str], set[str]]
) -> None:
    """As torchrun has it: by local rank; what is redirected goes to files alone, what is teed to both."""
    text = "import os, sys; print('out'); print('err', file=sys.stderr)"
    arguments = (*flags, "--nproc-per-node", "2", "--standalone", "--log-dir", tmp_path / "logs")
    done = run(*arguments, script(tmp_path, text))
    assert done.code == 0, done.stderr
    for rank in (0, 1):
        assert {*lines(done.stdout, rank), *lines(done.stderr, rank)} == shown[rank]
        assert sorted((tmp_path / "logs" / f"rank-{rank}.log").read_text().split()) == ["err", "out"]


def test_what_is_hidden_stands_in_the_root_cause(tmp_path: Path) -> None:
    fails = script(tmp_path, "raise SystemExit('oh no')")
    done = run("--standalone", "--redirects", "3", "--log-dir", tmp_path / "logs", fails)
    assert done.code == 1
    assert done.stderr.splitlines()[-1] == "[rank 0] oh no"


def test_a_log_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    done = run("--standalone", "--log-dir", tmp_path / "logs", script(tmp_path, "print('out')"))
    assert (done.code, lines(done.stdout, 0)) == (0, ["out"])
    assert "torchnet: warning: node 0: no log of rank 0: " in done.stderr


def test_a_full_disk_ends_the_log_and_not_the_job(tmp_path: Path) -> None:
    """The folder is a file system of 1 MB, in a mount namespace of the test's own."""
    text = script(tmp_path, "import os; [os.write(1, b'x' * 99 + b'\\n') for _ in range(30_000)]")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = 'mount -t tmpfs -o size=1m none "$0" && exec "$@"'
    needs.networks()
    command = ("unshare", "-Urm", "sh", "-c", mount, folder, sys.executable, "-m", "torchnet", "launch")
    done = run("--standalone", "--log-dir", folder, text, command=[str(word) for word in command])
    assert done.code == 0, done.stderr
    assert len(lines(done.stdout, 0)) == 30_000
    assert "the log of rank 0 any more: No space left on device" in done.stderr
