"""torchnet verify --all-nodes, against a server that keeps objects, and kubelets that tests play."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import golden
from tests.unit import api_answers
from tests.unit.api_answers import Answer, kubeconfig
from tests.unit.api_store import Store, forbidden, storing
from tests.unit.aside import aside, interrupt, until
from tests.unit.verify_reports import OPTIONS, network_status, result, state
from torchnet.cli import main
from torchnet.errors import ClusterError
from torchnet.k8s.verify import all_nodes, live_pods, verification
from torchnet.k8s.verify.check import Check
from torchnet.k8s.verify.cluster_report import ClusterReport, document
from torchnet.k8s.verify.pods import PLAN_ANNOTATION
from torchnet.k8s.verify.schedule import rounds

GBIT = 1.25e8  # bytes/s
UNAUTHORIZED = "Failed to create pod sandbox: Multus: [ml/v/u]: error waiting for pod: Unauthorized"

store = pytest.fixture(storing)


CONFIG: dict[str, Any] = {"cniVersion": "1.0.0", "type": "macvlan", "master": "ens5"}
CONFIG |= {"capabilities": {"ips": True}, "ipam": {"type": "static"}}


class Kubelets:
    """All nodes: each pod runs at once, and once it has its plan, it ends with results.

    ``bad`` nodes neither send nor receive; ``slow`` ones at a tenth of the rate; ``stuck`` ones start no pod, and have
    the Event or the scheduler's message instead; ``blocked`` ones have no carrier; ``vanishing`` ones lose their pods
    once these have plans.
    """

    def __init__(self, store: Store, count: int) -> None:
        self.store, self.names = store, [f"gpu{number}" for number in range(count)]
        self.bad: set[str] = set()
        self.slow: set[str] = set()
        self.stuck: dict[str, dict[str, str]] = {}
        self.blocked: set[str] = set()
        self.vanishing: set[str] = set()
        self.pulling: dict[str, float] = {}
        self.started: dict[str, list[str]] = {}
        self._over = threading.Event()
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        nodes = [{"metadata": {"name": name}, "status": ready} for name in self.names]
        multus = {
            "metadata": {"name": "kube-multus-ds", "namespace": "kube-system"},
            "status": {"desiredNumberScheduled": count, "numberReady": count},
        }
        self.daemons = [{"spec": {"nodeName": name}, "status": ready} for name in self.names]
        store.faults = [
            ("GET", r"/nodes\?", (200, {}, {"items": nodes})),
            ("GET", "/daemonsets", (200, {}, {"items": [multus]})),
            ("GET", r"/pods\?labelSelector=app", (200, {}, {"items": self.daemons})),
            ("GET", "/network-attachment-definitions/", (200, {}, {"spec": {"config": json.dumps(CONFIG)}})),
        ]
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Kubelets:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _work(self) -> None:
        while not self._over.wait(0.02):
            for body in list(self.store.objects.values()):
                if body["kind"] == "Pod":
                    self._look(body)

    def node(self, pod: dict[str, Any]) -> str:
        affinity = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (name,) = affinity["nodeSelectorTerms"][0]["matchFields"][0]["values"]
        return str(name)

    def _look(self, pod: dict[str, Any]) -> None:
        name, node = pod["metadata"]["name"], self.node(pod)
        index = int(name.rpartition("-")[2])
        status = pod.setdefault("status", {})
        if node in self.stuck:
            self._stick(pod, self.stuck[node])
            return
        if time.monotonic() < self.pulling.get(node, 0):
            status |= {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
            return
        pod["spec"]["nodeName"] = node
        if not status.get("containerStatuses"):
            self.started.setdefault(node, []).append(name)
            pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"] = network_status(
                f"fd00::{index + 1}"
            )
            more = {"blocked": "net1 has no carrier"} if node in self.blocked else {}
            self.store.logs[name] = "warning\n" + json.dumps(state(index, **more)) + "\n"
            self._container(status, {"running": {"startedAt": "2026-01-01T00:00:00Z"}})
        text = pod["metadata"]["annotations"].get(PLAN_ANNOTATION)
        if text and node in self.vanishing:
            self.lose(node)
        elif text and "running" in status["containerStatuses"][0]["state"]:
            results = [
                self._result(node, one["partner"]) for one in json.loads(text)["steps"] if "addresses" in one
            ]
            self.store.logs[name] += json.dumps(state(index, results=results)) + "\n"
            status["phase"] = "Succeeded"
            self._container(status, {"terminated": {"exitCode": 0}})

    def lose(self, node: str) -> None:
        """Its pod is deleted, and is gone at once."""
        for path, one in list(self.store.objects.items()):
            if one["kind"] == "Pod" and self.node(one) == node:
                del self.store.objects[path]

    def _container(self, status: dict[str, Any], state: dict[str, Any]) -> None:
        status.setdefault("phase", "Running")
        status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
        status["containerStatuses"] = [{"name": "worker", "state": state, "started": "running" in state}]

    def _stick(self, pod: dict[str, Any], why: dict[str, str]) -> None:
        scheduled = {"type": "PodScheduled", "status": "True"}
        if "event" in why:
            pod["spec"]["nodeName"] = self.node(pod)
        else:
            scheduled |= {"status": "False", "reason": "Unschedulable", "message": why["unscheduled"]}
        pod["status"] = {"phase": "Pending", "conditions": [scheduled]}

    def events(self) -> list[dict[str, Any]]:
        found = []
        for body in list(self.store.objects.values()):
            if body["kind"] != "Pod":
                continue
            node = self.node(body)
            about = {"kind": "Pod", "name": body["metadata"]["name"], "uid": body["metadata"]["uid"]}
            if "event" in self.stuck.get(node, {}):
                found.append((about, "FailedCreatePodSandBox", self.stuck[node]["event"]))
            elif node in self.pulling:
                there = time.monotonic() >= self.pulling[node]
                found.append((about, "Pulled" if there else "Pulling", "image"))
        stamp = {"lastTimestamp": "2026-01-01T00:00:00Z"}
        return [{"involvedObject": a, "reason": r, "message": m, **stamp} for a, r, m in found]

    def _result(self, node: str, partner: str) -> dict[str, Any]:
        other = self.names[int(partner.rpartition("-")[2])]
        if {node, other} & self.bad:
            return result(partner, reached=False, problem="no response to packets of 9000 bytes")
        rate = GBIT / 10 if {node, other} & self.slow else GBIT
        return result(partner, there=rate, back=rate)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_pods, "PAUSE", 0.02)
    monkeypatch.setattr(all_nodes, "LOOK_SECONDS", 0.1)


@pytest.fixture
def kubelets(store: Store) -> Iterator[Callable[[int], Kubelets]]:
    made: list[Kubelets] = []

    def start(count: int) -> Kubelets:
        one = Kubelets(store, count)
        made.append(one)
        plain = store.answer

        def answer(method: str, path: str, said: bytes) -> Answer:
            return (200, {}, {"items": one.events()}) if "/events?" in path else plain(method, path, said)

        store.answer = answer  # type: ignore[method-assign]
        return one.__enter__()

    yield start
    for one in made:
        one.__exit__()


def verified(store: Store, tmp_path: Path) -> tuple[list[Check], ClusterReport, list[str]]:
    cluster_report, said = ClusterReport(), list[str]()
    one = api_answers.client(store, tmp_path)
    checks = list(
        verification.verify(
            one,
            "ml",
            OPTIONS,
            lambda: True,
            all_nodes=True,
            cluster_report=cluster_report,
            progress=said.append,
        )
    )
    assert store.names() == [], "nothing is left"
    return checks, cluster_report, said


def bad(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.evidence for check in checks if not check.good}


def test_one_pod_on_each_node_and_each_with_several_partners(
    store: Store, tmp_path: Path, kubelets: Callable[[int], Kubelets]
) -> None:
    nodes = kubelets(9)
    checks, cluster_report, said = verified(store, tmp_path)
    assert bad(checks) == {}
    assert {node: len(pods) for node, pods in nodes.started.items()} == dict.fromkeys(nodes.names, 1)
    evidence = {check.name: check.evidence for check in checks}
    assert evidence["test pods"] == "usable on 9 of 9 nodes"
    assert evidence["full size, both ways, net1"] == "9000 bytes in 20 pairs of 9 nodes"
    assert evidence["bandwidth, net1"].startswith("1 Gbit/s to 1 Gbit/s, median 1 Gbit/s")
    pairs = [pair for one in rounds(9) for pair in one]
    assert [(path.one, path.other) for path in cluster_report.paths] == [
        (f"gpu{a}", f"gpu{b}") for a, b in pairs
    ]
    assert cluster_report.nodes == dict.fromkeys(nodes.names, ("ok", ""))
    assert said == ["testing 9 nodes in 5 rounds, each with 4 or more others"]
    # A watch tells of changes, and each pod has one plan: nothing is asked again and again.
    assert store.wanted("PATCH", "/pods/") == 9
    lists = [path for _, _, path, _ in store.asked if "/pods?labelSelector=torchnet" in path]
    assert len([path for path in lists if "watch=" not in path]) < 10


def test_a_faulty_node_and_a_slow_one_are_named_and_their_partners_are_not(
    store: Store, tmp_path: Path, kubelets: Callable[[int], Kubelets]
) -> None:
    nodes = kubelets(8)
    nodes.bad, nodes.slow = {"gpu3"}, {"gpu6"}
    checks, cluster_report, _ = verified(store, tmp_path)
    assert sorted(bad(checks)) == ["node gpu3", "node gpu6"]
    assert "failed with all of its partners" in bad(checks)["node gpu3"]
    assert "at most 100 Mbit/s" in bad(checks)["node gpu6"]
    assert document(cluster_report, checks, 4)["faulty_nodes"] == ["gpu3", "gpu6"]


def test_nodes_whose_pods_do_not_get_that_far_are_named_and_the_others_tested(
    store: Store, tmp_path: Path, kubelets: Callable[[int], Kubelets], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_nodes, "START_SECONDS", 1.0)
    nodes = kubelets(7)
    nodes.stuck = {
        "gpu1": {"event": UNAUTHORIZED},
        "gpu2": {"unscheduled": "0/7 nodes are available: 1 Insufficient cpu"},
        "gpu4": {"event": "no such plugin"},
    }
    nodes.blocked = {"gpu5"}
    checks, cluster_report, _ = verified(store, tmp_path)
    results = {check.name: check.result for check in checks if check.result != "ok"}
    assert results == {
        "node gpu1": "fail",
        "node gpu2": "unknown",
        "node gpu4": "fail",
        "node gpu5": "fail",
    }
    evidence = {check.name: check for check in checks}
    assert evidence["test pods"].evidence == "usable on 3 of 7 nodes"
    assert "rejects the token of Multus on gpu1" in evidence["node gpu1"].evidence
    assert evidence["node gpu1"].fix == "kubectl rollout restart -n kube-system daemonset/kube-multus-ds"
    assert "Insufficient cpu" in evidence["node gpu2"].evidence
    assert "net1 has no carrier" in evidence["node gpu5"].evidence
    assert evidence["full size, both ways, net1"].evidence == "9000 bytes in 3 pairs of 3 nodes"
    assert {name: result for name, (result, _) in cluster_report.nodes.items()} == {
        "gpu0": "ok",
        "gpu3": "ok",
        "gpu6": "ok",
        "gpu1": "fail",
        "gpu2": "unknown",
        "gpu4": "fail",
        "gpu5": "fail",
    }


@pytest.mark.parametrize("lost", [("GET", "/log"), ("GET", ""), ("PATCH", ""), ("", "")])
def test_a_pod_that_disappears_leaves_its_node_unknown_and_the_others_tested(
    store: Store,
    tmp_path: Path,
    kubelets: Callable[[int], Kubelets],
    lost: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While its log is read, or has nothing yet, before it gets its plan, or while it tests paths."""
    nodes, (method, end), plain = kubelets(5), lost, store.answer

    def answer(verb: str, path: str, said: bytes) -> Answer:
        names = [name for name in nodes.started.get("gpu1", ()) if f"/{name}" in path]
        if names and verb == method and path.partition("?")[0].endswith(names[0] + end):
            nodes.lose("gpu1")
        elif names and lost == ("GET", "") and "/log" in path:
            return 200, {}, b""
        return plain(verb, path, said)

    nodes.vanishing = set() if method else {"gpu1"}
    monkeypatch.setattr(store, "answer", answer)
    checks, cluster_report, _ = verified(store, tmp_path)
    assert bad(checks) == {}
    assert [check.name for check in checks if check.result == "unknown"] == ["node gpu1"]
    assert "does not exist any more" in cluster_report.nodes["gpu1"][1]
    results = {name: result for name, (result, _) in cluster_report.nodes.items()}
    assert results == dict.fromkeys(nodes.names, "ok") | {"gpu1": "unknown"}


def test_a_node_without_multus_is_that_nodes_fault(
    store: Store, tmp_path: Path, kubelets: Callable[[int], Kubelets]
) -> None:
    nodes = kubelets(5)
    nodes.daemons.pop(1)
    checks, cluster_report, _ = verified(store, tmp_path)
    assert bad(checks) == {"Multus": "not Ready on gpu1"}
    assert "gpu1" not in nodes.started
    assert cluster_report.nodes.pop("gpu1") == ("fail", "Multus: not Ready on gpu1")
    assert cluster_report.nodes == dict.fromkeys(["gpu0", "gpu2", "gpu3", "gpu4"], ("ok", ""))


def test_without_multus_anywhere_there_are_no_pods(
    store: Store, tmp_path: Path, kubelets: Callable[[int], Kubelets]
) -> None:
    nodes = kubelets(3)
    nodes.daemons.clear()
    checks, _, _ = verified(store, tmp_path)
    assert [check.name for check in checks if not check.good] == ["Multus"]
    assert nodes.started == {}


def test_the_pull_of_an_image_is_not_counted(
    store: Store, tmp_path: Path, kubelets: Callable[[int], Kubelets], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(all_nodes, "START_SECONDS", 0.8)
    nodes = kubelets(3)
    nodes.pulling = {"gpu1": time.monotonic() + 2.0}
    checks, _, said = verified(store, tmp_path)
    assert bad(checks) == {}
    assert said[0] == "1 pod waiting for an image or a queue"


def test_fewer_than_two_nodes_have_no_path(
    store: Store, tmp_path: Path, kubelets: Callable[[int], Kubelets]
) -> None:
    kubelets(1)
    checks, cluster_report, _ = verified(store, tmp_path)
    assert [check.result for check in checks[-2:]] == ["ok", "unknown"]
    assert cluster_report.nodes == {"gpu0": ("unknown", "no partner")}


def test_a_refusal_while_pods_are_created_ends_it_and_takes_away_what_is_there(
    store: Store, tmp_path: Path, kubelets: Callable[[int], Kubelets]
) -> None:
    kubelets(4)
    store.faults.insert(0, ("POST", r"/pods\?(?!.*dryRun)", forbidden("pods")))
    with pytest.raises(ClusterError, match="pods is forbidden"):
        verified(store, tmp_path)
    assert store.names() == []


def test_a_signal_while_the_pods_are_there_takes_them_away(
    store: Store,
    tmp_path: Path,
    kubelets: Callable[[int], Kubelets],
    capsys: pytest.CaptureFixture[str],
) -> None:
    nodes = kubelets(4)
    nodes.stuck = {name: {"event": "no such plugin"} for name in nodes.names}
    place = ["-n", "ml", "--kubeconfig", str(kubeconfig(tmp_path / "config", store.address))]
    with aside(lambda: until(lambda: store.wanted("GET", "/events")), interrupt):
        assert main(["verify", "--all-nodes", "--network", "ml/backend-network", *place]) == 130
    assert store.names() == []
    assert capsys.readouterr().err == "torchnet: stopped by SIGINT: the test pods were deleted\n"


def test_the_document(
    store: Store,
    tmp_path: Path,
    kubelets: Callable[[int], Kubelets],
    capsys: pytest.CaptureFixture[str],
) -> None:
    nodes = kubelets(4)
    nodes.bad = {"gpu1"}
    place = ["-n", "ml", "--kubeconfig", str(kubeconfig(tmp_path / "config", store.address))]
    words = ["verify", "--all-nodes", "-o", "json", "--network", "ml/backend-network", *place]
    assert main(words) == 4
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["exit_code"], found["result"], found["faulty_nodes"]) == (4, "fail", ["gpu1"])
    golden.check("k8s-verify.json", out)
    assert "FAIL" not in err, "stdout has the document alone, and stderr the progress"
