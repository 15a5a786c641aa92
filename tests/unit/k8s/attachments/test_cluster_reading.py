"""What is read from the cluster for ``torchnet network lint -n`` and ``show``, and by users who may read little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit import api_answers
from tests.unit.api_store import Store, forbidden, refusal, storing
from tests.unit.attachments import config, plugin
from tests.unit.attachments_stored import NAD, attach, pool, put, running
from torchnet.constants import NETWORKS_ANNOTATION, STATUS_ANNOTATION
from torchnet.errors import NetworkError
from torchnet.k8s.addons import network_attachment
from torchnet.k8s.addons.addon_options import BACKEND, parse
from torchnet.k8s.attachments.address_listing import list_addresses
from torchnet.k8s.attachments.cluster_state import ClusterState
from torchnet.k8s.attachments.namespace_lint import lint_namespace
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal

POOL = {"type": "whereabouts", "range": "10.9.0.0/28"}

store = pytest.fixture(storing)


@pytest.fixture
def client(store: Store, tmp_path: Path) -> ApiClient:
    for name in ("node1", "node2"):
        put(store, "Node", name)
    return api_answers.client(store, tmp_path)


def annotated(store: Store, name: str, text: str, owner: str = "") -> None:
    put(store, "Pod", name, status={"phase": "Running"})
    meta = store.objects[f"/api/v1/namespaces/ml/pods/{name}"]["metadata"]
    meta["annotations"] = {NETWORKS_ANNOTATION: text}
    meta["ownerReferences"] = [{"uid": owner}] if owner else []


def test_a_namespace_is_checked_with_its_pods_and_against_others(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL), cniVersion=None))
    attach(store, config(plugin("macvlan", ipam=POOL)), "other", "a")
    annotated(store, "p", "net@net1")
    annotated(store, "q", "missing@net1")
    found = lint_namespace(client, "ml")
    assert found.checked == ("ml/net", "Pod ml/p", "Pod ml/q")
    assert [(one.where, one.field) for one in found.findings] == [
        ("ml/net", "cniVersion"),
        ("ml/net", "plugins[0].type"),
        ("Pod ml/q", "[0].name"),
    ]
    assert found.skipped == ()


def test_the_pods_of_one_job_count_once(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    for number in range(3):
        annotated(store, f"p{number}", "net", owner="job")
    assert lint_namespace(client, "ml").checked == ("ml/net", "Pod ml/p0")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_pods_that_have_ended_are_left_out(store: Store, client: ApiClient, phase: str) -> None:
    attach(store, config(plugin(ipam=POOL)))
    annotated(store, "old", "missing@net1")
    store.objects["/api/v1/namespaces/ml/pods/old"]["status"] = {"phase": phase}
    assert lint_namespace(client, "ml").checked == ("ml/net",)


def test_the_number_of_nodes_decides_what_they_share(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(mode="l3", ipam=POOL)))
    assert len(lint_namespace(client, "ml").faults) == 1
    del store.objects["/api/v1/nodes/node2"]
    assert lint_namespace(client, "ml").faults == ()


def test_what_may_not_be_read_is_named(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    store.faults = [
        ("GET", f"cni.cncf.io/v1/{NAD}", forbidden(NAD)),
        ("GET", "/pods", forbidden("pods")),
        ("GET", "/nodes", forbidden("nodes")),
    ]
    found = lint_namespace(client, "ml")
    assert found.checked == ("ml/net",)
    assert [line.partition(":")[0] for line in found.skipped] == [
        "attachments of other namespaces are not compared",
        "the pods' annotations are not checked",
        "the number of nodes is taken to be more than one",
    ]
    store.faults = [("GET", NAD, forbidden(NAD))]
    with pytest.raises(ApiRefusal, match="not allowed to list network-attachment-definitions"):
        lint_namespace(client, "ml")


def test_a_cluster_without_multus_is_named(store: Store, client: ApiClient) -> None:
    store.faults = [
        ("GET", NAD, refusal(404, "NotFound", "the server could not find the requested resource"))
    ]
    with pytest.raises(NetworkError, match="Multus is not installed") as caught:
        lint_namespace(client, "ml")
    assert caught.value.exit_code == 4


# -- a file on each node -----------------------------------------------------------------------------------------


def sliced(store: Store) -> None:
    given: dict[str, Any] = {
        "namespace": "ml",
        "slices": [f"node{n}=fcbb:0:800:ffff:{n}::/80" for n in (1, 2)],
    }
    bodies = [dict(one.body) for one in network_attachment.manifests(parse(BACKEND, given))]
    for body in bodies[:2]:
        meta = body["metadata"]
        put(store, body["kind"], meta["name"], body["apiVersion"], meta["namespace"], data=body.get("data"))


def written(store: Store, name: str, node: str, ready: str) -> None:
    put(
        store,
        "Pod",
        name,
        namespace="kube-system",
        spec={"nodeName": node},
        status={"conditions": [{"type": "Ready", "status": ready}]},
    )
    meta = store.objects[f"/api/v1/namespaces/kube-system/pods/{name}"]["metadata"]
    meta["labels"] = {"app": "backend-network-slices"}


def test_the_files_of_the_nodes_are_checked(store: Store, client: ApiClient) -> None:
    sliced(store)
    written(store, "a", "node1", "True")
    assert lint_namespace(client, "ml").findings == ()
    written(store, "b", "node2", "False")
    put(store, "Node", "node3")
    found = lint_namespace(client, "ml")
    assert [(one.level, one.text) for one in found.findings] == [
        ("warning", "no part of the range for node3"),
        ("fault", "the file is missing or old on node2"),
    ]


def test_files_that_may_not_be_read_are_named(store: Store, client: ApiClient) -> None:
    sliced(store)
    store.faults = [("GET", "/configmaps/", forbidden("configmaps"))]
    found = lint_namespace(client, "ml")
    assert found.skipped[0].startswith(
        "ml/backend-network: the files of the nodes are not checked: not allowed to get"
    )


def test_files_that_attachments_of_one_name_share_are_read_once(store: Store, client: ApiClient) -> None:
    """They are one file on each node, and so one memory of host-local's allocations."""
    sliced(store)
    put(store, "NetworkAttachmentDefinition", "backend-network", "k8s.cni.cncf.io/v1", "research")
    found = lint_namespace(client, "ml")
    assert (found.checked, found.findings) == (("ml/backend-network",), ())
    assert store.wanted("GET", "/configmaps/") == 1
    assert store.wanted("GET", "labelSelector=app") == 1


def test_the_files_of_other_namespaces_are_no_concern_of_this_user(store: Store, client: ApiClient) -> None:
    sliced(store)
    store.faults = [("GET", "/configmaps/", forbidden("configmaps"))]
    assert lint_namespace(client, "other").skipped == ()


# -- show --------------------------------------------------------------------------------------------------------


def test_the_addresses_of_an_attachment(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    running(store, "a")
    pool(store, "ml/a", "ml/gone", "other/gone")
    found = list_addresses(client, "ml", "net")
    assert [(row.pod, row.state, row.is_stale) for row in found.table.rows] == [
        ("ml/a", "Running", False),
        ("ml/gone", "gone", True),
        ("other/gone", "gone", True),
    ]
    assert found.skipped == ()
    (use,) = found.table.uses
    assert use.free == 11


def test_of_each_pod_little_is_kept(store: Store, client: ApiClient) -> None:
    """A large cluster has 50,000, and 10 kB for each."""
    put(
        store, "Pod", "a", spec={"nodeName": "node1", "containers": ["x" * 5000]}, status={"phase": "Running"}
    )
    body = store.objects["/api/v1/namespaces/ml/pods/a"]
    body["metadata"] |= {"annotations": {STATUS_ANNOTATION: "[]", "z": "y"}, "managedFields": ["x" * 5000]}
    (found,) = ClusterState(client).pods(["ml"]).bodies.values()
    assert found == {
        "metadata": {"name": "a", "namespace": "ml", "annotations": {STATUS_ANNOTATION: "[]"}},
        "spec": {"nodeName": "node1"},
        "status": {"phase": "Running"},
    }


def test_pods_of_other_namespaces_may_be_unknown(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    pool(store, "ml/gone", "other/b", "third/c")
    running(store, "x")
    store.faults = [
        ("GET", "/api/v1/pods", forbidden("pods")),
        ("GET", "/namespaces/other/pods", forbidden("pods")),
    ]
    found = list_addresses(client, "ml", "net")
    assert [(row.pod, row.state) for row in found.table.rows] == [
        ("ml/gone", "gone"),
        ("other/b", "unknown"),
        ("third/c", "gone"),
    ]
    assert found.skipped[0].startswith("the pods of other are unknown: not allowed to list pods")


def test_without_the_pools_the_pods_are_shown(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    put(store, "Pod", "a", status={"phase": "Running"}, spec={})
    status = [{"name": "ml/net", "interface": "net1", "ips": ["10.9.0.3"]}]
    meta = store.objects["/api/v1/namespaces/ml/pods/a"]["metadata"]
    meta["annotations"] = {STATUS_ANNOTATION: json.dumps(status)}
    store.faults = [("GET", "/ippools", forbidden("ippools"))]
    found = list_addresses(client, "ml", "net")
    assert [(str(row.address), row.pod) for row in found.table.rows] == [("10.9.0.3", "ml/a")]
    assert found.skipped[0].startswith("Whereabouts' pools are not read")


def test_an_attachment_that_does_not_exist(store: Store, client: ApiClient) -> None:
    with pytest.raises(ApiRefusal) as caught:
        list_addresses(client, "ml", "net")
    assert caught.value.status == 404
