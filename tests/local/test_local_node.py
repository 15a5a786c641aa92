"""Files where the nodes cannot see them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import lines, run, script


@pytest.fixture
def shm() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="torchnet-test-") as folder:
        yield Path(folder)


def test_what_lies_in_shared_memory_is_named(shm: Path, tmp_path: Path) -> None:
    look = script(shm, "print('ran')")
    link = tmp_path / "link.py"
    link.symlink_to(look)
    done = run("--log-dir", shm / "logs", link, cwd=shm)
    assert (done.code, done.stdout) == (2, "")
    for text in (f"the working directory {shm}", f"the script {link}", f"--log-dir {shm}/logs", "fix: "):
        assert text in done.stderr
    assert "Python" not in done.stderr
    assert os.listdir(shm) == [look.name]


def test_on_loopback_it_is_seen(shm: Path) -> None:
    done = run("--network", "loopback", "--log-dir", shm / "logs", script(shm, "print('ran')"))
    assert done.code == 0, done.stderr
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [["ran"], ["ran"]]
    assert sorted(os.listdir(shm / "logs")) == ["rank-0.log", "rank-1.log"]
