"""The options of torchnet verify's pods: those of a launch, from the same sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import Server, kubeconfig, serving
from torchnet.cli import main
from torchnet.cli.pod_options import read_pod_options
from torchnet.config.pod_user import DEFAULT_USER, PodUser
from torchnet.errors import UsageError
from torchnet.k8s.verify.cluster_report import ClusterReport, document
from torchnet.network.attachment import NetworkAttachment

NETWORKS = (NetworkAttachment("", "backend-network", "net1"),)
PROJECT = '[kubernetes]\ntolerations = ["nvidia.com/gpu"]\nqueue = "team"\nnode_selector = {pool = "gpu"}\n'

server = pytest.fixture(serving)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("TOLERATION", "NODE_SELECTOR", "IMAGE_PULL_SECRET", "QUEUE", "RUN_AS", "FS_GROUP"):
        monkeypatch.delenv(f"TORCHNET_{name}", raising=False)


def options(**given: Any) -> Any:
    typed = {f"kubernetes__{name}": value for name, value in given.items()}
    return read_pod_options(typed, NETWORKS, "x:1")


def test_they_are_parsed_as_those_of_a_launch() -> None:
    found = options(
        tolerations=["nvidia.com/gpu", "a=b:NoExecute"],
        node_selector=["pool=gpu", "zone=a"],
        image_pull_secrets=["one", "two"],
        queue="team",
        run_as="5001:0",
        fs_group="7",
    )
    assert found.tolerations == [
        {"key": "nvidia.com/gpu", "operator": "Exists"},
        {"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"},
    ]
    assert found.node_selector == {"pool": "gpu", "zone": "a"}
    assert tuple(found.image_pull_secrets) == ("one", "two")
    assert found.queue == "team"
    assert found.user == PodUser(5001, 0, 7)
    assert (found.networks, found.image, found.rails) == (NETWORKS, "x:1", ["net1"])


def test_none_of_them_is_needed() -> None:
    found = options()
    assert (list(found.tolerations), found.node_selector, found.queue) == ([], {}, "")
    assert found.user == DEFAULT_USER


def test_the_projects_file_and_the_environment_count_as_for_a_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchnet.toml").write_text(PROJECT)
    found = options()
    assert [one["key"] for one in found.tolerations] == ["nvidia.com/gpu"]
    assert (found.node_selector, found.queue) == ({"pool": "gpu"}, "team")
    monkeypatch.setenv("TORCHNET_QUEUE", "other")
    assert options().queue == "other"
    assert options(queue="mine").queue == "mine"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tolerations": ["gpu:Never"]}, "kubernetes.tolerations"),
        ({"node_selector": ["pool"]}, "which has no ="),
        ({"queue": "Not_A_Name"}, "kubernetes.queue"),
        ({"image_pull_secrets": ["UPPER"]}, "(from --image-pull-secret)"),
        ({"run_as": "root"}, "(from --run-as)"),
        ({"fs_group": "-1"}, "(from --fs-group)"),
    ],
)
def test_a_wrong_value_is_refused_with_its_option(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match="invalid options of the test pods: 1 error") as caught:
        options(**given)
    assert said in caught.value.text
    assert caught.value.fix == "torchnet verify --help"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--network", "host:ens5"), "the hosts' own"),
        (("--network", "a*99"), "valid are 1 to 16 rails"),
        (("-o", "yaml"), "valid: text, json"),
        (("--toleration", "gpu:Never"), "no valid effect"),
    ],
)
def test_nothing_is_asked_before_all_options_are_valid(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server.address)))
    assert main(["verify", *words]) == 2
    assert said in capsys.readouterr().err
    assert server.asked == []


def test_the_documents_fields_are_described() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "verify.md").read_text()
    found = document(ClusterReport(networks=NETWORKS), [], 0)
    assert json.loads(json.dumps(found)) == found
    for field in found:
        assert f"| `{field}` |" in page
