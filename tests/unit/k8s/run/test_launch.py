"""``torchnet launch --on kubernetes`` as a whole, against a server."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import kubeconfig
from tests.unit.api_store import Store, storing
from tests.unit.aside import aside, until
from tests.unit.asked import asked
from tests.unit.kubernetes_objects import NAMESPACE, RUN, ended, message
from torchnet.cli import main
from torchnet.k8s.run import launch
from torchnet.k8s.run.launch import see as real_see

store = pytest.fixture(storing)


def test_ranks_have_the_width_of_the_last_where_the_processors_tell_how_many_there_are(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The launcher counts the processes as the workers do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    (tmp_path / "train.py").write_text("")
    body = ended(0, 0, message(0))
    store.logs[body["metadata"]["name"]] = "2026-01-01T00:00:00.000000000Z [0] hello\n"
    store.faults = [("GET", "/network-attachment-definitions/", (200, {}, {}))]
    words = ["-n", NAMESPACE, "--run-id", RUN, "--image", "x:1", "--network", "net", "train.py"]
    words = ["--kubeconfig", str(kubeconfig(tmp_path / "config", store.address)), *words]
    size = ["--nnodes", "1", "--nproc-per-node", "cpu", "--cpus", "11"]
    with aside(lambda: until(lambda: f"Job/{RUN}" in store.names()), lambda: store.put(body)):
        assert main(["launch", "--on", "kubernetes", *size, *words]) == 0
    assert capsys.readouterr().out == "[rank 0]  hello\n"


@pytest.mark.parametrize("late", [False, True])
def test_a_signal_that_ended_nothing_is_told_to_who_listens(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """A benchmark has other jobs to begin behind this one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    store.faults = [("GET", "/network-attachment-definitions/", (200, {}, {}))]
    heard: list[Mapping[str, Any]] = []

    def see(*words: Any, **more: Any) -> int:
        code = real_see(*words, **more)
        if late:
            os.kill(os.getpid(), signal.SIGTERM)
        return code

    def listener(event: Mapping[str, Any]) -> bool:
        heard.append(event)
        return False

    monkeypatch.setattr(launch, "see", see)
    flags = {
        "on": "kubernetes", "script": "train.py", "nnodes": 1, "run_id": RUN, "network.networks": ("net",),
        "kubernetes.image": "x:1", "kubernetes.namespace": NAMESPACE,
        "kubernetes.kubeconfig": str(kubeconfig(tmp_path / "config", store.address)),
    }  # fmt: skip
    with aside(
        lambda: until(lambda: f"Job/{RUN}" in store.names()), lambda: store.put(ended(0, 0, message(0)))
    ):
        code = launch.launch(asked(tmp_path, flags).job, {}, str(tmp_path), listener)
    assert code == 0
    assert [one for one in heard if one["event"] == "signal"] == (
        [{"event": "signal", "number": 15}] if late else []
    )
