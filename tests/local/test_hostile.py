"""Names, values and paths that people and machines come up with: carried as data, or refused with one sentence."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import TORCHNET, Job, lines, receipt, run, script
from tests.users import User

HELLO = """
    import json, os, sys
    named = [os.environ[name] for name in sorted(os.environ) if name.startswith("NAME")]
    print(json.dumps([sys.argv[1:], named, os.path.realpath(__file__)]))
"""
VALUES = ("$(touch x)", "a\nb: {}", "\x1b[31m", "\u202eevil", "'\"`;|&<>*?~", "é" * 300)


def test_paths_may_hold_anything(weird_tmp_path: Path) -> None:
    name = "-s \n\u202e'\"$(touch x).py"
    hello, logs, json_path = (
        script(weird_tmp_path, HELLO, name),
        weird_tmp_path / "l o\ngs",
        weird_tmp_path / "r\n.json",
    )
    done = run("--nnodes", "2", "--log-dir", logs, "--json", json_path, f"./{name}", cwd=weird_tmp_path)
    assert done.code == 0, done.stderr
    for rank in (0, 1):
        assert json.loads(lines(done.stdout, rank)[0]) == [[], [], str(hello)]
        assert len([*logs.glob(f"*/node-{rank}/attempt_0/0/stdout.log")]) == 1
    assert receipt(json_path)["exit_code"] == 0
    assert not (weird_tmp_path / "x").exists()


def test_a_script_whose_name_is_a_flags_comes_after_two_dashes(tmp_path: Path) -> None:
    script(tmp_path, HELLO, "--nnodes")
    done = run("--", "--nnodes", "3", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert json.loads(lines(done.stdout, 1)[0])[0] == ["3"]


def test_values_are_data(tmp_path: Path) -> None:
    hello = script(tmp_path, HELLO)
    flags = [word for number, value in enumerate(VALUES) for word in ("--env", f"NAME{number}={value}")]
    done = run("--standalone", *flags, hello, *VALUES, cwd=tmp_path)
    assert done.code == 0, done.stderr
    argv, named, _ = json.loads(lines(done.stdout, 0)[0])
    assert argv == named == list(VALUES)
    assert os.listdir(tmp_path) == [hello.name]


def test_torchnets_own_lines_hold_no_control_characters(tmp_path: Path) -> None:
    """A warning quotes what the user set; a failure quotes the script's name."""
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\nfake: line"
    done = run(
        script(tmp_path, "raise SystemExit(1)"), env={"GLOO_SOCKET_IFNAME": evil, "NCCL_COMM_ID": evil}
    )
    assert done.code == 1
    assert "GLOO_SOCKET_IFNAME=" in done.stderr
    assert not any(character in done.stderr for character in "\x1b\x07\u202e")
    assert "\nfake: line" not in done.stderr


def test_a_script_in_a_read_only_folder(tmp_path: Path, as_user: User) -> None:
    """An ordinary user runs a script of root's, from a folder where nothing can be written."""
    as_user.networks()
    shelf = as_user.home.parent / f"{as_user.home.name}-shelf"
    shelf.mkdir(mode=0o755)
    try:
        hello = script(shelf, HELLO)
        shelf.chmod(0o555)
        with Job(hello, popen=as_user.popen, command=(*TORCHNET, "launch"), cwd=shelf) as job:
            done = job.finish()
        assert done.code == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2
        assert os.listdir(shelf) == [hello.name]
    finally:
        shutil.rmtree(shelf)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.py", "missing.py: no such file"),
        ("scrip.py", "scrip.py: no such file; did you mean script.py?"),
        ("folder", "folder: is a directory without a __main__.py"),
        ("tool.sh", "not for Python; --no-python"),
        ("binary", "binary: is a binary, not Python; --no-python"),
        ("prose.txt", "prose.txt: is not valid Python (line 1: "),
        ("pipe", "pipe: is not a regular file"),
        ("loop", "loop: cannot access it (Too many levels of symbolic links)"),
    ],
)
def test_what_is_no_script_is_told_before_anything_starts(tmp_path: Path, name: str, words: str) -> None:
    script(tmp_path, HELLO)
    (tmp_path / "folder").mkdir()
    (tmp_path / "tool.sh").write_text("#!/bin/sh\necho hello\n")
    shutil.copy("/bin/true", tmp_path / "binary")
    (tmp_path / "prose.txt").write_text("This is prose.\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    done = run(name, cwd=tmp_path)
    assert done.code == 2
    assert words in done.stderr
    assert "joined" not in done.stderr
    if "--no-python" in words:
        (tmp_path / name).chmod(0o755)
        assert run("--no-python", f"./{name}", cwd=tmp_path).code == 0


def test_a_script_that_may_not_be_read(tmp_path: Path, as_user: User) -> None:
    secret = as_user.home / "secret.py"
    secret.write_text("print('secret')")
    secret.chmod(0o600)
    done = as_user.run(sys.executable, "-m", "torchnet", "launch", "secret.py")
    assert done.returncode == 2
    assert "secret.py: cannot read it (Permission denied)" in done.stderr
    assert "joined" not in done.stderr


def small_disk(tmp_path: Path, before: str) -> list[str]:
    """What runs torchnet where ``tmp_path/disk`` is a file system of 64 kB, prepared by shell commands."""
    needs.networks()
    disk = tmp_path / "disk"
    disk.mkdir()
    prepare = f'mount -t tmpfs -o size=64k none "$0" && cd "$0" && {before}'
    shell = f'{prepare} && "$@"; code=$?; cat receipt.json; exit $code'
    return ["unshare", "-Urm", "sh", "-c", shell, str(disk), *TORCHNET, "launch"]


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("head -c 60000 /dev/zero > full", "No space left on device"),
        ("mount -o remount,ro none .", "Read-only file system"),
    ],
)
def test_a_receipt_that_cannot_be_stored_goes_to_stdout(tmp_path: Path, before: str, why: str) -> None:
    """Row 24: the old file stays whole."""
    command = small_disk(tmp_path, f"echo old > receipt.json && {before}")
    done = run("--standalone", "--json", "receipt.json", script(tmp_path, "print('out')"), command=command)
    assert done.code == 0, done.stderr
    assert f"receipt.json could not be written: {why}; the result is on standard output" in done.stderr
    text = done.stdout.removeprefix("[rank 0] out\n")
    assert text.endswith("old\n"), "the old file is as it was"
    assert json.loads(text.removesuffix("old\n"))["exit_code"] == 0
