"""torchnet verify at work, against a server that answers in order: what it looks at, and pods that do not do well."""

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
from tests.unit.kubernetes_objects import pod, running, terminated, waiting
from torchnet.cli import main
from torchnet.errors import ClusterError, NetworkError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.verify import checks, verification
from torchnet.k8s.verify.live_pods import LivePods

NETWORK = ("ml", "backend-network")
NODES = ["node1", "node2"]
FORBIDDEN = 'daemonsets.apps is forbidden: User "eve" cannot list resource "daemonsets" at the cluster scope'

server = pytest.fixture(serving)
store = pytest.fixture(storing)
client = pytest.fixture(api_answers.client)


def pods(client: ApiClient, *, alive: bool = True) -> LivePods:
    return LivePods(client, "ml", lambda: alive)


def items(*bodies: dict[str, Any]) -> Answer:
    return 200, {}, {"items": list(bodies)}


def daemonset(namespace: str) -> dict[str, Any]:
    status = {"desiredNumberScheduled": 2, "numberReady": 2}
    return {"metadata": {"name": "kube-multus-ds", "namespace": namespace}, "status": status}


def daemon(node: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"multus-{node}"},
        "spec": {"nodeName": node},
        "status": {"phase": "Running"},
    }


def paths(server: Server) -> list[str]:
    return [path.partition("?")[0] for _, _, path, _ in server.asked]


# -- what is installed --------------------------------------------------------------------------------------------


def test_a_daemonset_is_found_wherever_it_was_installed(server: Server, client: ApiClient) -> None:
    server.answers = [items(daemonset("networking")), items(*map(daemon, NODES))]
    check = checks.check_plugin(client, "Multus", "multus", NODES)
    assert (check.good, check.evidence) == (True, "Running on 2 of 2 nodes")
    assert paths(server) == ["/apis/apps/v1/daemonsets", "/api/v1/namespaces/networking/pods"]


def test_who_may_not_look_everywhere_looks_into_kube_system_and_is_told(
    server: Server, client: ApiClient
) -> None:
    server.answers = [(403, {}, {"message": FORBIDDEN}), items()]
    check = checks.check_plugin(client, "Multus", "multus", NODES)
    assert not check.good
    assert (
        check.evidence == "no DaemonSet with app=multus in kube-system (not allowed to list other namespaces)"
    )
    assert paths(server)[1] == "/apis/apps/v1/namespaces/kube-system/daemonsets"


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({"plugins": [{"type": "macvlan", "ipam": {"type": "whereabouts"}}]}, True),
        ({"plugins": [{"type": "macvlan", "ipam": {"type": "host-local"}}]}, False),
        ({"plugins": [{"type": "macvlan", "ipam": {"type": "static"}}]}, False),
        ({"type": "macvlan", "ipam": {"type": "whereabouts"}}, True),
        (None, False),  # its configuration is a file on each node
    ],
)
def test_whereabouts_is_asked_for_where_it_gives_the_addresses(
    server: Server, client: ApiClient, config: dict[str, Any] | None, asked: bool
) -> None:
    spec = {} if config is None else {"config": json.dumps({"cniVersion": "1.0.0"} | config)}
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    nodes = [{"metadata": {"name": name}, "status": ready} for name in NODES]
    multus = [items(daemonset("kube-system")), items(*map(daemon, NODES))]
    server.answers = [items(*nodes), *multus, (200, {}, {"spec": spec}), *(multus if asked else [])]
    checks = list(verification.verify(client, "ml", NETWORK, "x:1", lambda: False))
    assert [check.good for check in checks] == [True] * (4 if asked else 3), checks
    assert ("Whereabouts" in [check.name for check in checks]) is asked


def installed_well(store: Store, *faults: tuple[str, str, Any]) -> None:
    """All that is looked for before the pods is there."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    store.faults = [
        *faults,
        ("GET", "/nodes", items({"metadata": {"name": NODES[0]}, "status": ready})),
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
        assert main(["verify", "--network", "/".join(NETWORK), *place]) == 130
    assert store.wanted("POST", "") == 0
    assert "no test pods were created" in capsys.readouterr().err


def test_nor_after_one_in_the_last_moment_before(store: Store, tmp_path: Path) -> None:
    """Who has been told that nothing was made leaves at once."""
    installed_well(store)
    begun: list[str] = []
    one = api_answers.client(store, tmp_path)
    checks = list(verification.verify(one, "ml", NETWORK, "x:1", lambda: not begun, begun.append))
    assert [check.good for check in checks] == [True] * 3
    assert len(begun) == 1
    assert store.wanted("POST", "") == 0


def verifying(store: Store, folder: Path) -> int:
    place = ["-n", "ml", "--kubeconfig", str(kubeconfig(folder / "config", store.address))]
    return main(["verify", "--network", "/".join(NETWORK), *place])


def test_a_signal_while_the_pods_are_there_takes_them_away(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed_well(store)
    with aside(lambda: until(lambda: store.wanted("GET", "/pods/verify")), interrupt):
        assert verifying(store, tmp_path) == 130
    assert store.wanted("POST", "/pods") == 1
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
        store, ("POST", "/pods", forbidden("pods")), ("DELETE", "", (401, {}, {"message": "expired"}))
    )
    with pytest.raises(ClusterError) as caught:
        list(verification.verify(api_answers.client(store, tmp_path), "ml", NETWORK, "x:1", lambda: True))
    assert "pods is forbidden" in caught.value.text
    assert "the label torchnet.alt/run=verify-" in caught.value.text
    assert "torchnet down verify-" in caught.value.fix


def test_a_test_pod_that_its_kubelet_has_not_ended_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_REMOVAL_SECONDS", 0.5)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "abc")
    node = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    installed_well(store, ("POST", "/pods", forbidden("pods")), ("GET", "/nodes/", (200, {}, node)))
    stuck = pod(0) | {"metadata": {"name": "verify-abc-0", "namespace": "ml", "uid": "a"}}
    stuck["metadata"]["labels"] = {"torchnet.alt/run": "verify-abc"}
    stuck["metadata"] |= {"deletionTimestamp": stamp(time.time() - 60), "deletionGracePeriodSeconds": 1}
    store.put(stuck)
    store.lingers = 1
    with pytest.raises(ClusterError) as caught:
        list(verification.verify(api_answers.client(store, tmp_path), "ml", NETWORK, "x:1", lambda: True))
    assert "the node is Ready" in caught.value.text
    assert "Pod/verify-abc-0" in store.names()


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
    assert pods(client).message(body) == {"problem": "exit code 1; output: Traceback OSError: net1"}


def test_ctrl_c_is_no_finding(server: Server, client: ApiClient) -> None:
    """It comes when all has been looked at, and the first pod is being waited for."""
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    server.answers = [
        items(*({"metadata": {"name": name}, "status": ready} for name in NODES)),
        *(items(daemonset("kube-system")), items(*map(daemon, NODES))),
        (200, {}, {"spec": {}}),
        *((201, {}, {}), (201, {}, {})),
        (200, {}, pod(0)),
        (200, {}, {}),
    ]
    checks = list(verification.verify(client, "ml", NETWORK, "x:1", lambda: len(server.asked) < 7))
    assert [check.name for check in checks if not check.good] == []
    assert len(checks) == 3
    assert "DELETE" in {method for _, method, _, _ in server.asked}, "the pods are removed"
