"""What torchnet verify looks at before it creates pods, against a server that answers in order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit import api_answers
from tests.unit.api_answers import Answer, Server, serving
from tests.unit.verify_reports import OPTIONS
from torchnet.errors import ClusterError
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.verify import verification
from torchnet.k8s.verify.check import Check
from torchnet.k8s.verify.installation import Installation, check_configuration

NODES = ["node1", "node2"]
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
RANGE = {"type": "whereabouts", "range": "10.9.0.0/24"}
GOOD = {"cniVersion": "1.0.0", "type": "macvlan", "master": "ens5", "ipam": RANGE}

server = pytest.fixture(serving)
client = pytest.fixture(api_answers.client)


def items(*bodies: dict[str, Any]) -> Answer:
    return 200, {}, {"items": list(bodies)}


def denied(verb: str, resource: str) -> Answer:
    text = f'{resource} is forbidden: User "eve" cannot {verb} resource "{resource}" at the cluster scope'
    return 403, {}, {"message": text}


def daemonset(namespace: str, name: str = "kube-multus-ds", *, ready: int = 2) -> dict[str, Any]:
    status = {"desiredNumberScheduled": 2, "numberReady": ready}
    return {"metadata": {"name": name, "namespace": namespace}, "status": status}


def daemon(node: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"multus-{node}"},
        "spec": {"nodeName": node},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def attachment(config: object) -> Answer:
    return 200, {}, {"spec": {"config": json.dumps(config)}}


def paths(server: Server) -> list[str]:
    return [path.partition("?")[0] for _, _, path, _ in server.asked]


LISTED = items(*({"metadata": {"name": name}, "status": READY} for name in NODES))
RUNNING = items(*map(daemon, NODES))
SLICE = {"type": "host-local", "ranges": [[{"subnet": "@range@"}]]}
STATIC = {**GOOD, "capabilities": {"ips": True}, "ipam": {"type": "static"}}


def checked(client: ApiClient) -> tuple[dict[str, Check], Installation]:
    found = Installation(client, OPTIONS)
    return {check.name: check for check in found.checks()}, found


def test_a_daemonset_is_found_wherever_it_was_installed(server: Server, client: ApiClient) -> None:
    sets = items(daemonset("networking", "multus"))
    server.answers = [LISTED, sets, RUNNING, attachment(STATIC)]
    checks, found = checked(client)
    assert (checks["Multus"].result, checks["Multus"].evidence) == ("ok", "Ready on 2 of 2 nodes")
    assert paths(server)[1:3] == ["/apis/apps/v1/daemonsets", "/api/v1/namespaces/networking/pods"]
    assert found.multus == "-n networking daemonset/multus"


def test_a_node_without_its_daemon_and_a_daemon_that_is_not_ready_are_faults(
    server: Server, client: ApiClient
) -> None:
    """Also if the DaemonSet's status has not noticed it yet."""
    crashing = daemon("node2") | {"status": {"phase": "Running", "conditions": []}}
    for pods in ([daemon("node1")], [daemon("node1"), crashing]):
        server.answers = [LISTED, items(daemonset("kube-system")), items(*pods), attachment(STATIC)]
        checks, found = checked(client)
        assert (checks["Multus"].result, checks["Multus"].evidence) == ("fail", "not Ready on node2")
        assert found.faulty == {"node2": checks["Multus"]}


def test_daemons_on_nodes_that_take_no_part_do_not_count(server: Server, client: ApiClient) -> None:
    """A DaemonSet wants a pod on a node that is not Ready, too."""
    lost = {"metadata": {"name": "node3"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    listing = items(*LISTED[2]["items"], lost)
    server.answers = [listing, items(daemonset("kube-system", ready=1)), RUNNING, attachment(STATIC)]
    checks, found = checked(client)
    assert (checks["Multus"].result, checks["Multus"].evidence) == ("ok", "Ready on 2 of 2 nodes")
    assert "node3 (not Ready)" in checks["nodes"].evidence
    assert found.faulty == {}


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({"plugins": [GOOD]}, True),
        ({"plugins": [{**GOOD, "ipam": {"type": "dhcp"}}]}, False),
        ({"plugins": [STATIC]}, False),
        (GOOD, True),
        (None, False),  # its configuration is a file on each node
    ],
)
def test_whereabouts_is_asked_for_where_it_gives_the_addresses(
    server: Server, client: ApiClient, config: dict[str, Any] | None, asked: bool
) -> None:
    spec = {} if config is None else {"config": json.dumps({"cniVersion": "1.0.0"} | config)}
    multus = [items(daemonset("kube-system")), RUNNING]
    files: list[Answer] = [] if config else [(404, {}, {"message": "not found"})]  # of the nodes
    server.answers = [LISTED, *multus, (200, {}, {"spec": spec}), *files, *(multus if asked else [])]
    checks = list(verification.verify(client, "ml", OPTIONS, lambda: False))
    attachment = "ok" if config else "unknown"
    assert [check.result for check in checks] == ["ok", "ok", *["ok"] * asked, attachment], checks
    assert ("Whereabouts" in [check.name for check in checks]) is asked


# -- a tenant, who may read little ----------------------------------------------------------------------------------


def test_what_may_not_be_read_is_named_and_unknown(server: Server, client: ApiClient) -> None:
    forbidden = [denied("list", "daemonsets")] * 2
    server.answers = [denied("list", "nodes"), *forbidden, denied("get", "network-attachment-definitions")]
    checks, found = checked(client)
    assert {check.result for check in checks.values()} == {"unknown"}
    assert checks["nodes"].evidence == "not allowed to list nodes"
    assert checks["nodes"].fix == "kubectl auth can-i list nodes"
    assert "daemonsets.apps" in checks["Multus"].evidence
    name = f"attachment {OPTIONS.networks[0].path}"
    assert checks[name].fix == "kubectl auth can-i get network-attachment-definitions.k8s.cni.cncf.io -n ml"
    assert found.choice is None


def test_without_the_nodes_the_daemonsets_own_status_decides(server: Server, client: ApiClient) -> None:
    server.answers = [denied("list", "nodes"), items(daemonset("kube-system")), attachment(STATIC)]
    check = checked(client)[0]["Multus"]
    assert (check.result, check.evidence) == ("ok", "all 2 pods of its DaemonSet are Ready")
    for ready, result in (
        (1, "unknown"),
        (0, "fail"),
    ):  # the one that is missing may be on a node that is off
        sets = items(daemonset("kube-system", ready=ready))
        server.answers = [denied("list", "nodes"), sets, attachment(STATIC)]
        check = checked(client)[0]["Multus"]
        evidence = f"DaemonSet kube-system/kube-multus-ds: {ready} of 2 Ready"
        assert (check.result, check.evidence) == (result, evidence)


def test_a_daemonset_that_is_not_in_kube_system_may_be_elsewhere(server: Server, client: ApiClient) -> None:
    server.answers = [LISTED, denied("list", "daemonsets"), items(), attachment(STATIC)]
    check = checked(client)[0]["Multus"]
    assert check.result == "unknown"
    assert (
        check.evidence == "no DaemonSet with app=multus in kube-system; not allowed to list other namespaces"
    )
    assert paths(server)[2] == "/apis/apps/v1/namespaces/kube-system/daemonsets"


def test_all_nodes_needs_their_list(server: Server, client: ApiClient) -> None:
    server.answers = [denied("list", "nodes")]
    with pytest.raises(ClusterError, match="--all-nodes: not allowed to list nodes") as caught:
        list(verification.verify(client, "ml", OPTIONS, lambda: True, all_nodes=True))
    assert "without --all-nodes, two pods are tested" in caught.value.fix
    assert len(server.asked) == 1


def test_another_refusal_is_no_lack_of_rights(server: Server, client: ApiClient) -> None:
    server.answers = [(401, {}, {"message": "Unauthorized"})]
    with pytest.raises(ClusterError, match="not authenticated"):
        checked(client)


def test_nodes_are_read_in_pages(server: Server, client: ApiClient) -> None:
    first: Answer = 200, {}, {"items": LISTED[2]["items"][:1], "metadata": {"continue": "more"}}
    second = items(LISTED[2]["items"][1])
    server.answers = [first, second, items(daemonset("kube-system")), RUNNING, attachment(STATIC)]
    checks, _ = checked(client)
    assert checks["nodes"].evidence == "node1, node2: Ready"
    assert "continue=more" in server.asked[1][2]


@pytest.mark.parametrize(
    ("config", "results", "said"),
    [
        (GOOD, ["ok"], "macvlan on ens5, addresses by whereabouts, cniVersion 1.0.0"),
        ({**GOOD, "cniVersion": "0.3.0"}, ["ok"], "0.3.0"),
        ({"cniVersion": "1.0.0", "plugins": [{**GOOD, "type": "ipvlan"}]}, ["ok"], "ipvlan on ens5"),
        ({**GOOD, "cniVersion": "0.2.0"}, ["fail"], "no network-status"),
        ({key: value for key, value in GOOD.items() if key != "cniVersion"}, ["fail"], "no network-status"),
        ({"cniVersion": "1.0.0", "ipam": {}}, ["fail"], "neither a plugin with a type nor a list"),
        ([], ["fail"], "is not a JSON object"),
        ({**GOOD, "cniVersion": "one"}, ["fail"], '"one" is not a version'),
        ({**GOOD, "type": "ipvlan", "mode": "l3"}, ["ok", "unknown"], "l3 with one range for all nodes"),
    ],
)
def test_an_attachments_configuration(config: object, results: list[str], said: str) -> None:
    found = check_configuration("attachment", Definition("ml", "net", json.dumps(config)))
    assert [one.result for one in found] == results
    assert said in found[-1].evidence
    assert found[-1].fix or results == ["ok"]


def test_a_mode_that_routes_is_no_fault_on_a_single_node() -> None:
    text = json.dumps({**GOOD, "type": "ipvlan", "mode": "l3"})
    assert len(check_configuration("attachment", Definition("ml", "net", text), count=1)) == 1


def test_attachments_are_compared_with_those_of_other_namespaces(server: Server, client: ApiClient) -> None:
    def named(namespace: str, name: str, **changes: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"config": json.dumps({**STATIC, **changes})},
        }

    network = OPTIONS.networks[0]
    files = {"metadata": {"name": "files", "namespace": "other"}, "spec": {}}
    own, other = named(network.namespace, network.name), named("other", "net", type="ipvlan")
    server.answers = [
        LISTED,
        items(daemonset("kube-system")),
        RUNNING,
        attachment(STATIC),
        items(own, other, files),
    ]
    found = [one for one in Installation(client, OPTIONS).checks() if one.result != "ok"]
    assert [(one.result, one.name) for one in found] == [("unknown", f"attachment {network.path}")]
    assert "macvlan on ens5, which has ipvlan in other/net" in found[0].evidence
    assert not any("configmaps" in path for path in paths(server)), "the files of others are not read"


def test_the_files_of_the_nodes_are_checked_like_an_inline_configuration(
    server: Server, client: ApiClient
) -> None:
    """Here node1 has no route to node2's range, node3 no file, and node2 an old one."""
    network = OPTIONS.networks[0]
    template = json.dumps({"cniVersion": "1.0.0", "name": network.name, **STATIC} | {"ipam": SLICE})
    data = {"template.conflist": template, "nodes": "node range\nnode1 10.9.1.0/24\nnode2 10.9.2.0/24\n"}
    three = items(*LISTED[2]["items"], {"metadata": {"name": "node3"}, "status": READY})
    late = daemon("node2") | {"status": {"conditions": []}}
    server.answers = [
        *(three, items(daemonset("kube-system")), items(*map(daemon, (*NODES, "node3")))),
        *((200, {}, {"spec": {}}), (200, {}, {"data": data}), items(daemon("node1"), late), items()),
    ]
    title = f"attachment {network.path}"
    found = [check for check in Installation(client, OPTIONS).checks() if check.name == title]
    assert (found[0].result, found[0].evidence) == (
        "ok",
        "macvlan on ens5, addresses by host-local, cniVersion 1.0.0, files of 2 nodes",
    )
    assert {check.result for check in found[1:]} == {"unknown"}
    said = "; ".join(check.evidence for check in found[1:])
    assert "no route on node1 to the range of node2" in said
    assert "no part of the range for node3" in said
    assert "the file is missing or old on node2" in said
    assert paths(server).count("/api/v1/namespaces/kube-system/configmaps/backend-network-slices") == 1


def test_files_that_may_not_be_read_are_unknown(server: Server, client: ApiClient) -> None:
    multus = (items(daemonset("kube-system")), RUNNING)
    server.answers = [LISTED, *multus, (200, {}, {"spec": {}}), denied("get", "configmaps"), items()]
    checks = list(Installation(client, OPTIONS).checks())
    assert [check.result for check in checks] == ["ok", "ok", "unknown", "unknown"]
    assert "the files of the nodes are not checked: not allowed to get configmaps" in checks[2].evidence
    assert checks[2].fix == "kubectl auth can-i get configmaps -n kube-system"
    assert "/etc/cni/multus/net.d" in checks[3].fix
