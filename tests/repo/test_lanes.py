"""Lanes: files run at the same time, quiet tests alone, and the output is that of one pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path

from tests import lanes
from tests.conftest import ROOT

# Each waits until the other has begun.
MEETS = """\
import time
from pathlib import Path

def test_meets():
    here = Path(__file__).parent
    (here / "{own}.begun").touch()
    until = time.monotonic() + 20
    while not (here / "{other}.begun").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.3)
    (here / "{own}.begun").rename(here / "{own}.ended")
"""
QUIET = """\
import pytest
from pathlib import Path

@pytest.mark.quiet
def test_is_alone():
    assert sorted(path.name for path in Path(__file__).parent.glob("*.[be]*ed")) == ["b.ended", "c.ended"]
"""


WAITS = """\
import os
import pytest
from pathlib import Path

pytestmark = pytest.mark.waits

def test_waits():
    with (Path(__file__).parent / "pids").open("a") as file:
        print(os.getpid(), file=file)
"""
COUNTS = """\
import time
from pathlib import Path

def test_counts():
    own = Path(__file__).with_suffix(".busy")
    own.touch()
    time.sleep(0.5)
    assert len(list(own.parent.glob("*.busy"))) <= 2
    own.unlink()
"""


def run(folder: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    words = ("-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-ra", "--lanes", "3")
    return subprocess.run(
        [sys.executable, *words, "-c", ROOT / "pyproject.toml", "--rootdir", folder, folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CI": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_files_run_at_once_and_quiet_tests_after_them(tmp_path: Path) -> None:
    files = {"a": QUIET, "b": MEETS.format(own="b", other="c"), "c": MEETS.format(own="c", other="b")}
    done = run(tmp_path, files)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_what_waits_takes_one_lane_beside_the_files(tmp_path: Path) -> None:
    meets = {"d": MEETS.format(own="d", other="e"), "e": f"{MEETS.format(own='e', other='d')}{WAITS}"}
    done = run(tmp_path, {"a": WAITS, "c": WAITS, **meets})
    assert "5 passed" in done.stdout, done.stdout
    assert len(set((tmp_path / "pids").read_text().split())) == 1


def test_a_lane_that_has_waited_takes_no_processor_from_the_others(tmp_path: Path) -> None:
    done = run(tmp_path, {"a": WAITS, **dict.fromkeys("bcde", COUNTS)})
    assert "5 passed" in done.stdout, done.stdout


def test_only_what_waits_runs_beside_a_quiet_test_of_the_cluster() -> None:
    cluster, waits, other = (lanes.Unit(group, True) for group in (lanes.CLUSTER, lanes.WAITS, "test_a.py"))
    idle, busy, keeper = (lanes.Lane(0, 0, Pipe()[0]) for _ in range(3))

    def choose(lane: lanes.Lane, *waiting: lanes.Unit, alone: bool = False) -> lanes.Unit | None:
        return lanes.choose(lane, [*waiting], [idle, busy, keeper], 2, alone=alone)

    busy.unit = cluster
    assert choose(idle, other, waits) is waits
    assert choose(idle, other) is None
    assert choose(idle, waits, alone=True) is None
    for running in (other, lanes.Unit(lanes.CLUSTER, False)):
        busy.unit = running
        assert choose(idle, waits) is None
    busy.unit, keeper.has_cluster = None, True
    assert choose(idle, waits, cluster, other) is None
    assert choose(keeper, waits, cluster, other) is cluster
    keeper.has_cluster = False
    assert choose(idle, waits, other) is waits


def test_failures_skips_and_costs_are_named(tmp_path: Path) -> None:
    skips = "import pytest\n\ndef test_skips():\n    pytest.skip('no such machine')\n"
    done = run(tmp_path, {"fails": "def test_fails():\n    assert 2 + 2 == 5\n", "skips": skips})
    assert done.returncode == 1
    assert "1 failed, 1 skipped, 1 again" in done.stdout
    assert "test_fails.py::test_fails - assert (2 + 2) == 5" in done.stdout
    assert "no such machine" in done.stdout
    assert all(f"{name}\n" in done.stdout for name in ("test_fails.py", "test_skips.py::test_skips", "all"))


def test_a_lane_that_dies_is_an_error_that_names_its_tests(tmp_path: Path) -> None:
    dies = "import os\n\ndef test_dies():\n    os.kill(os.getpid(), 9)\n"
    done = run(tmp_path, {"dies": dies, "lives": "def test_lives():\n    pass\n"})
    assert done.returncode == 3
    assert "test_dies.py: signal 9" in done.stdout + done.stderr


BUSY = """\
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent

@pytest.fixture(scope="module")
def kept():
    with (HERE / "kept").open("a") as file:
        file.write("k")

@pytest.mark.parametrize("number", range({count}))
def test_is_busy(kept, number):
    busy = not (HERE / f"{{number}}.tried").exists()
    (HERE / f"{{number}}.tried").touch()
    assert not busy, f"machine {{number}} is busy"
"""


def test_what_fails_beside_others_runs_again_alone(tmp_path: Path) -> None:
    quiet = "import pytest\n\n@pytest.mark.quiet\ndef test_quiet():\n    assert 1 == 3\n"
    done = run(
        tmp_path, {"busy": BUSY.format(count=2), "quiet": quiet, "well": "def test_well():\n    pass\n"}
    )
    assert done.returncode == 1
    assert "1 failed, 3 passed, 2 again" in done.stdout  # what ran alone does not run again
    assert "failed beside others" in done.stdout
    assert "AssertionError: machine 1 is busy" in done.stdout
    assert (tmp_path / "kept").read_text() == "kk"  # fixtures are made anew


def test_a_quiet_test_that_ran_beside_the_clusters_is_repeated_too(tmp_path: Path) -> None:
    both = "\npytestmark = [pytest.mark.quiet, pytest.mark.waits]\n"
    done = run(tmp_path, {"busy": BUSY.format(count=1) + both, "well": "def test_well():\n    pass\n"})
    assert "2 passed, 1 again" in done.stdout, done.stdout


def test_only_few_run_again(tmp_path: Path) -> None:
    done = run(tmp_path, {"busy": BUSY.format(count=13), "well": "def test_well():\n    pass\n"})
    assert done.returncode == 1
    assert "3 failed, 11 passed, 10 again" in done.stdout
