"""A launch that fails or is stopped while its objects are made: nothing of it is left, nothing of another's goes."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import Answer, client
from tests.unit.api_store import Store, forbidden, refusal, storing
from tests.unit.aside import aside, interrupt, until
from tests.unit.kubernetes_objects import NAMESPACE, RUN, job, labelled, pod, running
from torchnet.console.console import Console
from torchnet.errors import ClusterError, UsageError
from torchnet.k8s.run import creation, submission
from torchnet.k8s.run.interruptible import Left
from torchnet.k8s.run.run_info import RunInfo
from torchnet.signals import Signals

CODE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": labelled(f"{RUN}-code")}
RENDERED: list[dict[str, Any]] = [CODE, job()]
store = pytest.fixture(storing)


class Started:
    """A start at the store, with what it tells."""

    def __init__(self, store: Store, folder: Path, signals: Signals) -> None:
        self.err = io.StringIO()
        self.client = client(store, folder)
        self.told: list[str] = []
        self._signals = signals

    def start(self) -> RunInfo | int:
        console = Console(self.err, io.StringIO(), world_size=4, color=False, tty=False)
        return submission.start(self.client, RENDERED, pod(0), [], console, self._signals, self.told.append)


@pytest.fixture
def started(store: Store, tmp_path: Path) -> Iterator[Started]:
    with Signals() as signals:
        yield Started(store, tmp_path, signals)


def real(pattern: str) -> str:
    return pattern + r"\?(?!.*dryRun)"  # no dry run


def test_what_was_made_is_the_run(store: Store, started: Started) -> None:
    known = started.start()
    assert isinstance(known, RunInfo)
    assert (known.run, known.nnodes) == (RUN, 4)
    assert store.names() == [f"ConfigMap/{RUN}-code", f"Job/{RUN}"]


def test_an_error_in_the_middle_leaves_nothing_and_is_the_one_that_is_raised(
    store: Store, started: Started
) -> None:
    store.faults = [("POST", real("/jobs"), refusal(422, "Invalid", "spec.completions: invalid"))]
    with pytest.raises(ClusterError, match=r"spec\.completions"):
        started.start()
    assert store.names() == []
    assert started.err.getvalue() == ""


def test_a_first_answer_that_was_lost_may_have_been_a_success(store: Store, started: Started) -> None:
    """The object is there, and nobody here knows of it."""
    store.put(CODE)
    store.faults = [("POST", "/configmaps.*dryRun", (201, {}, CODE)), ("POST", "/configmaps", (0, {}, None))]
    with pytest.raises(ClusterError, match="no response"):
        started.start()
    assert store.names() == []


def test_a_removal_that_fails_too_is_told_and_hides_nothing(store: Store, started: Started) -> None:
    store.faults = [
        ("POST", real("/jobs"), refusal(422, "Invalid", "spec.completions: invalid")),
        ("GET", "labelSelector", refusal(401, "Unauthorized", "the token has expired")),
    ]
    with pytest.raises(ClusterError, match=r"spec\.completions"):
        started.start()
    assert "the token has expired" in started.err.getvalue()
    assert f"torchnet down {RUN} -n {NAMESPACE}" in started.err.getvalue()


def test_another_launchs_run_of_the_same_name_stays(store: Store, started: Started) -> None:
    """It was made after the check; what was made here beside it goes."""
    theirs = {"apiVersion": "v1", "kind": "Secret", "metadata": labelled(f"{RUN}-token")}
    store.faults = [
        ("GET", f"/jobs/{RUN}", refusal(404, "NotFound", "not found")),
        ("POST", "/jobs.*dryRun", (201, {}, job())),
    ]
    store.put(job())
    store.put(theirs)
    with pytest.raises(UsageError, match="exists in namespace"):
        started.start()
    assert store.names() == [f"Job/{RUN}", f"Secret/{RUN}-token"]
    assert store.deleted == [f"/api/v1/namespaces/{NAMESPACE}/configmaps/{RUN}-code"]


def test_the_first_object_of_another_launch_stays_too(store: Store, started: Started) -> None:
    store.faults = [("POST", "/configmaps.*dryRun", (201, {}, CODE))]
    store.put(CODE)
    with pytest.raises(UsageError, match=f"ConfigMap {RUN}-code of run {RUN} already exists"):
        started.start()
    assert store.names() == [f"ConfigMap/{RUN}-code"]


def theirs_and_running(store: Store) -> list[str]:
    """Another launch's run of the same name, made after the check."""
    for body in (CODE, pod(0, phase="Running", worker=running())):
        store.put(body)
    return store.names()


def test_another_launchs_pods_stay_where_their_object_cannot_be_read(store: Store, started: Started) -> None:
    """That the name is in use is known by then."""
    before = theirs_and_running(store)
    store.faults = [
        ("POST", "/configmaps.*dryRun", (201, {}, CODE)),
        ("GET", f"/configmaps/{RUN}-code", refusal(503, "ServiceUnavailable", "etcd is away")),
    ]
    with pytest.raises(UsageError, match=f"ConfigMap {RUN}-code of run {RUN} already exists"):
        started.start()
    assert (store.names(), store.deleted) == (before, [])


def test_a_signal_before_anything_is_made_says_so(store: Store, started: Started) -> None:
    store.faults = [("POST", "dryRun", held := threading.Event())]
    began = time.monotonic()
    with (
        aside(lambda: until(lambda: store.wanted("POST", "dryRun")), interrupt),
        pytest.raises(Left, match="nothing was created") as caught,
    ):
        started.start()
    assert time.monotonic() - began < 2
    assert caught.value.exit_code == 130
    assert store.names() == []
    held.set()


def test_a_server_that_has_been_silent_is_not_waited_for_after_a_signal(
    store: Store, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "NOTICE_SECONDS", 0.5)
    store.faults = [("POST", real("/jobs"), held := threading.Event())]
    sent: list[float] = []
    asked = lambda: until(lambda: store.wanted("POST", real("/jobs")))  # noqa: E731
    with aside(asked, 0.7, lambda: sent.append(time.monotonic()), interrupt):
        assert started.start() == 130
    assert time.monotonic() - sent[0] < 2
    said = started.err.getvalue()
    assert f"stopped by SIGINT: the API server has not confirmed the creation of {RUN}" in said
    assert f"not deleted: ConfigMap {RUN}-code" in said
    assert f"torchnet down {RUN} -n {NAMESPACE}" in said
    held.set()


def test_nor_is_one_that_refuses(store: Store, started: Started) -> None:
    """What was made is named with the command that removes it."""
    cut: Answer = (0, {}, None)
    store.faults = [("POST", real("/jobs"), cut), ("GET", "labelSelector", cut), ("DELETE", "", cut)]
    sent: list[float] = []
    asked = lambda: until(lambda: store.wanted("POST", real("/jobs")))  # noqa: E731
    with aside(asked, lambda: sent.append(time.monotonic()), interrupt):
        assert started.start() == 130
    assert time.monotonic() - sent[0] < 2
    assert f"the clean-up of {RUN}" in started.err.getvalue()
    assert f"torchnet down {RUN} -n {NAMESPACE}" in started.err.getvalue()


def test_a_signal_while_it_answers_removes_all_and_says_so(store: Store, started: Started) -> None:
    store.faults = [("POST", real("/jobs"), held := threading.Event())]
    asked = lambda: until(lambda: store.wanted("POST", real("/jobs")))  # noqa: E731
    with aside(asked, interrupt, 0.3, held.set):
        assert started.start() == 130
    assert store.names() == []
    first, last = started.err.getvalue().splitlines()
    assert "Ctrl-C again" in first
    assert last == "torchnet: warning: stopped by SIGINT: everything that was created has been deleted"


def test_a_defect_in_making_the_workload_the_owner_is_a_line(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    def own(*_: object) -> None:
        raise KeyError("uid")

    monkeypatch.setattr(submission, "set_owners", own)
    assert isinstance(started.start(), RunInfo)
    until_told = time.monotonic() + 5
    while not started.told and time.monotonic() < until_told:
        time.sleep(0.01)
    (line,) = started.told
    assert "owner references of the run's objects failed: KeyError: 'uid'" in line


@pytest.mark.parametrize("seconds", [0.3, 6.5], ids=["soon", "late"])
def test_another_launchs_pods_stay_after_a_signal_before_the_answer(
    store: Store, started: Started, seconds: float
) -> None:
    """The answer, that the name is in use, comes after the signal, or after the patience for it."""
    before = theirs_and_running(store)
    held = threading.Event()
    store.faults = [("POST", "/configmaps.*dryRun", (201, {}, CODE)), ("POST", "/configmaps", held)]

    asked = lambda: until(lambda: store.wanted("POST", real("/configmaps")))  # noqa: E731
    with aside(asked, interrupt, seconds, held.set):
        assert started.start() == 130
    assert held.is_set()
    assert (store.names(), store.deleted) == (before, [])


def test_another_launchs_pods_stay_after_a_signal_before_the_first_object(
    store: Store, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has been made here, and nothing asked for."""
    before = theirs_and_running(store)
    store.faults = [("POST", "/configmaps.*dryRun", (201, {}, CODE))]
    real_create = creation.create

    def late(*given: Any) -> Any:
        interrupt()
        assert started.client.stop.wait(10)
        return real_create(*given)

    monkeypatch.setattr(creation, "create", late)
    assert started.start() == 130
    assert (store.names(), store.deleted) == (before, [])


def test_a_second_signal_ends_the_waiting_for_the_answer(store: Store, started: Started) -> None:
    held = threading.Event()
    store.faults = [("POST", real("/jobs"), held)]

    asked = lambda: until(lambda: store.wanted("POST", real("/jobs")))  # noqa: E731
    removed = lambda: until(lambda: store.deleted)  # noqa: E731
    began = time.monotonic()
    with aside(asked, interrupt, removed, interrupt):
        assert started.start() == 130
    assert time.monotonic() - began < 9
    assert store.names() == [], "what is known to be made has gone before"
    assert f"torchnet down {RUN} -n {NAMESPACE}" in started.err.getvalue()
    held.set()


def test_what_cannot_be_removed_beside_another_run_is_named(store: Store, started: Started) -> None:
    store.faults = [
        ("GET", f"/jobs/{RUN}", refusal(404, "NotFound", "not found")),
        ("POST", "/jobs.*dryRun", (201, {}, job())),
        ("DELETE", "/configmaps", forbidden("configmaps")),
    ]
    store.put(job())
    with pytest.raises(UsageError):
        started.start()
    assert f"not deleted: ConfigMap {RUN}-code" in started.err.getvalue()


def test_after_a_signal_nothing_more_is_made(store: Store, started: Started) -> None:
    """The answer to the first object comes after the signal."""
    held = threading.Event()
    store.faults = [("POST", real("/configmaps"), held)]
    with aside(0.5, interrupt, 0.5, held.set):
        assert started.start() == 130
    assert store.names() == []
    assert store.wanted("POST", real("/jobs")) == 0


def test_what_is_made_only_after_the_patience_is_removed_too(store: Store, started: Started) -> None:
    """The answer to the first object comes when all had been removed already."""
    held = threading.Event()
    store.faults = [("POST", real("/configmaps"), held)]
    with aside(0.3, interrupt, 6.7, held.set):
        assert started.start() == 130
    assert held.is_set()
    assert store.names() == []
    assert store.wanted("POST", real("/jobs")) == 0


def test_one_that_never_answers_is_told(
    store: Store, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "_LATE_SECONDS", 0.3)
    held = threading.Event()
    store.faults = [("POST", real("/configmaps"), held)]
    with aside(0.3, interrupt):
        assert started.start() == 130
    assert f"torchnet down {RUN} -n {NAMESPACE}" in started.err.getvalue()
    held.set()


def test_an_interrupted_clean_up_still_reports_what_it_could_not_remove(
    store: Store, started: Started
) -> None:
    held = threading.Event()
    store.faults = [
        ("POST", real("/jobs"), refusal(409, "AlreadyExists", "exists")),
        ("DELETE", "", held),
        ("DELETE", "", forbidden("configmaps")),
    ]
    deletion = lambda: until(lambda: store.wanted("DELETE", "/configmaps"))  # noqa: E731
    with aside(deletion, interrupt, 0.2, held.set), pytest.raises(UsageError):
        started.start()
    assert f"ConfigMap {RUN}-code" in started.err.getvalue()
    assert "configmaps is forbidden" in started.err.getvalue()
