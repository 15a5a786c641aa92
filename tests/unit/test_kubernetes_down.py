"""``torchnet down``: its exit codes, and what it says of what it left or could not see."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.api_answers import kubeconfig
from tests.unit.api_store import Store, forbidden, refusal, storing
from tests.unit.kubernetes_objects import NAMESPACE, RUN, job, pod, running
from torchnet.cli import main
from torchnet.runtimes.kubernetes import commands

store = pytest.fixture(storing)
Down = Callable[..., int]
NEXT = f"fix: torchnet down {RUN} -n {NAMESPACE} --now"


@pytest.fixture
def down(store: Store, tmp_path: Path) -> Down:
    path = str(kubeconfig(tmp_path / "config", store.address))
    store.put(job())
    store.put(pod(0, phase="Running", worker=running()))
    return lambda *words: main(["down", *words, "-n", NAMESPACE, "--kubeconfig", path])


def interrupt_when_deleted(store: Store) -> None:
    def work() -> None:
        while not store.wanted("DELETE", "/pods"):
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=work, daemon=True).start()


def test_nothing_is_left(store: Store, down: Down, capsys: pytest.CaptureFixture[str]) -> None:
    assert down() == 0
    assert store.names() == []
    assert capsys.readouterr().err == f"torchnet: {RUN}: nothing is left of it\n"


def test_only_of_what_may_be_listed_nothing_is_left(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    store.faults = [("GET", "/roles", forbidden("roles"))]
    assert down(RUN) == 0
    said = capsys.readouterr().err
    assert "nothing is left of it that may be listed" in said
    assert "roles.rbac.authorization.k8s.io" in said


def test_what_does_not_go_is_named_with_the_run_that_is_meant(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its name and namespace, the next command could hit another run."""
    monkeypatch.setattr(commands, "_REMOVAL_SECONDS", 0.5)
    store.lingers = 2
    assert down() == 3
    said = capsys.readouterr().err
    assert said.count("still there: pods/") == 1
    assert said.endswith(f"  {NEXT}\n")


def test_ctrl_c_leaves_it_at_once_with_its_own_code(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    store.lingers = 60
    interrupt_when_deleted(store)
    began = time.monotonic()
    assert down(RUN) == 130
    assert time.monotonic() - began < 4
    said = capsys.readouterr().err
    assert "stopped by SIGINT" in said
    assert said.count("still there: pods/") == 1
    assert NEXT in said


def test_ctrl_c_when_all_is_gone_already_changes_nothing(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    held = threading.Event()
    store.faults = [("DELETE", "/pods", held)]
    interrupt_when_deleted(store)
    threading.Timer(1.5, held.set).start()
    assert down(RUN) == 0
    assert "nothing is left of it" in capsys.readouterr().err


def test_ctrl_c_while_the_cluster_does_not_answer(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    store.faults = [("DELETE", "/pods", refusal(503, "ServiceUnavailable", "etcd is away"))]
    interrupt_when_deleted(store)
    began = time.monotonic()
    assert down(RUN) == 130
    assert time.monotonic() - began < 4
    assert "etcd is away" in capsys.readouterr().err
