"""Where the commands for a cluster look when nothing is typed: where a launch from the same folder would go."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchnet.cli.places import place

PROJECT = '[kubernetes]\nnamespace = "ml"\ncontext = "prod"\nkubeconfig = "admin.conf"\n'


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchnet.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    for name in ("NAMESPACE", "CONTEXT", "KUBECONFIG"):
        monkeypatch.delenv(f"TORCHNET_{name}", raising=False)


def test_the_projects_file_says_where(tmp_path: Path) -> None:
    found = place({})
    assert (found.namespace, found.context, found.kubeconfig) == ("ml", "prod", str(tmp_path / "admin.conf"))


def test_the_environment_goes_before_it_and_what_is_typed_before_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHNET_NAMESPACE", "staging")
    assert place({}).namespace == "staging"
    assert place({"namespace": "mine", "context_": "other"}).namespace == "mine"
    assert place({"namespace": "mine", "context_": "other"}).context == "other"
