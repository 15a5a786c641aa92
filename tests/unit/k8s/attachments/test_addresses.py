"""Who has which address: pools, pods, duplicates, and leases of pods that are gone."""

from __future__ import annotations

import ipaddress
import json
import shlex
from typing import Any

import pytest

from tests.unit.attachments import config, plugin
from torchnet.cli.network_output import release_commands
from torchnet.constants import STATUS_ANNOTATION
from torchnet.k8s.attachments.address_pool import Lease, pool_name, range_uses, read_pool
from torchnet.k8s.attachments.address_range import whereabouts_range
from torchnet.k8s.attachments.address_table import AddressTable, Pods, address_table
from torchnet.k8s.attachments.cni_config import CniConfig

PATH = "ml/net"
V4 = {"type": "whereabouts", "range": "10.9.0.0/29"}


def pool(name: str = "10.9.0.0-29", network: str = "10.9.0.0/29", **holders: str) -> dict[str, Any]:
    """A pool whose allocations are named by their offsets: o3="ml/a"."""
    allocations = {
        key[1:]: {"id": "sandbox", "podref": pod, "ifname": "net1"} for key, pod in holders.items()
    }
    meta = {"name": name, "namespace": "kube-system"}
    return {"metadata": meta, "spec": {"range": network, "allocations": allocations}}


def pod(*ips: str, phase: str = "Running", deleted: bool = False, path: str = PATH) -> dict[str, Any]:
    status = [
        {"name": "cilium", "ips": ["172.16.0.9"]},
        {"name": path, "interface": "net1", "ips": list(ips)},
    ]
    meta: dict[str, Any] = {"annotations": {STATUS_ANNOTATION: json.dumps(status)}}
    meta |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}
    return {"metadata": meta, "spec": {"nodeName": "node1"}, "status": {"phase": phase}}


def table(body: dict[str, Any], pods: dict[str, dict[str, Any]], **known: Any) -> AddressTable:
    found = read_pool(body)
    assert found is not None
    uses = range_uses(CniConfig(config(plugin(ipam=V4))), [found])
    return address_table(PATH, uses, Pods(pods, **(known or {"everywhere": True})))


def states(found: AddressTable) -> dict[str, str]:
    return {row.pod: f"{'stale: ' if row.is_stale else ''}{row.state}" for row in found.rows}


@pytest.mark.parametrize(
    ("text", "network_name", "name"),
    [
        ("fcbb:0:0800:ffff::/64", "", "fcbb-0-800-ffff---64"),
        ("10.9.0.5/24", "", "10.9.0.0-24"),
        ("10.9.0.1-10.9.0.9/24", "b", "b-10.9.0.0-24"),
    ],
)
def test_a_pool_is_found_by_the_name_that_whereabouts_gives_it(
    text: str, network_name: str, name: str
) -> None:
    assert pool_name(whereabouts_range({"range": text}), network_name) == name


def test_each_lease_has_its_holder_and_the_rest_is_free() -> None:
    found = table(
        pool(o1="ml/a", o2="ml/gone", o3="ml/done", o4="ml/moved", o5="ml/ending"),
        {
            "ml/a": pod("10.9.0.1"),
            "ml/done": pod("10.9.0.3", phase="Succeeded"),
            "ml/moved": pod("10.9.0.6"),
            "ml/ending": pod("10.9.0.5", deleted=True),
            "ml/no-status": {"metadata": {}},
            "ml/bad": {"metadata": {"annotations": {STATUS_ANNOTATION: "{"}}},
            "ml/other": pod("10.9.0.1", path="ml/other"),
        },
    )
    assert states(found) == {
        "ml/a": "Running",
        "ml/gone": "stale: gone",
        "ml/done": "stale: ended",
        "ml/ending": "terminating",
        "ml/moved": "Running",
    } | {"ml/moved": states(found)["ml/moved"]}
    moved = {str(row.address): row.state for row in found.rows if row.pod == "ml/moved"}
    assert moved == {"10.9.0.4": "has another address", "10.9.0.6": "Running"}
    assert [row.pod for row in found.stale] == ["ml/gone", "ml/done", "ml/moved"]
    assert [(use.range.capacity, use.free) for use in found.uses] == [(6, 1)]
    assert found.duplicates == {}


def test_a_pod_that_may_not_be_seen_is_not_gone() -> None:
    body = pool(o1="ml/a", o2="other/b", o3="")
    found = table(body, {}, namespaces=frozenset({"ml"}))
    assert states(found) == {"ml/a": "stale: gone", "other/b": "unknown", "": "unknown"}


def test_two_pods_with_one_address_are_named() -> None:
    found = table(
        pool(o1="ml/a"), {"ml/a": pod("10.9.0.1"), "ml/b": pod("10.9.0.1"), "ml/c": pod("10.9.0.2")}
    )
    assert {str(key): [row.pod for row in rows] for key, rows in found.duplicates.items()} == {
        "10.9.0.1": ["ml/a", "ml/b"]
    }


def test_an_address_that_a_dead_pod_holds_is_no_duplicate() -> None:
    found = table(pool(o1="ml/gone"), {"ml/b": pod("10.9.0.1")})
    assert found.duplicates == {}
    assert len(found.stale) == 1


def test_pods_have_addresses_without_a_pool() -> None:
    found = address_table(PATH, (), Pods({"ml/a": pod("fd00::1")}, everywhere=True))
    assert [(str(row.address), row.pod, row.node, row.lease) for row in found.rows] == [
        ("fd00::1", "ml/a", "node1", None)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"allocations": None},
        {
            "allocations": {
                "x": {"podref": "a/b"},
                "-1": {},
                "9": {},
                "1" * 5000: {},
                "²": {},
                "1": 7,
                "2": {"podref": 7},
            }
        },
    ],
)
def test_what_is_no_allocation_is_ignored_as_whereabouts_does(changes: dict[str, Any]) -> None:
    body = pool()
    body["spec"] |= changes
    found = read_pool(body)
    assert found is not None
    assert [lease.key for lease in found.leases] == (["2"] if changes["allocations"] else [])


def test_an_offset_is_a_signed_number_of_64_bits() -> None:
    """Whereabouts ignores larger ones, and so the upper half of a /64."""
    body = pool("fd00---64", "fd00::/64", **{f"o{(1 << 63) - 1}": "ml/a", f"o{1 << 63}": "ml/b"})
    found = read_pool(body)
    assert found is not None
    assert [lease.pod for lease in found.leases] == ["ml/a"]


@pytest.mark.parametrize("body", [{}, {"spec": {"range": "x"}}, {"spec": {"range": None}, "metadata": None}])
def test_an_object_that_is_no_pool(body: dict[str, Any]) -> None:
    assert read_pool(body) is None


def test_pools_of_other_ranges_and_networks_do_not_count() -> None:
    pools = [read_pool(pool(o1="ml/a")), read_pool(pool("b-10.9.0.0-29", o1="ml/b", o2="ml/c"))]
    known = [one for one in pools if one is not None]
    for ipam, free in ((V4, 5), (V4 | {"network_name": "b"}, 4), (V4 | {"range": "10.8.0.0/29"}, 6)):
        (use,) = range_uses(CniConfig(config(plugin(ipam=ipam))), known)
        assert use.free == free


def test_the_pools_of_node_slices_are_those_of_the_nodes() -> None:
    """Not of the whole range, nor of other networks; ``exclude`` and bounds have no effect."""
    bodies = [
        pool("node1-10.9.0.0-30", "10.9.0.0/30", o1="ml/a"),
        pool("10.9.0.0-29", "10.9.0.0/29", o1="ml/before"),
        pool("-10.9.0.0-30", "10.9.0.0/30", o1="ml/no-node"),
        pool("node1-10.8.0.0-30", "10.8.0.0/30", o1="a/b"),
        pool("n-node1-10.9.0.4-30", "10.9.0.4/30", o1="ml/named"),
    ]
    pools = [one for one in map(read_pool, bodies) if one]
    sliced = V4 | {"node_slice_size": "/30", "exclude": ["10.9.0.0/29"], "range_start": "10.9.0.5"}
    (use,) = range_uses(CniConfig(config(plugin(ipam=sliced))), pools)
    assert [lease.pod for lease in use.leases] == ["ml/a", "ml/named"], "n-node1 may be a node"
    assert (use.capacity, use.free) == (4, 2)
    (use,) = range_uses(CniConfig(config(plugin(ipam=sliced | {"network_name": "n"}))), pools)
    assert [lease.pod for lease in use.leases] == ["ml/named"]


def test_the_command_that_releases_leases_tests_that_they_are_still_the_same() -> None:
    """A new pod of the same name has the same lease, with another id."""
    found = table(pool(o2="ml/gone", o3="ml/gone-too"), {})
    leases = [row.lease for row in found.stale if row.lease]
    (command,) = release_commands(leases, {"network_name": "b"})
    words = shlex.split(command)
    at = words.index("&&")
    assert words[:5] == ["kubectl", "patch", "ippools.whereabouts.cni.cncf.io", "10.9.0.0-29", "-n"]
    assert json.loads(words[at - 1])[:3] == [
        {"op": "test", "path": "/spec/allocations/2/podref", "value": "ml/gone"},
        {"op": "test", "path": "/spec/allocations/2/id", "value": "sandbox"},
        {"op": "remove", "path": "/spec/allocations/2"},
    ]
    assert words[at + 1 : at + 3] == ["kubectl", "delete"]
    assert words[-2:] == ["b-10.9.0.2", "b-10.9.0.3"]


def test_without_reservations_none_is_deleted() -> None:
    """The reservation of that name belongs to a pod of another range, perhaps a running one."""
    found = table(pool(o2="ml/gone"), {})
    leases = [row.lease for row in found.stale if row.lease]
    (command,) = release_commands(leases, V4 | {"enable_overlapping_ranges": False})
    assert command.startswith("kubectl patch ippools")
    assert "delete" not in command
    assert "delete" in release_commands(leases, V4 | {"enable_overlapping_ranges": True})[0]


def test_many_leases_are_released_in_parts() -> None:
    """One that has changed must not hold back all others, and a command has an end."""
    leases = [
        Lease(ipaddress.ip_address(number), f"ml/{number}", "net1", str(number), "p", "s")
        for number in range(101)
    ]
    commands = release_commands(leases, V4)
    assert [command.count('"remove"') for command in commands] == [50, 50, 1]
    assert max(map(len, commands)) < 1 << 16
    assert [len(shlex.split(command.partition("&&")[2])) - 6 for command in commands] == [50, 50, 1]
