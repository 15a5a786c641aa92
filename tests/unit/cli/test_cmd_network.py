"""``torchnet network``: exit codes, files, and the wording of what it prints."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests import golden
from tests.unit.api_answers import kubeconfig
from tests.unit.api_store import Store, forbidden, storing
from tests.unit.attachments import config, plugin
from tests.unit.attachments_stored import attach, pool, put, running, sliced
from torchnet.cli import main

GUIDE = """\
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: backend-network
  namespace: ml
spec:
  config: |
    {
      "type": "ipvlan",
      "master": "ens5",
      "mode": "l3",
      "ipam": {
        "type": "whereabouts",
        "range": "fcbb:0:0800:ffff::/64",
        "enable_ipv6": true
      }
    }
---
apiVersion: v1
kind: Pod
metadata:
  name: trainer
  namespace: ml
  annotations:
    k8s.v1.cni.cncf.io/networks: |
      [{"name": "backend-network", "ips": ["fcbb:0:0800:ffff::50"]}]
"""
POOL = {"type": "whereabouts", "range": "10.9.0.0/28"}

store = pytest.fixture(storing)


@pytest.fixture
def cluster(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that lead to the store."""
    monkeypatch.chdir(tmp_path)
    return ["--kubeconfig", str(kubeconfig(tmp_path / "config", store.address)), "-n", "ml"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["network", *words])
    return code, *capsys.readouterr()


def test_the_wording_of_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("guide.yaml").write_text(GUIDE)
    Path("net.conflist").write_text(
        json.dumps(config(plugin(ipam={"type": "host-local", "ranges": []}), name=None))
    )
    Path("broken.json").write_text('{"type": "ipvlan" "mode": "l2"}')
    Path("good.json").write_text(json.dumps(config()))
    code, text, err = run(capsys, "lint", "guide.yaml", "net.conflist", "broken.json")
    assert (code, err) == (4, "")
    code, good, _ = run(capsys, "lint", "good.json")
    assert code == 0
    golden.check("network-lint.txt", f"{text}\n{good}")


def test_warnings_are_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps(config(plugin(ipam=POOL | {"enable_ipv6": True}))))
    code, out, _ = run(capsys, "lint", str(path))
    assert code == 0
    assert "0 faults and 1 warning in 1 object" in out


def test_standard_input_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Stdin:
        buffer = io.BytesIO(GUIDE.encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    code, out, _ = run(capsys, "lint", "-", "-o", "json")
    body = json.loads(out)
    assert code == 4
    assert body["format"] == "torchnet.network-lint/1"
    assert body["checked"] == ["ml/backend-network", "Pod trainer"]
    assert body["corrected"]["ml/backend-network"]["plugins"][0]["mode"] == "l2"
    segment = "the nodes' interfaces share a layer-2 segment"
    assert body["conditions"] == {"ml/backend-network": segment}
    assert {one["field"]: one["condition"] for one in body["findings"] if one["condition"]} == {
        "mode": segment
    }
    keys = {"where", "level", "field", "fault", "consequence", "corrections", "condition", "fix", "blocks"}
    assert keys == {*body["findings"][0]}


def test_faults_that_a_correction_leaves_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.json"
    main = plugin(master="a b", ipam=POOL | {"range": "10.9.0.0/33"})
    path.write_text(json.dumps(config(main, cniVersion=None)))
    assert "\n  corrected, but 2 faults remain:\n" in run(capsys, "lint", str(path))[1]
    name = json.loads(run(capsys, "lint", str(path), "-o", "json")[1])["checked"][0]
    assert json.loads(run(capsys, "lint", str(path), "-o", "json")[1])["remaining_faults"] == {name: 2}
    path.write_text(json.dumps(config(plugin(master="a b"), cniVersion=None)))
    assert "\n  corrected, but 1 fault remains:\n" in run(capsys, "lint", str(path))[1]
    path.write_text(json.dumps(config(cniVersion=None)))
    assert "\n  corrected:\n" in run(capsys, "lint", str(path))[1]
    assert json.loads(run(capsys, "lint", str(path), "-o", "json")[1])["remaining_faults"] == {}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "line 1"),
        (b"kind: Secret", "no attachments in"),
        (b"a: " + b"x" * (1 << 20), "the limit"),
        (b"\xff\xfe: 1", "is not UTF-8"),
        (b"", "no attachments in"),
    ],
)
def test_a_file_without_attachments_is_a_usage_error(
    tmp_path: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    code, out, err = run(capsys, "lint", str(path))
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("flag", ["-n", "--context", "--kubeconfig"])
def test_files_are_checked_without_the_cluster(
    tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps(config()))
    code, out, err = run(capsys, "lint", flag, "ml", str(path))
    assert (code, out) == (2, "")
    assert "files are checked without the cluster" in err


def test_without_a_kubeconfig_files_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "lint", "--kubeconfig", str(tmp_path / "missing"))
    assert code == 3
    assert "torchnet network lint FILE" in err
    assert "--on kubernetes" not in err


def test_a_namespace_with_nothing_to_check_is_an_error(
    cluster: list[str], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    attach(store, config(), "net", "other")
    code, out, err = run(capsys, "lint", *cluster)
    assert (code, out) == (2, "")
    assert "no network attachments in namespace ml" in err
    assert "kubectl get network-attachment-definitions -A" in err


def test_a_folder_and_a_name_with_a_nul_are_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (str(tmp_path), "a\0b"):
        assert run(capsys, "lint", path)[0] == 2


def test_what_is_installed_is_checked(
    store: Store, cluster: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    put(store, "Node", "node1")
    attach(store, config(plugin(ipam=POOL), cniVersion=None))
    store.faults = [("GET", "/pods", forbidden("pods"))]
    code, out, _ = run(capsys, "lint", *cluster)
    assert code == 4
    assert "ml/net\n  FAULT  cniVersion: missing" in out
    assert (
        "not checked: the pods' annotations are not checked: not allowed to list pods in namespace ml" in out
    )
    attach(store, config(plugin(ipam=POOL)))
    assert run(capsys, "lint", *cluster)[0] == 0


def installed(store: Store, address: str = "10.9.0.1") -> None:
    attach(store, config(plugin(ipam=POOL)))
    running(store, "train-0", "train-1")
    for name in ("train-0", "train-1"):
        body: Any = store.objects[f"/api/v1/namespaces/ml/pods/{name}"]
        body["spec"] = {"nodeName": "node1"}
        status = [{"name": "ml/net", "interface": "net1", "ips": [address]}]
        body["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/network-status": json.dumps(status)}
    pool(store, "ml/train-0", "ml/gone")


def test_the_wording_of_addresses(
    store: Store, cluster: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    installed(store)
    code, text, err = run(capsys, "show", "net", *cluster)
    assert (code, err) == (0, "")
    store.faults = [("GET", "/api/v1/pods", forbidden("pods")), ("GET", "/ippools", forbidden("ippools"))]
    code, little, err = run(capsys, "show", "ml/net", *cluster)
    assert code == 0
    golden.check("network-show.txt", f"{text}\n{little}\n{err}")


def test_only_leases_of_pods_that_are_gone_are_offered_for_release(
    store: Store, cluster: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The kubelet has not removed the sandbox of a pod that has ended, perhaps on a node that is lost."""
    installed(store)
    running(store, "gone", phase="Failed")
    text = run(capsys, "show", "net", *cluster)[1]
    assert "stale: ended" in text
    assert "1 stale lease" in text
    assert "kubectl patch" not in text


def test_addresses_as_json(store: Store, cluster: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    installed(store)
    body = json.loads(run(capsys, "show", "ml/net", "-o", "json", *cluster)[1])
    assert body["ranges"] == [{"node": None, "range": "10.9.0.0/28", "addresses": 14, "held": 2, "free": 12}]
    assert body["duplicates"] == {"10.9.0.1": ["ml/train-0", "ml/train-1"]}
    assert [one["pod"] for one in body["addresses"] if one["stale"]] == ["ml/gone"]


def test_the_parts_of_the_nodes_are_shown_with_what_is_free(
    store: Store, cluster: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    installed(store, "10.9.0.5")
    sliced(store, "node1=10.9.0.0/28", "node2=10.9.0.16/28", range="10.9.0.0/24")
    out = run(capsys, "show", "net", *cluster)[1]
    assert "\n  node1: 10.9.0.1-10.9.0.15/24: 14 addresses, 1 held, 13 free\n" in out
    assert "\n  node2: 10.9.0.17-10.9.0.31/24: 15 addresses, 0 held, 15 free\n" in out
    first, second = json.loads(run(capsys, "show", "net", "-o", "json", *cluster)[1])["ranges"]
    bounds = "10.9.0.1-10.9.0.15/24"
    assert first == {"node": "node1", "range": bounds, "addresses": 14, "held": 1, "free": 13}
    assert second["held"] == 0
    sliced(store, "node1=10.9.0.0/28", mode="l3")
    assert (
        "\n  node1: 10.9.0.0/28: 13 addresses, 1 held, 12 free\n" in run(capsys, "show", "net", *cluster)[1]
    )


def test_one_range_of_host_local_is_each_nodes(
    store: Store, cluster: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    attach(store, config(plugin(ipam={"type": "host-local", "subnet": "10.9.0.0/28"})))
    assert "\n  10.9.0.0/28: 13 addresses on each node\n" in run(capsys, "show", "net", *cluster)[1]


def test_an_attachment_that_does_not_exist_is_named_with_those_that_do(
    store: Store, cluster: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    attach(store, config())
    code, _, err = run(capsys, "show", "nett", *cluster)
    assert code == 4
    assert "network attachment nett not found in namespace ml; available: net" in err
    code, _, err = run(capsys, "show", "other/nett", *cluster)
    assert code == 4
    assert "fix: kubectl get network-attachment-definitions -A" in err
    assert "--network" not in err
