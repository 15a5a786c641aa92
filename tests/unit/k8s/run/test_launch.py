"""``torchnet launch --on kubernetes`` as a whole, against a server."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.unit.api_answers import client, kubeconfig
from tests.unit.api_store import Store, forbidden, storing
from tests.unit.aside import aside, until
from tests.unit.kubernetes_objects import NAMESPACE, RUN, ended, facts, message, pod
from torchnet.cli import main
from torchnet.k8s.run.network_policies import policy_warning

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


DENIES = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all", "namespace": NAMESPACE},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}
MATE = {"podSelector": {"matchLabels": {"team": "x"}}}
TEAM = DENIES | {
    "metadata": {"name": "team", "namespace": NAMESPACE},
    "spec": {
        "podSelector": {"matchLabels": {"team": "x"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [MATE]}],
        "egress": [{"to": [MATE]}, {"ports": [{"protocol": "UDP", "port": 53}]}],
    },
}
FIX = f"torchnet manifests network-policy -n {NAMESPACE} | kubectl apply -f -"


@pytest.mark.parametrize(
    ("nnodes", "listed", "said"),
    [("2", True, 2), ("2", False, 0), ("1", True, 0)],
    ids=["denied", "403", "alone"],
)
def test_a_policy_that_denies_the_join_is_named_at_the_start_and_at_the_time_out(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    nnodes: str,
    listed: bool,
    said: int,
) -> None:
    """Unless policies may not be listed, or a worker has nobody to join."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    (tmp_path / "train.py").write_text("")
    store.faults = [("GET", "/network-attachment-definitions/", (200, {}, {}))]
    if not listed:
        store.faults.append(("GET", r"/networkpolicies(\?|$)", forbidden("networkpolicies")))
    store.put(DENIES)
    words = ["-n", NAMESPACE, "--run-id", RUN, "--image", "x:1", "--network", "net", "--start-timeout", "1s"]
    words += [
        "--kubeconfig",
        str(kubeconfig(tmp_path / "config", store.address)),
        "--nnodes",
        nnodes,
        "train.py",
    ]
    assert main(["launch", "--on", "kubernetes", *words]) == 124
    err = capsys.readouterr().err
    assert err.count(FIX) == err.count("NetworkPolicy deny-all in namespace") == said, err
    assert ("ingress from" in err) is False, "the run's own policy allows it"


def test_a_policy_that_admits_the_jobs_own_labels_is_no_obstacle_at_the_time_out_either(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    (tmp_path / "train.py").write_text("")
    store.faults = [("GET", "/network-attachment-definitions/", (200, {}, {}))]
    store.put(copy.deepcopy(DENIES))
    store.put(copy.deepcopy(TEAM))
    words = ["-n", NAMESPACE, "--run-id", RUN, "--image", "x:1", "--network", "net", "--start-timeout", "1s"]
    words += ["--kubeconfig", str(kubeconfig(tmp_path / "config", store.address)), "--label", "team=x"]
    assert main(["launch", "--on", "kubernetes", *words, "--nnodes", "2", "train.py"]) == 124
    assert "NetworkPolicy" not in capsys.readouterr().err


def test_whoever_attaches_reads_the_labels_of_a_pod(store: Store, tmp_path: Path) -> None:
    one, info = client(store, tmp_path), facts(2)
    store.put(copy.deepcopy(DENIES))
    assert policy_warning(one, info) == "", "there is no pod whose labels could be read"
    store.put(copy.deepcopy(TEAM))
    store.put(pod(0))
    assert "NetworkPolicy deny-all" in policy_warning(one, info)
    teams = pod(0)
    teams["metadata"]["labels"]["team"] = "x"
    store.put(teams)
    assert policy_warning(one, info) == ""
