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


def files(folder: Path) -> dict[str, bytes]:
    """The log files of one run, by their paths below its folder."""
    (run_folder,) = folder.iterdir()
    return {str(p.relative_to(run_folder)): p.read_bytes() for p in run_folder.rglob("*") if p.is_file()}


def test_each_stream_of_each_rank_has_a_file_with_what_it_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "a b"
    text = TEXT + "    open('/dev/stdout', 'w')\n" + "    os.write(1, b'x' * 3_000_000)\n"
    flags = ("--nnodes", "2", "--nproc-per-node", "2", "--log-dir", folder)
    done = run(*flags, script(tmp_path, text))
    assert done.code == 0, done.stderr
    expected = {}
    for rank in range(4):
        place = f"node-{rank // 2}/attempt_0/{rank % 2}"
        expected[f"{place}/stdout.log"] = JUNK + b"x" * 3_000_000
        expected[f"{place}/stderr.log"] = f"err {rank}".encode()
        assert lines(done.stdout, rank), "and it is shown, too"
    assert files(folder) == expected
    assert f"torchnet: logs: {next(folder.iterdir())}\n" in done.stderr


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
    assert files(tmp_path / "logs")["node-0/attempt_0/0/stdout.log"] == b"x" * 900_000
    assert done.stdout.count("x") == 900_000


def test_each_attempt_and_each_run_has_files_of_its_own(tmp_path: Path) -> None:
    """Even with the same run ID; an error file exists where @record has written one."""
    text = """
        import json, os, sys
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        print("attempt", attempt, flush=True)
        if attempt == "0":
            with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
                json.dump({"message": "oh no"}, file)
            sys.exit(1)
    """
    flags = ("--standalone", "--max-restarts", "1", "--rdzv-id", "same", "--log-dir", "logs", "-r", "1")
    for _ in range(2):
        done = run(*flags, script(tmp_path, text), cwd=tmp_path)
        assert done.code == 0, done.stderr
        assert done.stdout == ""
    runs = [*(tmp_path / "logs").iterdir()]
    assert [one.name.startswith("same_") for one in runs] == [True, True]
    for one in runs:
        assert {str(p.relative_to(one)): p.read_text() for p in one.rglob("*") if p.is_file()} == {
            "node-0/attempt_0/0/stdout.log": "attempt 0\n",
            "node-0/attempt_0/0/error.json": '{"message": "oh no"}',
            "node-0/attempt_1/0/stdout.log": "attempt 1\n",
        }


@pytest.mark.parametrize(
    ("flags", "shown", "kept"),
    [
        (("--redirects", "3"), (QUIET, QUIET), (BOTH, BOTH)),
        (("--redirect", "1"), (ERR, ERR), (OUT, OUT)),
        (("--redirects", "0:2,1:3"), (OUT, QUIET), (ERR, BOTH)),
        (("-r", "3", "--tee", "0:1,1:2"), (OUT, ERR), (BOTH, BOTH)),
        (("-t=0:1",), (BOTH, BOTH), (OUT, QUIET)),
    ],
)
def test_redirects_hides_and_tee_shows(
    tmp_path: Path,
    flags: tuple[str, ...],
    shown: tuple[set[str], set[str]],
    kept: tuple[set[str], set[str]],
) -> None:
    """As torchrun has it: by local rank; what is redirected goes to files alone, what is teed to both."""
    text = "import os, sys; print('out'); print('err', file=sys.stderr)"
    arguments = (*flags, "--nproc-per-node", "2", "--standalone", "--log-dir", tmp_path / "logs")
    done = run(*arguments, script(tmp_path, text))
    assert done.code == 0, done.stderr
    written = files(tmp_path / "logs")
    for rank in (0, 1):
        assert {*lines(done.stdout, rank), *lines(done.stderr, rank)} == shown[rank]
        found = {text.decode().strip() for path, text in written.items() if f"/{rank}/" in path}
        assert found == kept[rank]


def test_without_a_folder_they_go_to_a_temporary_one(tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    shout = script(tmp_path, "print('out')")
    done = run("--standalone", "-r", "3", shout, env={"TMPDIR": str(place)})
    assert (done.code, done.stdout) == (0, ""), done.stderr
    (folder,) = place.iterdir()
    assert files(folder) == {
        "node-0/attempt_0/0/stdout.log": b"out\n",
        "node-0/attempt_0/0/stderr.log": b"",
    }
    assert f"torchnet: logs: {folder}/" in done.stderr


def test_without_a_prefix_a_programs_bytes_are_unchanged(tmp_path: Path) -> None:
    """Also where its standard error, torchnet's own lines and the receipt go elsewhere."""
    with open(tmp_path / "out", "wb") as file:
        done = run("--nnodes", "2", "--no-prefix", "--ranks", "0", script(tmp_path, TEXT), stdout=file)
    assert done.code == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == JUNK
    assert "err 0" in done.stderr
    assert "err 1" not in done.stderr


def test_torchruns_prefix_and_local_ranks(tmp_path: Path) -> None:
    """The template's variable, too; ranks 1 and 3 are the local rank 1 of two nodes."""
    flags = ("--nnodes", "2", "--nproc-per-node", "2", "--local-ranks-filter", "1", "--role", "r")
    template = "${hostname} ${role_name} ${rank}/${local_rank} ${none}> "
    done = run(
        *flags, script(tmp_path, "print('x')"), env={"TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": template}
    )
    assert done.code == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["node-0 r 1/1 ${none}> x", "node-1 r 3/1 ${none}> x"]


def test_what_is_hidden_stands_in_the_root_cause(tmp_path: Path) -> None:
    fails = script(tmp_path, "raise SystemExit('oh no')")
    done = run("--standalone", "--redirects", "3", "--log-dir", tmp_path / "logs", fails)
    assert done.code == 1
    assert done.stderr.splitlines()[-1] == "[rank 0] oh no"


def test_a_log_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    done = run("--standalone", "--log-dir", tmp_path / "logs", script(tmp_path, "print('out')"))
    assert (done.code, lines(done.stdout, 0)) == (0, ["out"])
    assert "torchnet: warning: node 0: no stdout of rank 0 in --log-dir: " in done.stderr


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
    assert "cannot write stdout of rank 0 to --log-dir any more: No space left on device" in done.stderr
