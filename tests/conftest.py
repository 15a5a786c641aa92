"""Fixtures of all tests; what they are made of stands in leaks.py and users.py."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

from tests import lanes, needs
from tests.durations import Durations
from tests.leaks import MARK, watched
from tests.users import User, ordinary_user

ROOT = Path(__file__).resolve().parent.parent
REQUIRE_ALL = "TORCHNET_REQUIRE_ALL"
# Taken out of the environment: torchnet warns of variables of this kind that are none of its own.
all_required = bool(os.environ.pop(REQUIRE_ALL, ""))
DEADLINE = 300  # seconds for one test; most take less than one

# Hypothesis's default profile fails on a busy machine. In CI there is nothing to remember examples in.
_REMEMBERS = {"database": None} if os.environ.get("CI") else {}
settings.register_profile(
    "torchnet",
    settings.get_profile("default"),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    **_REMEMBERS,
)
settings.load_profile("torchnet")

# Inherited by whatever the tests start, so that it is found wherever it ends up.
os.environ[MARK] = uuid.uuid4().hex
# What the tests start may keep compiled files: compiling torch at each start takes longer than most deadlines.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    words = "run the tests in N processes at the same time; 1: one test after the other"
    parser.addoption(lanes.OPTION, type=int, metavar="N", help=words)


@pytest.hookimpl(tryfirst=True)  # hypothesis reads the seed in its own
def pytest_configure(config: pytest.Config) -> None:
    if config.option.hypothesis_seed is None:
        # Other examples in each run find more; in CI they would refuse a change for what it has not touched.
        config.option.hypothesis_seed = 0 if os.environ.get("CI") else secrets.randbits(32)
    durations = Durations(in_ci=all_required)
    config.pluginmanager.register(durations, Durations.NAME)
    config.pluginmanager.register(lanes.Lanes(durations))


def pytest_report_header(config: pytest.Config) -> str:
    return f"property tests: --hypothesis-seed={config.option.hypothesis_seed} repeats them"


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test below tests/local leaves processes, namespaces, links and control groups as they were."""
    if request.path.parent.parts[-2:] != ("tests", "local"):
        yield
        return
    with watched():
        yield


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    """A test that hangs fails by its name instead of holding up all others."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the test still ran after {DEADLINE} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(DEADLINE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture(params=["plain", "a b\n\"c\" 'd' é中\u202e $(x) %s {y}"], ids=["plain", "weird"])
def weird_tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder, once with a plain name and once with all that names may hold: spaces, quotes, a newline."""
    folder = tmp_path / str(request.param)
    folder.mkdir()
    return folder


@dataclass(frozen=True)
class Result:
    """How a command ended: its code and what it printed."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def torchnet() -> Callable[..., Result]:
    """``torchnet("launch", "x.py", timeout=60, env={…}, cwd=…)``: the command line, as people start it.

    Whatever the input, no traceback of torchnet's own reaches stderr; a script's may (``traceback=True``).
    """

    def run(
        *arguments: str,
        timeout: float = 120,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
        traceback: bool = False,
    ) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "torchnet", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            cwd=cwd,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        needs.ended(done.stderr)
        assert traceback or "Traceback (most recent call last)" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def as_user() -> Iterator[User]:
    """An ordinary user, to run commands as; see tests/users.py."""
    try:
        with ordinary_user() as user:
            yield user
    except LookupError as reason:
        pytest.skip(str(reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With TORCHNET_REQUIRE_ALL, as in CI, a skip is a failure: the machine was to have everything."""
    if all_required and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped, and {REQUIRE_ALL} allows none: {reason}"
