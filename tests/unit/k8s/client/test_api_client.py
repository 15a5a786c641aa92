"""The API client: what it retries, for how long, and the errors that it reports in the end.

The other side is a real HTTP server that answers as it is told to; how an API server answers is tested on a real one,
in tests/cluster.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_answers import Server, kubeconfig, serving
from torchnet.errors import ClusterError
from torchnet.k8s.client import api_client
from torchnet.k8s.client.access import load
from torchnet.k8s.client.api_client import ApiClient, after_lost_answer, connect
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.kinds import JOB, NODE, POD

server = pytest.fixture(serving)


@pytest.fixture
def client(server: Server, tmp_path: Path) -> ApiClient:
    return ApiClient(load(str(kubeconfig(tmp_path / "config", server.address))), patience=3.0)


def list_pods(client: ApiClient) -> dict[str, Any]:
    return client.call("GET", POD.path("ml"), POD.call("list", "ml"))


def test_an_answer_and_the_credentials_it_was_asked_with(server: Server, client: ApiClient) -> None:
    server.answers = [(200, {}, {"items": [1]})]
    assert list_pods(client) == {"items": [1]}
    assert server.asked[0][2] == "/api/v1/namespaces/ml/pods"
    assert server.asked[0][3]["authorization"] == "Bearer t0ken"


def test_too_many_requests_are_honoured(server: Server, client: ApiClient) -> None:
    server.answers = [
        (429, {"Retry-After": "1"}, {"message": "slow down"}),
        (503, {}, b"no"),
        (200, {}, {"a": 1}),
    ]
    assert list_pods(client) == {"a": 1}
    assert server.asked[1][0] - server.asked[0][0] >= 1.0
    assert len(server.asked) == 3


def test_a_busy_server_is_given_up_in_time_with_exit_code_3(server: Server, client: ApiClient) -> None:
    server.answers = [(500, {}, {"message": "etcdserver: request timed out"})]
    began = time.monotonic()
    with pytest.raises(ApiUnreachable) as caught:
        list_pods(client)
    assert time.monotonic() - began < 4.0
    assert caught.value.exit_code == 3
    assert "etcdserver" in str(caught.value)
    assert server.address in str(caught.value)
    pauses = [b[0] - a[0] for a, b in zip(server.asked, server.asked[1:], strict=False)]
    assert 2 <= len(server.asked) <= 15, "neither once nor a storm"
    assert pauses[-1] > pauses[0]


# As the API server words them, with the webhook of a service and of a URL, one that answers with an error of its own,
# and one that converts objects.
WEBHOOKS = {
    'Internal error occurred: failed calling webhook "mjob.kb.io": failed to call webhook: Post '
    '"https://kueue-webhook-service.kueue-system.svc:443/mutate-batch-v1-job?timeout=10s": dial tcp '
    "10.96.0.1:443: connect: connection refused": (
        'admission webhook "mjob.kb.io"',
        "kubectl get pods -n kueue-system",
    ),
    'Internal error occurred: failed calling webhook "x.example.org": failed to call webhook: Post '
    '"https://hooks.example.org/x?timeout=10s": context deadline exceeded': (
        'admission webhook "x.example.org"',
        "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations",
    ),
    'admission webhook "y.example.org" denied the request: no backend': (
        'admission webhook "y.example.org"',
        "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations",
    ),
    "conversion webhook for jobset.x-k8s.io/v1alpha2, Kind=JobSet failed: Post "
    '"https://jobset-webhook-service.jobset-system.svc:443/convert?timeout=30s": EOF': (
        "conversion webhook for jobset.x-k8s.io/v1alpha2, Kind=JobSet",
        "kubectl get pods -n jobset-system",
    ),
}


@pytest.mark.parametrize(("message", "named"), WEBHOOKS.items(), ids=[name for name, _ in WEBHOOKS.values()])
def test_a_failing_webhook_is_named_at_once(
    server: Server, client: ApiClient, message: str, named: tuple[str, str]
) -> None:
    server.answers = [(500, {}, {"reason": "InternalError", "message": message})]
    with pytest.raises(ApiRefusal) as caught:
        client.call("POST", JOB.path("ml"), JOB.call("create", "ml", "x"), body={})
    assert len(server.asked) == 1
    assert (caught.value.webhook, caught.value.fix) == named
    assert named[0] in caught.value.text
    assert message in caught.value.text
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "message",
    [
        "Internal error occurred: etcdserver: leader changed",
        "Internal error occurred: failed calling something else",
        "the server is currently unable to handle the request: webhook",
    ],
)
def test_another_internal_error_is_tried_again(server: Server, client: ApiClient, message: str) -> None:
    server.answers = [(500, {}, {"message": message}), (200, {}, {"a": 1})]
    assert list_pods(client) == {"a": 1}


def test_a_webhook_that_denies_does_not_fail(server: Server, client: ApiClient) -> None:
    text = 'admission webhook "x.example.org" denied the request: no'
    server.answers = [(400, {}, {"message": text})]
    with pytest.raises(ApiRefusal, match="refused to create") as caught:
        client.call("POST", JOB.path("ml"), JOB.call("create", "ml", "x"), body={})
    assert (caught.value.webhook, caught.value.fix) == ("", "")


def test_what_is_asked_of_all_namespaces_is_said_so(server: Server, client: ApiClient) -> None:
    server.answers = [(403, {}, {"message": 'pods is forbidden: User "eve" cannot list resource "pods"'})]
    with pytest.raises(ApiRefusal, match="list pods in all namespaces") as caught:
        client.call("GET", POD.path(""), POD.call("list", ""))
    assert caught.value.fix == "kubectl auth can-i list pods -A"
    assert NODE.call("list", "").question == "kubectl auth can-i list nodes"


def test_a_wait_that_is_longer_than_patience_is_not_begun(server: Server, client: ApiClient) -> None:
    server.answers = [(429, {"Retry-After": "3600"}, {})]
    began = time.monotonic()
    with pytest.raises(ApiUnreachable):
        list_pods(client)
    assert time.monotonic() - began < 1.0
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (401, "Unauthorized", ["not authenticated", "list pods in namespace ml"]),
        (
            403,
            'pods is forbidden: User "eve" cannot list resource "pods" in API group "" in the namespace "ml"',
            ["not allowed to list pods in namespace ml", "kubectl auth can-i list pods -n ml"],
        ),
    ],
)
def test_rights_do_not_come_by_asking_again(
    server: Server, client: ApiClient, status: int, message: str, said: list[str]
) -> None:
    server.answers = [(status, {}, {"kind": "Status", "message": message, "reason": "Forbidden"})]
    with pytest.raises(ApiRefusal) as caught:
        list_pods(client)
    assert len(server.asked) == 1
    assert caught.value.exit_code == 3
    assert [text for text in said if text not in str(caught.value)] == []


@pytest.mark.parametrize(
    "text",
    [
        'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
        'admission webhook "images.example.org" denied the request: you cannot use this registry',
        'pods "x" is forbidden: the registry cannot be used',
    ],
)
def test_admissions_words_are_shown_as_they_are(server: Server, client: ApiClient, text: str) -> None:
    server.answers = [(403, {}, {"message": text})]
    with pytest.raises(ApiRefusal) as caught:
        client.call("POST", POD.path("ml"), POD.call("create", "ml", "x"), body={})
    assert text in str(caught.value)
    assert "not allowed" not in str(caught.value)
    assert "can-i" not in str(caught.value)


def test_a_broken_connection_is_tried_again(server: Server, client: ApiClient) -> None:
    server.answers = [(0, {}, {}), (0, {}, {}), (200, {}, {"a": 1})]
    assert list_pods(client) == {"a": 1}


CUT = {"Content-Length": "1000"}


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
def test_an_answer_that_breaks_off_is_asked_for_again(server: Server, client: ApiClient, method: str) -> None:
    server.answers = [(200, CUT, {"a": 0}), (200, CUT, {"a": 0}), (200, {}, {"a": 1})]
    assert client.call(method, POD.path("ml"), POD.call("list", "ml")) == {"a": 1}
    assert len(server.asked) == 3


def test_answers_that_break_off_for_too_long_are_an_unreachable_server(
    server: Server, client: ApiClient
) -> None:
    server.answers = [(200, CUT, {"a": 0})]
    with pytest.raises(ApiUnreachable, match="no response"):
        list_pods(client)
    assert len(server.asked) > 2


EXISTS = {"reason": "AlreadyExists", "message": 'pods "x" already exists'}


@pytest.mark.parametrize(
    ("first", "echo"),
    [
        ((0, {}, {}), True),  # the connection was cut
        ((201, CUT, {}), True),
        ((504, {}, {"message": "the gateway's time is over"}), True),
        ((429, {}, {"message": "slow down"}), False),  # refused before anything was done
    ],
)
def test_already_exists_after_a_lost_answer_may_be_the_own_try(
    server: Server, client: ApiClient, first: Any, echo: bool
) -> None:
    server.answers = [first, (409, {}, EXISTS)]
    with pytest.raises(ApiRefusal) as caught:
        client.call("POST", POD.path("ml"), POD.call("create", "ml", "x"), body={})
    assert after_lost_answer(caught.value) is echo
    assert caught.value.reason == "AlreadyExists"


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    client = ApiClient(load(str(kubeconfig(tmp_path / "config", "https://127.0.0.1:9"))), patience=0.5)
    with pytest.raises(ApiUnreachable) as caught:
        client.call("GET", JOB.path("ml"), JOB.call("list", "ml"))
    text = str(caught.value)
    assert "https://127.0.0.1:9" in text
    assert "context 'here'" in text
    assert "connection refused" in text
    assert "kubectl cluster-info --context here" in text


def test_a_stopped_client_waits_no_longer(server: Server, client: ApiClient) -> None:
    server.answers = [(503, {}, {})]
    threading.Timer(0.3, client.stop.set).start()
    began = time.monotonic()
    with pytest.raises(ClusterError):
        client.call("GET", POD.path("ml"), POD.call("list", "ml"), patience=60.0)
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"x"', b"[" * 100_000])
def test_an_answer_that_is_no_object(server: Server, client: ApiClient, body: bytes) -> None:
    server.answers = [(200, {}, body)]
    with pytest.raises(ClusterError, match="not a JSON object"):
        list_pods(client)


# -- configuration ----------------------------------------------------------------------------------------------


def test_of_several_files_the_first_current_context_counts_as_for_kubectl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = kubeconfig(tmp_path / "one", "https://one:6443", name="one")
    two = kubeconfig(tmp_path / "two", "https://two:6443", name="two")
    monkeypatch.setenv("KUBECONFIG", f"{one}:{tmp_path}/missing:{two}")
    access = load()
    assert (access.context, access.server, access.namespace) == ("one", "https://one:6443", "ns-of-one")
    assert load(context="two").server == "https://two:6443"


def test_an_unknown_context_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no context 'nosuch'.*here"):
        load(str(kubeconfig(tmp_path / "config", "https://x")), "nosuch")


@pytest.mark.parametrize("text", ["", "{", "[]", "a: b", "!!python/object:os.system {}"])
def test_a_file_that_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ClusterError, match="kubeconfig"):
        load(str(path))


@pytest.mark.parametrize("field", ["clusters", "contexts", "users"])
def test_a_scalar_for_a_list_in_a_kubeconfig_is_named(tmp_path: Path, field: str) -> None:
    path = kubeconfig(tmp_path / "config", "https://x")
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: 5}))
    with pytest.raises(ClusterError) as caught:
        load(str(path))
    assert str(path) in caught.value.text
    assert f" {field} " in caught.value.text


def test_a_response_that_is_too_large_is_an_error(
    server: Server, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_client, "_LONGEST_BODY", 1 << 20)
    server.answers = [(200, {}, {"items": ["x" * (1 << 20)]})]
    with pytest.raises(ClusterError, match="1 MiB"):
        list_pods(client)


def test_no_configuration_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterError, match="no such file"):
        load()


def test_an_exec_plugin_gives_the_token_and_its_complaint_is_shown(server: Server, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        '#!/bin/sh\necho \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        '"status":{"token":"from-plugin"}}\'\n'
    )
    plugin.chmod(0o755)
    spec = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(plugin),
        "interactiveMode": "Never",
    }
    list_pods(ApiClient(load(str(kubeconfig(tmp_path / "config", server.address, exec=spec)))))
    assert server.asked[0][3]["authorization"] == "Bearer from-plugin"
    plugin.write_text("#!/bin/sh\necho please log in >&2\nexit 1\n")
    with pytest.raises(ClusterError, match="credentials"):
        load(str(tmp_path / "config"))


def test_a_proxy_is_used_but_not_for_what_no_proxy_names(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.address)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    path = str(kubeconfig(tmp_path / "config", "http://api_client.example.org"))
    list_pods(connect(path))
    assert server.asked[0][2] == "http://api_client.example.org/api/v1/namespaces/ml/pods"
    monkeypatch.setenv("NO_PROXY", "example.org")
    with pytest.raises(ApiUnreachable):
        ApiClient(load(path), patience=0.2).call("GET", POD.path("ml"), POD.call("list", "ml"))
    assert len(server.asked) == 1
