"""Where the commands for a cluster look when nothing is typed: where a launch from the same folder would go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.api_answers import Server, kubeconfig, serving
from torchnet.cli import main
from torchnet.cli.cluster_options import place
from torchnet.errors import UsageError

PROJECT = '[kubernetes]\nnamespace = "ml"\ncontext = "prod"\nkubeconfig = "admin.conf"\n'
# What shows how the files are written, and what a cluster has that they may name.
FILES, CLUSTER = "torchnet launch --help", "kubectl config get-contexts, kubectl get namespaces"
COMMANDS = ("status", "logs", "attach", "down", "verify")

server = pytest.fixture(serving)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchnet.toml").write_text(PROJECT)
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("NAMESPACE", "CONTEXT", "KUBECONFIG"):
        monkeypatch.delenv(f"TORCHNET_{name}", raising=False)


def test_the_projects_file_says_where() -> None:
    found = place({})
    assert (found.namespace, found.context, found.kubeconfig) == ("ml", "prod", "admin.conf")


def test_a_kubeconfig_is_relative_to_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert place({}).kubeconfig == "../admin.conf"
    monkeypatch.setenv("TORCHNET_KUBECONFIG", "~/mine")
    assert place({}).kubeconfig == "~/mine"


def test_the_environment_goes_before_it_and_what_is_typed_before_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHNET_NAMESPACE", "staging")
    assert place({}).namespace == "staging"
    assert place({"namespace": "mine", "context_": "other"}).namespace == "mine"
    assert place({"namespace": "mine", "context_": "other"}).context == "other"


@pytest.mark.parametrize(
    ("text", "said", "fix"),
    [
        ('[kubernetes]\nnamespase = "ml"\n', 'did you mean "kubernetes.namespace"?', FILES),
        ("[kubernetes\n", "torchnet.toml: ", FILES),
        ("kubernetes = 1\n", "is not a table", FILES),
        ("[kubernetes]\nnamespace = 3\n", "kubernetes.namespace: 3 is not text (from torchnet.toml", CLUSTER),
        ('[kubernetes]\ncontext = ["a"]\n', "is not text", CLUSTER),
        ('[kubernetes]\nnamespace = "A_B"\n', "is not a DNS label", CLUSTER),
        ('[kubernetes]\nkubeconfig = ""\n', "is empty", CLUSTER),
    ],
    ids=lambda text: str(text).strip(),
)
def test_a_file_that_cannot_be_used_is_refused_before_any_call(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str, fix: str
) -> None:
    """Not left out: what it names is another cluster than the kubeconfig's own default."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server.address)))
    (tmp_path / "torchnet.toml").write_text(text)
    with pytest.raises(UsageError, match="cluster options") as caught:
        place({})
    assert said in caught.value.text
    assert caught.value.fix == fix
    assert main(["down"]) == 2
    assert server.asked == []


def test_what_is_typed_takes_a_wrong_values_place(tmp_path: Path) -> None:
    (tmp_path / "torchnet.toml").write_text("[kubernetes]\nnamespace = 3\n")
    assert place({"namespace": "ml"}).namespace == "ml"


@pytest.mark.parametrize("option", ["--context", "--kubeconfig", "-n"])
def test_an_empty_option_is_no_default(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``torchnet down --context "$UNSET"`` must not act on the current context."""
    assert main(["down", option, ""]) == 2
    assert '""' in capsys.readouterr().err


def test_what_is_left_out_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHNET_NAMESPACES", "ml")
    place({})
    (line,) = capsys.readouterr().err.splitlines()
    assert '"TORCHNET_NAMESPACES"' in line
    assert "TORCHNET_NAMESPACE?" in line


@pytest.mark.parametrize("command", [*COMMANDS, "launch"])
def test_a_working_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main([command, *(["train.py"] if command == "launch" else [])]) == 2
    said = capsys.readouterr().err
    assert "working directory" in said
    assert "fix: cd to an existing directory" in said


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("status", "Not_A_Label"), "torchnet status"),
        (("status", "-n", "Not_A_Label"), CLUSTER),
        (("verify", "--network", "ml/Not_A_Name"), "kubectl get network-attachment-definitions -A"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_each_name_has_a_fix_of_its_own(
    words: tuple[str, ...], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.endswith(f"\n  fix: {fix}\n")
