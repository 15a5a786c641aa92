"""What a launch says about its attachments before anything is created, against a server that keeps objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit import api_answers
from tests.unit.api_store import Store, forbidden, refusal, storing
from tests.unit.attachments import Body, config, plugin
from tests.unit.attachments_stored import NAD, attach, pool, put, running, sliced
from torchnet.constants import NETWORKS_ANNOTATION, QUEUE_LABEL, STATUS_ANNOTATION
from torchnet.errors import NetworkError
from torchnet.k8s.attachments import free_addresses
from torchnet.k8s.attachments.launch_check import check_launch
from torchnet.k8s.client.api_client import ApiClient
from torchnet.network.attachment import NetworkAttachment

POOL = {"type": "whereabouts", "range": "10.9.0.0/28"}  # 14 addresses
RAILS = [NetworkAttachment("ml", "net", "net1")]
POD: Body = {"metadata": {"name": "train-0", "namespace": "ml"}}

store = pytest.fixture(storing)


@pytest.fixture
def client(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ApiClient:
    monkeypatch.setattr(free_addresses, "PAUSE", 0.01)
    return api_answers.client(store, tmp_path)


def job(workers: int, **labels: str) -> Body:
    return {
        "kind": "Job",
        "metadata": {"name": "train", "namespace": "ml", "labels": labels},
        "spec": {"completions": workers},
    }


def checked(
    client: ApiClient, workers: int = 2, pod: Body = POD, rails: list[NetworkAttachment] = RAILS
) -> list[str]:
    return check_launch(client, [job(workers)], pod, rails, workers)


def test_a_good_attachment_says_nothing(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    assert checked(client) == []
    assert store.wanted("GET", "/pods") == 0, "nobody asks for pods while there are addresses"


def test_without_attachments_nothing_is_asked(store: Store, client: ApiClient) -> None:
    assert checked(client, rails=[]) == []
    assert store.asked == []


def test_what_no_pod_can_use_is_refused_with_all_faults(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL, mode="x"), cniVersion=None))
    with pytest.raises(NetworkError, match="2 faults") as caught:
        checked(client)
    assert "ml/net: cniVersion: missing" in caught.value.text
    assert caught.value.fix == "torchnet network lint -n ml"
    attach(store, "{")
    with pytest.raises(
        NetworkError, match="network attachment ml/net: the configuration is not a JSON object"
    ):
        checked(client)


def test_what_the_preflight_decides_is_only_named(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL, mode="l3")))
    for name in ("node1", "node2"):
        put(store, "Node", name)
    (line,) = checked(client)
    assert line.startswith("network attachment ml/net: plugins[0].mode: l3 with one range for all nodes")
    del store.objects["/api/v1/nodes/node2"]
    assert checked(client) == [], "a single node has no routes to others"


def test_warnings_are_left_to_lint(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL | {"enable_ipv6": True})))
    assert checked(client) == []


def test_attachments_of_other_namespaces_are_compared(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    attach(store, config(plugin("macvlan", ipam=POOL)), "other", "a")
    (line,) = checked(client)
    assert "ipvlan on ens5, which has macvlan in a/other" in line


def annotated(**entry: object) -> Body:
    asked = [{"name": "net", "namespace": "ml", "interface": "net1", **entry}]
    meta = {"name": "p", "namespace": "ml", "annotations": {NETWORKS_ANNOTATION: json.dumps(asked)}}
    return {"metadata": meta}


def test_fixed_addresses_reach_only_a_plugin_that_declares_them(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam={"type": "static"}, capabilities={"ips": True})))
    pod = annotated(ips=["10.9.0.7/28"])
    assert checked(client, pod=pod) == []
    attach(store, config(plugin(ipam=POOL)))
    (line,) = checked(client, pod=pod)
    assert "Whereabouts allocates an address all the same" in line
    with pytest.raises(NetworkError, match="15 workers, 14 addresses free"):
        checked(client, 15, pod=pod)


def test_static_without_addresses_is_refused(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam={"type": "static"}, capabilities={"ips": True})))
    with pytest.raises(NetworkError, match="the IPAM plugin static gives no address without it") as caught:
        checked(client, pod=annotated())
    assert caught.value.text.startswith("the annotation k8s.v1.cni.cncf.io/networks: [0].ips: missing")
    assert "torchnet launch --static-ips" in caught.value.fix


def test_rails_with_one_prefix_are_named(store: Store, client: ApiClient) -> None:
    for name, network in (("net", "10.9.0.0/28"), ("second", "10.9.0.0/24"), ("third", "10.10.0.0/28")):
        ipam = {"type": "whereabouts", "range": network}
        attach(store, config(plugin(ipam=ipam, master=name)), name)
    rails = [NetworkAttachment("ml", name, f"net{n}") for n, name in enumerate(("net", "third", "second"), 1)]
    (line,) = checked(client, rails=rails)
    assert line.startswith("network attachment ml/second: net1 and net3 get addresses of 10.9.0.0/2")
    assert "through one of them" in line
    assert checked(client, rails=rails[:2]) == []
    devices = [NetworkAttachment("ml", "net", f"net{n}", "example.com/vf") for n in (1, 2)]
    assert checked(client, rails=devices) == [], "RDMA chooses its device itself"


def test_what_could_not_be_read_keeps_what_was_found(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL, mode="l3")))
    store.faults = [("GET", "/ippools", refusal(410, "Expired", "too old"))]
    first, second = checked(client)
    assert "l3 with one range for all nodes" in first
    assert second.startswith("the network attachments are not checked completely")


def test_a_resource_that_the_pods_do_not_request_is_named(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    (path,) = [one for one in store.objects if NAD in one]
    store.objects[path]["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/resourceName": "example.com/vf"}
    (line,) = checked(client)
    assert "must request example.com/vf" in line
    assert line.endswith("fix: --network ml/net=example.com/vf")
    assert checked(client, rails=[NetworkAttachment("ml", "net", "net1", "example.com/vf")]) == []


# -- addresses ---------------------------------------------------------------------------------------------------


def test_addresses_of_pods_that_are_gone_are_named(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    running(store, "a", "b")
    pool(store, "ml/a", "ml/b", *(f"ml/gone-{number}" for number in range(6)))
    assert checked(client, 6) == []
    with pytest.raises(NetworkError) as caught:
        checked(client, 16)
    said = "16 workers, 6 addresses free of 14 in 10.9.0.0/28, 6 held by pods that are gone, 2 held by running pods"
    assert said in caught.value.text
    assert caught.value.fix.startswith("torchnet network show ml/net; ")


def status(network: str, *ips: str) -> Body:
    entry = [{"name": f"ml/{network}", "interface": "net1", "ips": list(ips)}]
    return {"annotations": {STATUS_ANNOTATION: json.dumps(entry)}}


def test_holders_are_called_what_they_are(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    running(store, "a", "moved")
    running(store, "b", phase="Pending")
    (path,) = [one for one in store.objects if one.endswith("/moved")]
    store.objects[path]["metadata"] |= status("net", "10.9.0.9")
    pool(store, "ml/a", "ml/b", "ml/moved", "ml/gone")
    with pytest.raises(NetworkError) as caught:
        checked(client, 16)
    said = (
        "10 addresses free of 14 in 10.9.0.0/28, 1 held by pods that are gone, 1 held by pods that have another "
        "address, 1 held by running pods, 1 held by pending pods"
    )
    assert said in caught.value.text


def test_the_address_of_a_pod_that_ends_is_no_lease_unless_it_was_leased(
    store: Store, client: ApiClient
) -> None:
    """Its end frees nothing: it requested the address itself, or the lease is of an address that is excluded now."""
    attach(store, config(plugin(ipam=POOL | {"exclude": ["10.9.0.14/31"]})))
    running(store, *(f"p{number}" for number in range(13)))
    running(store, "fixed", "late", phase="Failed")
    (path,) = [one for one in store.objects if one.endswith("/fixed")]
    store.objects[path]["metadata"] |= status("net", "10.9.0.200")
    store.objects[path]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    store.objects[path]["status"]["phase"] = "Running"
    pool(store, *(f"ml/p{number}" for number in range(13)), "ml/late")
    with pytest.raises(NetworkError, match="1 worker, 0 addresses free of 13") as caught:
        checked(client, 1)
    assert caught.value.text.endswith("13 held by running pods")


def test_leases_that_end_soon_are_waited_for(
    store: Store, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach(store, config(plugin(ipam=POOL)))
    pool(store, *(f"ml/gone-{number}" for number in range(6)))
    waited = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        pool(store)
        return False

    monkeypatch.setattr(client.stop, "wait", wait)
    assert checked(client, 10) == []
    assert waited == [0.01]


def test_addresses_of_running_pods_are_not_waited_for(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    names = [f"p{number}" for number in range(13)]
    running(store, *names)
    pool(store, *(f"ml/{name}" for name in names))
    with pytest.raises(NetworkError, match="2 workers, 1 address free of 14 in .*, 13 held by running pods"):
        checked(client)
    assert store.wanted("GET", "/ippools") == 1


def test_addresses_of_pods_that_are_ending_are_enough(store: Store, client: ApiClient) -> None:
    """As after a preemption: the kubelet frees them while it tries to start the new pods."""
    attach(store, config(plugin(ipam=POOL)))
    running(store, *(f"p{number}" for number in range(13)), phase="Failed")
    pool(store, *(f"ml/p{number}" for number in range(13)))
    (line,) = checked(client, 14)
    assert "14 workers, 1 address free of 14 in 10.9.0.0/28, 13 held by pods that are ending" in line
    assert store.wanted("GET", "/ippools") == 1
    with pytest.raises(NetworkError, match="15 workers"):
        checked(client, 15)


def test_lines_about_other_things_survive_a_second_look(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    pool(store, *(f"ml/gone-{number}" for number in range(12)), "other/x")
    everywhere = f"k8s.cni.cncf.io/v1/{NAD}"
    store.faults = [
        ("GET", everywhere, forbidden(NAD)),
        ("GET", "/namespaces/other/pods", forbidden("pods")),
    ]
    with pytest.raises(
        NetworkError, match="1 held by other pods; the pods of other are unknown: .*"
    ) as caught:
        checked(client)
    assert caught.value.text.count("unknown") == 1
    assert store.wanted("GET", "/ippools") == free_addresses.ATTEMPTS
    pool(store)
    (line,) = checked(client)
    assert "attachments of other namespaces are not compared" in line


def test_a_queue_may_start_the_pods_later_unless_the_range_is_too_small(
    store: Store, client: ApiClient
) -> None:
    attach(store, config(plugin(ipam=POOL)))
    running(store, *(f"p{number}" for number in range(13)))
    pool(store, *(f"ml/p{number}" for number in range(13)))
    (line,) = check_launch(client, [job(2, **{QUEUE_LABEL: "team"})], POD, RAILS, 2)
    assert "1 address free" in line
    with pytest.raises(NetworkError, match="15 workers, 1 address free of 14"):
        check_launch(client, [job(15, **{QUEUE_LABEL: "team"})], POD, RAILS, 15)


@pytest.mark.parametrize(
    ("ipam", "count"),
    [
        ({"range": "10.0.0.0/29"}, 6),
        ({"range": "10.0.0.5/29"}, 6),
        ({"range": "10.0.0.0/24", "range_start": "10.0.0.10", "range_end": "10.0.0.19"}, 10),
        ({"range": "10.0.0.10-10.0.0.19/24"}, 10),
        ({"range": "10.0.0.0/28", "exclude": ["10.0.0.0/30", "10.0.0.2/31", "fd00::/8"]}, 11),
        ({"range": "fd00::/126"}, 2),
        ({"range": "fd00::/64", "ipRanges": [{"range": "10.0.0.0/30"}]}, 2),
    ],
)
def test_a_range_with_fewer_addresses_than_workers_is_refused(
    store: Store, client: ApiClient, ipam: Body, count: int
) -> None:
    attach(store, config(plugin(ipam={"type": "whereabouts"} | ipam)))
    assert checked(client, count) == []
    with pytest.raises(NetworkError, match=f"{count} addresses free of {count} in ") as caught:
        checked(client, count + 1)
    assert "--slice" in caught.value.fix
    assert "--static-ips with an attachment of --ipam static" in caught.value.fix


def test_many_addresses_take_minutes_also_beside_a_shortage(store: Store, client: ApiClient) -> None:
    """All attachments share the Lease; those with node slices have one for each node."""
    for number in (1, 2):
        ipam = {"type": "whereabouts", "range": f"10.1{number}.0.0/16"}
        attach(store, config(plugin(ipam=ipam)), f"n{number}")
    rails = [NetworkAttachment("ml", f"n{number}", f"net{number}") for number in (1, 2)]
    (line,) = checked(client, 200, rails=rails)
    assert "the workers' 400 addresses take about 3 min 40 s" in line
    attach(store, config(plugin(ipam=POOL | {"range": "10.11.0.0/16", "node_slice_size": "/24"})), "n1")
    assert checked(client, 300, rails=rails[:1]) == []
    attach(store, config(plugin(ipam=POOL | {"range": "10.9.0.0/23"})))
    pool(store, *(f"ml/p{number}" for number in range(500)), name="10.9.0.0-23", network="10.9.0.0/23")
    running(store, *(f"p{number}" for number in range(500)))
    first, last = check_launch(client, [job(500, **{QUEUE_LABEL: "team"})], POD, RAILS, 500)
    assert "500 workers, 10 addresses free" in first
    assert "500 addresses take" in last


def test_parts_of_nodes_are_too_uneven_for_a_refusal(store: Store, client: ApiClient) -> None:
    ipam = POOL | {"range": "10.9.0.0/26", "node_slice_size": "/28"}
    attach(store, config(plugin(ipam=ipam)))
    pool(store, "ml/old", name="10.9.0.0-26", network="10.9.0.0/26")  # of the time before there were parts
    pool(store, *(f"ml/p{number}" for number in range(14)), name="node1-10.9.0.0-28")
    running(store, *(f"p{number}" for number in range(14)))
    assert checked(client, 42) == []
    (line,) = checked(client, 43)
    assert "43 workers, 42 addresses free of 56 in 10.9.0.0/26, 14 held by running pods" in line


def test_rails_that_share_a_pool_need_its_addresses_together(store: Store, client: ApiClient) -> None:
    for name in ("net", "net-2"):
        attach(store, config(plugin(ipam=POOL)), name)
    rails = [
        NetworkAttachment("ml", name, f"net{number}")
        for number, name in enumerate(("net", "net", "net-2"), 1)
    ]
    assert [line for line in checked(client, 4, rails=rails) if "free" in line] == []
    with pytest.raises(NetworkError, match="5 workers with 3 interfaces each, 14 addresses free of 14"):
        checked(client, 5, rails=rails)


def test_attachments_with_parts_of_a_pool_are_counted_each_within_its_bounds(
    store: Store, client: ApiClient
) -> None:
    """10.9.0.1 to .4, and .5 to .14 of one pool; the third attachment may allocate from all of it."""
    for name, more in (
        ("net", {"range_end": "10.9.0.4"}),
        ("high", {"range_start": "10.9.0.5"}),
        ("all", {}),
    ):
        attach(store, config(plugin(ipam=POOL | more)), name)
    low, high, both = (NetworkAttachment("ml", name, f"net-{name}") for name in ("net", "high", "all"))

    def free(workers: int, *rails: NetworkAttachment) -> list[str]:
        return [line for line in checked(client, workers, rails=list(rails)) if "free" in line]

    assert free(4, low, high) == []
    with pytest.raises(NetworkError, match="5 workers, 4 addresses free of 4"):
        free(5, high, low)
    assert free(4, low, high, both) == []
    with pytest.raises(NetworkError, match="10 workers with 2 interfaces each, 14 addresses free of 14"):
        free(10, high, both)


def test_the_files_of_other_attachments_are_not_read(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    put(store, "NetworkAttachmentDefinition", "files", "k8s.cni.cncf.io/v1", "other")
    assert checked(client) == []
    assert store.wanted("GET", "/configmaps") == 0
    put(store, "NetworkAttachmentDefinition", "net", "k8s.cni.cncf.io/v1")
    (line,) = checked(client)
    assert "ml/net has no spec" in line


def test_whereabouts_may_be_in_another_namespace(store: Store, client: ApiClient) -> None:
    """As on OpenShift. A pool of which nobody has an address does not exist."""
    attach(store, config(plugin(ipam=POOL)))
    pool(store, *(f"ml/p{number}" for number in range(13)))
    running(store, *(f"p{number}" for number in range(13)))
    (path,) = [one for one in store.objects if "ippools" in one]
    body = store.objects.pop(path)
    body["metadata"]["namespace"] = "openshift-multus"
    store.objects[path.replace("kube-system", "openshift-multus")] = body
    pool(store, name="other")
    with pytest.raises(NetworkError, match="2 workers, 1 address free of 14"):
        checked(client)
    assert store.wanted("GET", r"v1alpha1/ippools\?.*metadata.name") == 1, "not all pools are read"
    store.faults = [("GET", r"v1alpha1/ippools", forbidden("ippools"))]
    assert checked(client) == []


# -- what may not be read ------------------------------------------------------------------------------------------


def test_without_the_right_to_list_pools_the_range_still_counts(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    store.faults = [("GET", "/ippools", forbidden("ippools"))]
    (line,) = checked(client, 14)
    assert line.startswith("not checked before the start: Whereabouts' pools")
    said = (
        "15 workers, at most 14 addresses in 10.9.0.0/28; Whereabouts' pools are not read: not allowed to get"
    )
    with pytest.raises(NetworkError, match=said):
        checked(client, 15)


def test_a_tenant_gets_one_line(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    everywhere = f"k8s.cni.cncf.io/v1/{NAD}"
    store.faults = [("GET", everywhere, forbidden(NAD)), ("GET", "/ippools", forbidden("ippools"))]
    (line,) = checked(client)
    assert "attachments of other namespaces are not compared: not allowed to list" in line
    assert "Whereabouts' pools are not read: not allowed to get" in line


def test_attachments_that_may_not_be_read_are_left_to_another_check(store: Store, client: ApiClient) -> None:
    store.faults = [("GET", NAD, forbidden(NAD))]
    assert checked(client) == []


def test_an_attachment_that_may_only_be_read_by_its_name_is_checked(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL), cniVersion=None))
    store.faults = [("GET", rf"/{NAD}(\?|$)", forbidden(NAD))]
    with pytest.raises(NetworkError, match="cniVersion"):
        checked(client)


def test_a_cluster_without_whereabouts_has_no_pools(store: Store, client: ApiClient) -> None:
    attach(store, config(plugin(ipam=POOL)))
    store.faults = [
        ("GET", "/ippools", refusal(404, "NotFound", "the server could not find the requested resource"))
    ]
    assert checked(client) == []


# -- parts of the range, one for each node -------------------------------------------------------------------------


def test_parts_that_are_too_small_together_are_named(store: Store, client: ApiClient) -> None:
    """In a mode that routes, a part of 16 addresses has 13: host-local gives nobody the gateway's."""
    sliced(store, "node1=10.9.0.0/28", "node2=10.9.0.16/28", mode="l3")
    assert checked(client, 26) == []
    with pytest.raises(
        NetworkError, match="27 workers, at most 26 addresses in the parts of the range of 2 nodes"
    ):
        checked(client, 27)
    rails = [*RAILS, NetworkAttachment("ml", "net", "net2")]
    with pytest.raises(NetworkError, match="14 workers with 2 interfaces each, at most 26"):
        checked(client, 14, rails=rails)
