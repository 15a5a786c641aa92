"""``torchnet down``: its exit codes, and what it says of what it left or could not see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.unit.api_answers import kubeconfig
from tests.unit.api_store import Store, forbidden, refusal, storing
from tests.unit.aside import aside, interrupt, until
from tests.unit.kubernetes_objects import NAMESPACE, RUN, job, pod, running
from torchnet.cli import main
from torchnet.k8s import commands
from torchnet.k8s.run import grace_periods

store = pytest.fixture(storing)
Down = Callable[..., int]
NEXT = f"fix: torchnet down {RUN} -n {NAMESPACE} --now"


@pytest.fixture
def down(store: Store, tmp_path: Path) -> Down:
    path = str(kubeconfig(tmp_path / "config", store.address))
    store.put(job())
    store.put(pod(0, phase="Running", worker=running()))
    return lambda *words: main(["down", *words, "-n", NAMESPACE, "--kubeconfig", path])


def interrupting(store: Store, *steps: Callable[[], object] | float) -> AbstractContextManager[None]:
    """Ctrl-C shortly after the pods' deletion was asked for, then ``steps``."""
    return aside(lambda: until(lambda: store.wanted("DELETE", "/pods")), 0.3, interrupt, *steps)


def test_nothing_is_left(store: Store, down: Down, capsys: pytest.CaptureFixture[str]) -> None:
    assert down() == 0
    assert store.names() == []
    assert capsys.readouterr().err == f"torchnet: {RUN}: deleted\n"


def test_only_of_what_may_be_listed_nothing_is_left(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    store.faults = [("GET", f"/{plural}", forbidden(plural)) for plural in ("services", "roles")]
    assert down(RUN) == 0
    said = capsys.readouterr().err
    assert "services" in said
    assert "roles" not in said, "a run has none"


def test_what_does_not_go_is_named_with_the_run_that_is_meant(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its name and namespace, the next command could hit another run."""
    monkeypatch.setattr(commands, "_REMOVAL_SECONDS", 0.5)
    store.lingers = 2
    assert down() == 3
    said = capsys.readouterr().err
    assert said.count(": pods/") == 1
    assert said.endswith(f"  {NEXT}\n")


@pytest.mark.parametrize(("count", "said"), [(1, "1 pod is"), (2, "2 pods are")])
def test_now_says_which_pods_it_cannot_hurry(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str], count: int, said: str
) -> None:
    store.lingers = 30
    store.put(pod(1, phase="Running", worker=running()))
    names = [pod(rank)["metadata"]["name"] for rank in range(count)]
    for name in names:
        store.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
    with aside(lambda: until(lambda: store.wanted("DELETE", "/jobs")), 1.0, store.kubelet):
        assert down(RUN, "--now") == 0
    line, last = capsys.readouterr().err.splitlines()
    assert line.startswith(f"torchnet: {said} terminating already")
    assert line.endswith(" 30 s")
    assert last == f"torchnet: {RUN}: deleted"


def test_ctrl_c_leaves_it_at_once_with_its_own_code(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    store.lingers = 60
    began = time.monotonic()
    with interrupting(store):
        assert down(RUN) == 130
    assert time.monotonic() - began < 4
    said = capsys.readouterr().err
    assert "interrupted by SIGINT" in said
    assert said.count(": pods/") == 1
    assert NEXT in said


def test_ctrl_c_when_all_is_gone_already_changes_nothing(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    held = threading.Event()
    store.faults = [("DELETE", "/pods", held)]
    with interrupting(store, 0.5, held.set):
        assert down(RUN) == 0
    assert f"{RUN}: deleted" in capsys.readouterr().err


def test_ctrl_c_while_the_cluster_does_not_answer(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    store.faults = [("DELETE", "/pods", refusal(503, "ServiceUnavailable", "etcd is away"))]
    began = time.monotonic()
    with interrupting(store):
        assert down(RUN) == 130
    assert time.monotonic() - began < 4
    assert "etcd is away" in capsys.readouterr().err


def test_a_pod_that_its_kubelet_has_not_ended_stays_and_is_named(
    store: Store, down: Down, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_REMOVAL_SECONDS", 2.5)
    monkeypatch.setattr(grace_periods, "SILENT_SECONDS", 0.3)
    conditions = {"conditions": [{"type": "Ready", "status": "True"}]}
    meta = {"name": "node1", "namespace": ""}
    store.put({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": conditions})
    store.lingers = 1
    assert down(RUN, "--now") == 3
    said, name = capsys.readouterr().err, pod(0)["metadata"]["name"]
    assert "the kubelet on node node1" in said
    assert f"kubectl delete pod {name} -n {NAMESPACE} --grace-period=0 --force" in said
    assert f"Pod/{name}" in store.names()
