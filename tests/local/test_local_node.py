"""Files where the nodes cannot see them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import lines, run, script
from tests.namespaces import isolated
from torchnet.linux import namespaces


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
    done = run(
        "--nnodes", "2", "--network", "loopback", "--log-dir", shm / "logs", script(shm, "print('ran')")
    )
    assert done.code == 0, done.stderr
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [["ran"], ["ran"]]
    assert len([*(shm / "logs").glob("*/node-*/attempt_0/0/stdout.log")]) == 2


@isolated
def test_a_machine_with_rdma_devices_and_without_mnt(tmp_path: Path) -> None:
    """The machine's devices would bypass the nodes' networks; where a node needs a mount point, it takes its own."""
    look = script(
        tmp_path,
        """
        import os
        try:
            opened = bool(os.open("/dev/cxi0", os.O_RDONLY))
        except OSError:
            opened = False
        print(os.path.exists('/mnt'), os.listdir('/dev/infiniband'), opened)
        """,
    )
    _enter_machine(tmp_path / "root")
    for name in ("infiniband/uverbs0", "cxi0"):
        (Path("/dev") / name).touch()
    done = run("--nnodes", "2", look)
    assert done.code == 0, done.stderr
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [["False [] False"]] * 2
    assert os.listdir("/dev/infiniband") == ["uverbs0"]


def _enter_machine(root: Path) -> None:
    """Make ``root`` this process's root: the machine's folders without /mnt, and a /dev/infiniband."""
    needs.program("pivot_root")
    root.mkdir()
    namespaces.mount("tmpfs", str(root), "tmpfs")
    (root / "old").mkdir()
    (root / "dev/infiniband").mkdir(parents=True)
    for path in (*Path("/").iterdir(), *Path("/dev").iterdir()):
        copy = root / path.relative_to("/")
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.name not in ("mnt", "dev") and path.exists():
            copy.mkdir() if path.is_dir() else copy.touch()
            namespaces.mount(str(path), str(copy), flags=namespaces.MS_BIND | namespaces.MS_REC)
    subprocess.run(["pivot_root", root, root / "old"], check=True)
    os.chdir("/")
    namespaces.umount("/old")
