"""The ways to name what is to be run, and torchrun's own spelling of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.jobs import lines, run, script


def test_modules_and_programs_run_as_well(tmp_path: Path) -> None:
    package = tmp_path / "trainer"
    package.mkdir()
    (package / "__main__.py").write_text(
        "import os, sys; print(__package__, sys.argv[1:], os.environ['RANK'])"
    )
    done = run("--nnodes", "2", "-m", "trainer", "-m", "x", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [
        [f"trainer ['-m', 'x'] {rank}"] for rank in (0, 1)
    ]
    shell = shutil.which("sh") or "sh"
    done = run("--nnodes", "2", "--no-python", shell, "-c", 'echo "$RANK of $WORLD_SIZE: $1"', "x", "y z")
    assert done.code == 0, done.stderr
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [[f"{rank} of 2: y z"] for rank in (0, 1)]


def test_standalone_is_one_node(tmp_path: Path) -> None:
    look = script(tmp_path, "import os; print(os.environ['WORLD_SIZE'], os.environ['GROUP_WORLD_SIZE'])")
    done = run("--standalone", "--nproc-per-node=2", look)
    assert done.code == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["[rank 0] 2 1", "[rank 1] 2 1"]
