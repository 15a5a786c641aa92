"""What is refused before anything is made, and with which of the exit codes for people's scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit import api_answers
from tests.unit.api_answers import Answer, Server, serving
from torchnet.errors import ClusterError, NetworkError, UsageError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.run.creation import check, check_pod
from torchnet.network.attachment import NetworkAttachment

MISSING: Answer = (404, {}, {"reason": "NotFound", "message": "not found"})
TAKEN: Answer = (200, {}, {})

server = pytest.fixture(serving)
client = pytest.fixture(api_answers.client)


def body(api: str, kind: str, **meta: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "train-1", "namespace": "ml"} | meta}


OBJECTS = [body("v1", "ConfigMap"), body("batch/v1", "Job")]
POD = body("v1", "Pod") | {"spec": {}}
ATTACHMENTS = [NetworkAttachment("ml", "backend-network", "net1")] * 2


def test_a_namespace_that_is_not_there_is_the_clusters_word_not_the_networks(
    server: Server, client: ApiClient
) -> None:
    """Nor is an attachment in it, which is not what is wrong."""
    server.answers = [MISSING, (404, {}, {"message": 'namespaces "ml" not found'}), MISSING]
    with pytest.raises(ClusterError, match='namespaces "ml" not found') as caught:
        check(client, OBJECTS, POD, ATTACHMENTS)
    assert (caught.value.exit_code, caught.value.fix) == (3, "kubectl create namespace ml, or -n NAMESPACE")


def test_an_attachment_that_is_not_there_is_the_networks(server: Server, client: ApiClient) -> None:
    listed: Answer = (200, {}, {"items": [{"metadata": {"name": "other"}}]})
    server.answers = [MISSING, TAKEN, TAKEN, MISSING, listed]
    with pytest.raises(NetworkError, match="network attachment backend-network .* other") as caught:
        check(client, OBJECTS, POD, ATTACHMENTS)
    assert caught.value.exit_code == 4
    assert [asked[1] for asked in server.asked] == ["GET", "POST", "POST", "GET", "GET"]
    assert all("dryRun=All" in path for _, method, path, _ in server.asked if method == "POST")


def attachment(range_: str) -> Answer:
    ipam = {"type": "whereabouts", "range": range_}
    config = {"cniVersion": "1.0.0", "type": "macvlan", "master": "ens5", "ipam": ipam}
    return 200, {}, {"spec": {"config": json.dumps(config)}}


NONE: Answer = (200, {}, {"items": []})  # what may be listed; the attachments are read by their names


def test_a_range_that_is_too_small_for_all_rails_is_refused(server: Server, client: ApiClient) -> None:
    server.answers = [MISSING, TAKEN, TAKEN, attachment("10.0.0.0/29"), NONE, MISSING, NONE, TAKEN]
    (line,) = check(client, OBJECTS, POD, ATTACHMENTS, 3)
    assert "net1 and net1 get addresses of 10.0.0.0/29" in line
    asked = [path.partition("?")[0] for _, _, path, _ in server.asked]
    assert len([path for path in asked if path.endswith("/backend-network")]) == 1, "it is read once"
    assert asked[5].endswith("/namespaces/kube-system/ippools/10.0.0.0-29")
    server.answers = [MISSING, TAKEN, TAKEN, attachment("10.0.0.0/29"), NONE, MISSING, NONE]
    with pytest.raises(NetworkError, match="4 workers with 2 interfaces each, 6 addresses free of 6"):
        check(client, OBJECTS, POD, ATTACHMENTS, 4)


def test_addresses_that_take_minutes_are_told(server: Server, client: ApiClient) -> None:
    server.answers = [MISSING, TAKEN, TAKEN, attachment("10.0.0.0/16"), NONE, MISSING, NONE, TAKEN]
    line = check(client, OBJECTS, POD, ATTACHMENTS, 500)[-1]
    assert "the workers' 1000 addresses take about 9 min" in line


def test_an_attachment_that_may_not_be_read_is_named_and_no_failure(
    server: Server, client: ApiClient
) -> None:
    text = 'network-attachment-definitions "backend-network" is forbidden: User "x" cannot get resource'
    forbidden: Answer = (403, {}, {"reason": "Forbidden", "message": text})
    # Of the attachment, of all attachments, and of the namespace's.
    server.answers = [MISSING, TAKEN, TAKEN, *[forbidden] * 5, TAKEN]
    (line,) = check(client, OBJECTS, POD, ATTACHMENTS)
    assert line.startswith("network attachment ml/backend-network is not checked: not allowed to get ")
    assert "dryRun=All" in server.asked[-1][2], "the pod is still tried"


GROUP: Answer = (200, {}, {"preferredVersion": {"version": "v1beta2"}})
KUEUE = "kueue.x-k8s.io"
QUEUED = [
    OBJECTS[0],
    body("batch/v1", "Job", labels={f"{KUEUE}/queue-name": "team-a", f"{KUEUE}/priority-class": "p"}),
]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([MISSING], "--queue team-a: the cluster does not have Kueue"),
        ([GROUP, MISSING], "--queue team-a: namespace ml has no LocalQueue of this name"),
        ([GROUP, TAKEN, MISSING], "--workload-priority p: the cluster has no WorkloadPriorityClass"),
    ],
)
def test_a_queue_that_is_not_there_would_be_waited_for_without_end(
    server: Server, client: ApiClient, answers: list[Answer], said: str
) -> None:
    server.answers = [MISSING, *answers]
    with pytest.raises(UsageError, match=said) as caught:
        check(client, QUEUED, POD, [])
    assert caught.value.fix
    assert [asked[1] for asked in server.asked] == ["GET"] * (1 + len(answers)), "nothing was tried"


def queued(one: dict[str, Any]) -> Answer:
    """What the server makes of an object where Kueue has a LocalQueue "default"."""
    return 201, {}, one | {"metadata": one["metadata"] | {"labels": {f"{KUEUE}/queue-name": "default"}}}


def test_a_queue_that_nobody_asked_for_is_refused(server: Server, client: ApiClient) -> None:
    """Kueue's webhook sets it; for plain pods, on the one that is tried."""
    job: list[Answer] = [MISSING, TAKEN, queued(OBJECTS[1])]
    pods: list[Answer] = [MISSING, TAKEN, queued(POD)]
    for objects, answers in ((OBJECTS, job), ([OBJECTS[0], POD], pods)):
        server.answers = answers
        count = len(server.asked) + len(answers)
        with pytest.raises(
            UsageError, match="namespace ml without a queue into LocalQueue default"
        ) as caught:
            check(client, objects, POD, [])
        assert caught.value.fix == "--queue default"
        assert len(server.asked) == count
    server.answers = [queued(POD)]
    with pytest.raises(UsageError, match="LocalQueue default"):
        check_pod(client, POD)


def test_a_run_in_a_queue_may_have_a_pod_that_would_be_queued_by_itself(
    server: Server, client: ApiClient
) -> None:
    server.answers = [MISSING, GROUP, TAKEN, TAKEN, TAKEN, (201, {}, QUEUED[1]), queued(POD)]
    assert check(client, QUEUED, POD, []) == []
    assert len(server.asked) == 7


def test_a_queue_that_may_not_be_read_is_no_reason_against_a_launch(
    server: Server, client: ApiClient
) -> None:
    said = 'localqueues.kueue.x-k8s.io is forbidden: User "eve" cannot get resource "localqueues"'
    forbidden: Answer = (403, {}, {"reason": "Forbidden", "message": said})
    server.answers = [MISSING, GROUP, forbidden, forbidden, TAKEN]
    check(client, QUEUED, POD, [])
    paths = [path.removeprefix(f"/apis/{KUEUE}") for _, _, path, _ in server.asked]
    assert paths[1:4] == [
        *("", "/v1beta2/namespaces/ml/localqueues/team-a"),
        "/v1beta2/workloadpriorityclasses/p",
    ]
