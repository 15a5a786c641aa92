"""``torchnet launch --on kubernetes`` as a whole, against a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.api_answers import kubeconfig
from tests.unit.api_store import Store, storing
from tests.unit.aside import aside, until
from tests.unit.kubernetes_objects import NAMESPACE, RUN, ended, message
from torchnet.cli import main

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
