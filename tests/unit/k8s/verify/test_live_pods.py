"""torchnet verify at work, against a server that answers in order: signals, and pods that do not do well."""

from __future__ import annotations

import json
import secrets
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit import api_answers
from tests.unit.api_answers import Answer, Server, kubeconfig, serving
from tests.unit.api_store import Store, forbidden, stamp, storing
from tests.unit.aside import aside, interrupt, until
from tests.unit.kubernetes_objects import LABELS, pod, running, terminated, waiting
from tests.unit.verify_reports import OPTIONS
from torchnet.cli import main
from torchnet.errors import ClusterError, NetworkError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.verify import live_pods, verification
from torchnet.k8s.verify.live_pods import LivePods

NODES = ["node1", "node2"]

server = pytest.fixture(serving)
store = pytest.fixture(storing)
client = pytest.fixture(api_answers.client)


def pods(client: ApiClient, *, alive: bool = True, said: list[str] | None = None) -> LivePods:
    lines = [] if said is None else said
    return LivePods(client, "ml", lambda: alive, multus="-n net daemonset/multus", progress=lines.append)


CREATION = r"/pods\?(?!.*dryRun)"  # not a dry run


def items(*bodies: dict[str, Any]) -> Answer:
    return 200, {}, {"items": list(bodies)}


def daemonset(namespace: str) -> dict[str, Any]:
    status = {"desiredNumberScheduled": 2, "numberReady": 2}
    return {"metadata": {"name": "kube-multus-ds", "namespace": namespace}, "status": status}


def daemon(node: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"multus-{node}"},
        "spec": {"nodeName": node},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def installed_well(store: Store, *faults: tuple[str, str, Any]) -> None:
    """All that is looked for before the pods is there."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    store.faults = [
        *faults,
        ("GET", r"/nodes\?", items({"metadata": {"name": NODES[0]}, "status": ready})),
        ("GET", "/daemonsets", items(daemonset("kube-system"))),
        ("GET", r"/pods\?labelSelector=app", items(daemon(NODES[0]))),
        ("GET", "/network-attachment-definitions/", (200, {}, {"spec": {}})),
    ]


def test_after_a_signal_no_pods_are_made(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though all else is good: nobody waits for them any more."""
    held = threading.Event()
    installed_well(store, ("GET", "/nodes", held))
    store.faults.append(("POST", "", forbidden("pods")))
    place = ["-n", "ml", "--kubeconfig", str(kubeconfig(tmp_path / "config", store.address))]
    with aside(lambda: until(lambda: store.wanted("GET", "/nodes")), interrupt, held.set):
        assert main(["verify", "--network", "ml/backend-network", *place]) == 130
    assert store.wanted("POST", "") == 0
    assert "no test pods were created" in capsys.readouterr().err


def test_nor_after_one_in_the_last_moment_before(store: Store, tmp_path: Path) -> None:
    """Who has been told that nothing was made leaves at once."""
    installed_well(store)
    begun: list[str] = []
    one = api_answers.client(store, tmp_path)
    checks = list(verification.verify(one, "ml", OPTIONS, lambda: not begun, on_start=begun.append))
    assert [check.good for check in checks] == [True] * 3
    assert len(begun) == 1
    assert store.wanted("POST", "") == store.wanted("POST", "dryRun=All") == 1


def verifying(store: Store, folder: Path) -> int:
    place = ["-n", "ml", "--kubeconfig", str(kubeconfig(folder / "config", store.address))]
    return main(["verify", "--network", "ml/backend-network", *place])


def test_a_signal_while_the_pods_are_there_takes_them_away(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed_well(store)
    with aside(lambda: until(lambda: store.wanted("GET", "/pods/verify")), interrupt):
        assert verifying(store, tmp_path) == 130
    assert store.wanted("POST", CREATION) == 1
    assert store.names() == []
    out, err = capsys.readouterr()
    assert "FAIL" not in out
    assert err == "torchnet: stopped by SIGINT: the test pods were deleted\n"


def test_the_second_signal_ends_the_removal_and_says_how_to_go_on(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pods take their time, and the server answers all the while."""
    installed_well(store)
    store.lingers = 60
    sent: list[float] = []
    removing = lambda: until(lambda: store.deleted)  # noqa: E731
    there = lambda: until(lambda: store.wanted("GET", "/pods/verify"))  # noqa: E731
    with aside(there, interrupt, removing, 1.5, lambda: sent.append(time.monotonic()), interrupt):
        assert verifying(store, tmp_path) == 130
    assert time.monotonic() - sent[0] < 1
    run = store.names()[0].removeprefix("Pod/").removesuffix("-0")
    said = capsys.readouterr().err
    assert f"label torchnet.alt/run={run}" in said
    assert f"fix: torchnet down {run} -n ml" in said


def test_a_server_that_falls_silent_then_is_not_waited_for_after_a_signal(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed_well(store, ("GET", "/pods/verify", held := threading.Event()))
    sent: list[float] = []
    there = lambda: until(lambda: store.wanted("GET", "/pods/verify"))  # noqa: E731
    with aside(there, lambda: sent.append(time.monotonic()), interrupt):
        assert verifying(store, tmp_path) == 130
    assert time.monotonic() - sent[0] < 2
    assert "the label torchnet.alt/run=verify-" in capsys.readouterr().err
    held.set()


def test_what_cannot_be_removed_after_an_error_is_named_beside_it(store: Store, tmp_path: Path) -> None:
    installed_well(
        store, ("POST", CREATION, forbidden("pods")), ("DELETE", "", (401, {}, {"message": "expired"}))
    )
    with pytest.raises(ClusterError) as caught:
        list(verification.verify(api_answers.client(store, tmp_path), "ml", OPTIONS, lambda: True))
    assert "pods is forbidden" in caught.value.text
    assert "the label torchnet.alt/run=verify-" in caught.value.text
    assert "torchnet down verify-" in caught.value.fix


def test_a_test_pod_that_its_kubelet_has_not_ended_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_REMOVAL_SECONDS", 0.5)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "abc")
    node = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    installed_well(store, ("POST", CREATION, forbidden("pods")), ("GET", "/nodes/", (200, {}, node)))
    stuck = pod(0) | {"metadata": {"name": "verify-abc-1", "namespace": "ml", "uid": "a"}}
    stuck["metadata"]["labels"] = LABELS | {"torchnet.alt/run": "verify-abc"}
    stuck["metadata"] |= {"deletionTimestamp": stamp(time.time() - 60), "deletionGracePeriodSeconds": 1}
    store.put(stuck)
    store.lingers = 1
    with pytest.raises(ClusterError) as caught:
        list(verification.verify(api_answers.client(store, tmp_path), "ml", OPTIONS, lambda: True))
    assert "the node is Ready" in caught.value.text
    assert "Pod/verify-abc-1" in store.names()


# -- pods that do not do well -------------------------------------------------------------------------------------


def test_an_image_without_python_is_told_at_once_in_the_runtimes_words(
    server: Server, client: ApiClient
) -> None:
    said = 'exec: "python3": executable file not found in $PATH'
    server.answers = [(200, {}, pod(0, phase="Failed", worker=terminated(128, said, "StartError")))]
    began = time.monotonic()
    with pytest.raises(NetworkError) as caught:
        pods(client).wait("verify-0", "running", 90.0)
    assert time.monotonic() - began < 5.0
    assert "exit code 128: StartError" in caught.value.text
    assert said in caught.value.text
    assert "--image" in caught.value.fix


def test_a_pod_that_ends_while_its_log_is_read_is_told_with_the_logs_end(
    server: Server, client: ApiClient
) -> None:
    ended = pod(0, phase="Failed", worker=terminated(1))
    server.answers = [
        (200, {}, b"ModuleNotFoundError: x\n"),
        (200, {}, ended),
        (200, {}, b"ModuleNotFoundError: x\n"),
    ]
    with pytest.raises(NetworkError, match="exit code 1; output: ModuleNotFoundError: x") as caught:
        pods(client).log("verify-0")
    assert "verify again" in caught.value.fix, "Python was there"


def test_a_log_that_breaks_off_is_read_again_and_complaints_come_before_the_result(
    server: Server, client: ApiClient
) -> None:
    there: Answer = (200, {}, pod(0, phase="Running", worker=running()))
    server.answers = [
        (200, {"Content-Length": "1000"}, b"{"),
        there,
        (200, {}, b'net1 has no address yet\n{"mtu": 9000}\n'),
    ]
    assert pods(client).log("verify-0") == {"mtu": 9000}


def test_a_pod_that_does_not_start_is_told_with_a_fix_for_this_namespace(
    server: Server, client: ApiClient
) -> None:
    stuck = pod(0, worker=waiting("CreateContainerError", "no space left"))
    server.answers = [(200, {}, stuck), items()]
    with pytest.raises(NetworkError) as caught:
        pods(client).wait("verify-0", "running", -1.0)
    assert "is not running after -1 s: CreateContainerError: no space left" in caught.value.text
    assert "kubectl get events -n ml" in caught.value.fix


def test_a_second_pod_without_a_result_says_how_it_ended(server: Server, client: ApiClient) -> None:
    server.answers = [(200, {}, b"Traceback\nOSError: net1\n")]
    body = pod(1, phase="Failed", worker=terminated(1))
    assert pods(client).result(body) == {"problem": "exit code 1; output: Traceback OSError: net1"}


@pytest.mark.parametrize("short", [True, False])
def test_a_result_is_the_last_line_wherever_it_is(server: Server, client: ApiClient, short: bool) -> None:
    """In the termination message, or if it was too long for one, in the log alone."""
    first, last = json.dumps({"interfaces": ["net1"]}), json.dumps({"results": [1]})
    body = pod(1, phase="Succeeded", worker=terminated(0, last if short else first))
    server.answers = [(200, {}, f"{first}\nwarning\n{last}\n".encode())]
    assert pods(client).result(body) == {"results": [1]}
    assert len(server.asked) == (0 if short else 1)


# -- waiting ----------------------------------------------------------------------------------------------------------


def event(reason: str, at: int, message: str = "") -> dict[str, Any]:
    about = {"kind": "Pod", "name": pod(0)["metadata"]["name"], "uid": "uid-0"}
    stamp = f"2026-01-01T00:00:{at:02}Z"
    return {"reason": reason, "message": message, "lastTimestamp": stamp, "involvedObject": about}


class Waiting:
    """Answers for a pod that is being created, whose Events change with each look."""

    def __init__(self, server: Server, looks: list[list[dict[str, Any]]], then: dict[str, Any]) -> None:
        self.looks, self.then, self.seen = looks, then, 0
        server.answer = self.answer  # type: ignore[method-assign]

    def answer(self, method: str, path: str, said: bytes) -> Answer:
        if "/events" in path:
            self.seen += 1
            return items(*self.looks[min(self.seen, len(self.looks)) - 1])
        created = pod(0, worker=waiting("ContainerCreating"))
        return 200, {}, created if self.seen < len(self.looks) else self.then


def test_the_pull_of_an_image_is_not_counted_and_is_told_once(
    server: Server, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_pods, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(live_pods, "PAUSE", 0.02)
    pulling = [event("Scheduled", 0), event("Pulling", 1)]
    Waiting(server, [pulling] * 8, pod(0, phase="Running", worker=running()))
    said: list[str] = []
    began = time.monotonic()
    pods(client, said=said).wait("verify-0", "running", 0.3)
    assert time.monotonic() - began > 0.6, "longer than it may take to start"
    assert said == ["verify-0: its node pulls the image"]


def test_once_the_image_is_there_the_clock_runs(
    server: Server, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_pods, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(live_pods, "PAUSE", 0.02)
    pulled = [event("Pulling", 1), event("Pulled", 9)]
    Waiting(server, [[event("Pulling", 1)]] * 3 + [pulled] * 99, pod(0))
    with pytest.raises(NetworkError, match="is not running after 0.3 s"):
        pods(client).wait("verify-0", "running", 0.3)


def test_a_rejected_token_is_named_long_before_the_time_is_over(
    server: Server, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_pods, "LOOK_SECONDS", 0.1)
    message = "Failed to create pod sandbox: Multus: [ml/v/u]: error waiting for pod: Unauthorized"
    Waiting(server, [[event("FailedCreatePodSandBox", 3, message)]] * 2, pod(0))
    began = time.monotonic()
    with pytest.raises(NetworkError, match="token of Multus on node1") as caught:
        pods(client).wait("verify-0", "running", 90.0)
    assert time.monotonic() - began < 5
    assert caught.value.fix == "kubectl rollout restart -n net daemonset/multus"


def test_a_pod_in_a_queue_has_all_the_time(server: Server, client: ApiClient) -> None:
    gated = pod(0, scheduled={"status": "False", "reason": "SchedulingGated", "message": "no quota"})
    there = pod(0, phase="Running", worker=running())
    server.answers = [*[(200, {}, gated)] * 3, (200, {}, there)]
    said: list[str] = []
    assert pods(client, said=said).wait("verify-0", "running", 0.1) == there
    assert said == ["verify-0: queued: no quota"]


def test_ctrl_c_is_no_finding(server: Server, client: ApiClient) -> None:
    """It comes when all has been looked at, and the first pod is being waited for."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    server.answers = [
        items(*({"metadata": {"name": name}, "status": ready} for name in NODES)),
        *(items(daemonset("kube-system")), items(*map(daemon, NODES))),
        *((200, {}, {"spec": {}}), (404, {}, {"message": "not found"}), items()),
        *((201, {}, {}), (201, {}, {}), (201, {}, {})),
        (200, {}, pod(0)),
        (200, {}, {}),
    ]
    checks = list(verification.verify(client, "ml", OPTIONS, lambda: len(server.asked) < 9))
    assert [check.name for check in checks if not check.good] == []
    assert len(checks) == 3
    assert "DELETE" in {method for _, method, _, _ in server.asked}, "the pods are removed"
