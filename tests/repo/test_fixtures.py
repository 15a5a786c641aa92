"""The fixtures keep what they promise: skips are named or forbidden, users are ordinary."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result
from tests.users import User

ROOT = Path(__file__).resolve().parent.parent.parent
# Every way to skip, planted into test modules of a pytest run of their own: each must turn into a failure there.
# They are texts: nothing of this project is skipped by them.
SKIPS = {
    "call": "import pytest\ndef test_one(): pytest.skip('no such thing here')",
    "mark": (
        "import pytest\n"
        "@pytest.mark.skip(reason='no such thing here')\n"  # planted text: the other pytest must report it
        "def test_one(): pass"
    ),
    "fixture": (
        "import pytest\n@pytest.fixture\ndef it(): pytest.skip('no such thing here')\ndef test_one(it): pass"
    ),
    "module": "import pytest\npytest.skip('no such thing here', allow_module_level=True)",
}


def run_pytest(folder: Path, body: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_planted.py").write_text(body)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-ra"]
        + ["--rootdir", str(folder), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("kind", SKIPS)
def test_a_skip_is_named(kind: str, tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SKIPS[kind])
    assert "1 skipped" in done.stdout
    assert "no such thing here" in done.stdout
    assert done.returncode in (0, 5)  # 5: pytest found no test in the module at all


@pytest.mark.parametrize("kind", SKIPS)
def test_a_skip_fails_where_all_is_required(kind: str, tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SKIPS[kind], TORCHNET_REQUIRE_ALL="1")
    assert done.returncode in (1, 2), done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]
    assert "no such thing here" in done.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    body = "import pytest\n@pytest.mark.xfail\ndef test_one(): assert False"
    assert run_pytest(tmp_path, body, TORCHNET_REQUIRE_ALL="1").returncode == 0


def test_a_test_that_hangs_fails_by_its_name(tmp_path: Path) -> None:
    body = "import signal, time\ndef test_one(): signal.alarm(1); time.sleep(30)"
    done = run_pytest(tmp_path, body)
    assert "TimeoutError" in done.stdout
    assert "test_planted.py::test_one" in done.stdout.partition("short test summary")[2]


def test_the_user_is_ordinary(as_user: User) -> None:
    status = as_user.run("cat", "/proc/self/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {str(as_user.uid)}
    assert fields["Groups"].strip() == ""
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert as_user.run("sh", "-c", "touch ~/x && stat -c %u ~/x").stdout.strip() == str(as_user.uid)
    assert as_user.run("test", "-w", str(ROOT)).returncode == 1


def test_the_user_can_run_torchnet(as_user: User) -> None:
    done = as_user.run(sys.executable, "-m", "torchnet", "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_traceback_of_torchnets_own_is_seen(torchnet: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "usercustomize.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.stderr.write('Traceback (most recent call last)')"
    )
    path = f"{tmp_path}:{ROOT}"
    with pytest.raises(AssertionError):
        torchnet("--help", env={"PYTHONPATH": path})
    assert torchnet("--help", env={"PYTHONPATH": path}, traceback=True).code == 0


def test_a_weird_folder_is_usable(weird_tmp_path: Path) -> None:
    (weird_tmp_path / "x").write_text("")
    assert [path.name for path in weird_tmp_path.iterdir()] == ["x"]
