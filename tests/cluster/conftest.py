"""The fixture `cluster`: brought up for the first test that asks for it, taken down after the last one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import pytest

from tests.cluster import addons, machine, recipes, uid_range
from tests.cluster import cluster as running
from tests.cluster import kueue as kueue_controller
from tests.cluster.addons import ROOT
from tests.cluster.cluster import Cluster
from tests.cluster.concurrency import ConcurrentTests, is_concurrent
from tests.cluster.launcher import Launcher
from tests.cluster.places import RUN
from tests.cluster.traces import routes, untouched
from tests.leaks import watched

HERE = Path(__file__).resolve().parent
# With a cluster of `python -m tests.cluster up`: the tests use it, and leave it up.
USE_VARIABLE = "TESTS_OF_TORCHNET_USE_CLUSTER"
_GIVEN_BACK_SECONDS = 10.0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Last of all: the others count what is on the machine, and none of them has to share it with a cluster.

    The concurrent ones come first, and have all ended when those begin that disturb the cluster or measure time.
    """

    items.sort(key=lambda item: (item.path.is_relative_to(HERE), not is_concurrent(item)))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes with Multus and Whereabouts; built if need be. The machine is afterwards as it was before."""
    if os.environ.get(USE_VARIABLE):
        if not running.is_up():
            pytest.fail(f"{USE_VARIABLE} is set, and no cluster is up: python -m tests.cluster up")
        used = Cluster()
        yield used
        used.wait_for_deleted()
        return
    if found := machine.obstacles():
        pytest.skip("no cluster on this machine: " + "; ".join(found))
    if running.is_up():
        pytest.fail(f"a cluster is up: {USE_VARIABLE}=1 uses it, `python -m tests.cluster down` ends it")
    if RUN.exists():
        running.down()
    capture = request.config.pluginmanager.getplugin("capturemanager")
    # The first build takes minutes: show its progress.
    with capture.global_and_fixture_disabled() if not recipes.built() else nullcontext():
        recipes.build()
    with untouched(), watched(grace=20, clusters=True), _taken_down():
        before = socket.if_nameindex(), routes()
        up = running.up()
        # Not even while it is up: everything is in namespaces.
        assert before == (socket.if_nameindex(), routes()), "the cluster changed the machine's own network"
        yield up
        up.wait_for_deleted()
        assert up.run_objects() == [], "the tests left objects of a run"


@contextmanager
def _taken_down() -> Iterator[None]:
    """Take the cluster down whatever happens: at the end, on SIGTERM, and also when this process is killed."""

    def interrupted(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(f"signal {number}")

    old = signal.signal(signal.SIGTERM, interrupted)
    # Reads until this process is gone or says that all is done.
    watching = f"read -r word || exec {sys.executable} -m tests.cluster down"
    with subprocess.Popen(
        ["sh", "-c", watching], stdin=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    ) as guard:
        assert guard.stdin is not None
        try:
            yield
        finally:
            running.down()
            guard.stdin.write("down\n")
            guard.stdin.flush()
            guard.wait()
            signal.signal(signal.SIGTERM, old)


@pytest.fixture(scope="session")
def jobset(cluster: Cluster) -> None:
    """JobSet's controller, with its webhooks, until the end of the session."""
    addons.install_jobset()
    running.run_kinds.cache_clear()


@pytest.fixture(scope="session")
def uid_ranges(cluster: Cluster) -> None:
    """Policies that assign and enforce a uid range in namespaces that are given one: tests/cluster/uid_range.py."""
    uid_range.install(cluster)


@pytest.fixture(scope="module")
def kueue(cluster: Cluster, jobset: None) -> Iterator[None]:
    """Kueue's controller, with its webhooks, until the end of the module; namespaces join with `kueue.queues`."""
    with kueue_controller.installed():
        yield
        cluster.wait_for_deleted()  # Kueue takes its finalizers off what it has made there


@pytest.fixture(autouse=True)
def _no_address_of_others(request: pytest.FixtureRequest) -> None:
    """Before a test in a shared namespace no pod that is going has an address which a new pod could be given."""
    if "module_namespace" not in request.fixturenames:
        return
    up: Cluster = request.getfixturevalue("cluster")
    # Not asserted: of addresses that Whereabouts did not give, nobody else can tell whether they are free.
    until = time.monotonic() + _GIVEN_BACK_SECONDS
    while up.given_back() and time.monotonic() < until:
        time.sleep(0.5)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """One for this test, under Pod Security "restricted"."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="module")
def module_namespace(cluster: Cluster) -> Iterator[str]:
    """The same for all tests of a module, which sets its ``namespace`` to it."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def concurrent_tests(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConcurrentTests]:
    """Those of the session, all of which it begins."""
    folder = tmp_path_factory.mktemp("concurrent")
    with ConcurrentTests(cluster, folder, request, request.session.items) as begun:
        yield begun


@pytest.fixture
def launcher(cluster: Cluster, namespace: str, tmp_path: Path) -> Launcher:
    """torchnet's command in the test's namespace."""
    return Launcher(cluster, namespace, tmp_path)
