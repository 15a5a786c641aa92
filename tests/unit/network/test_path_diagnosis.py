"""What all workers' views of their paths show: missing routes of ipvlan's l3 modes, ranges, MAC filters."""

from __future__ import annotations

import re

from torchnet.network.path_diagnosis import LinkType, PathView, explain, hint, route_command
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

L3 = LinkType("ipvlan", "l3", 64)
MACVLAN = LinkType("macvlan", "", 64)
HOSTS = ("node1", "node1", "node2", "node2")
TWO_RANGES = ("fcbb:0:800:1::2", "fcbb:0:800:1::3", "fcbb:0:800:2::2", "fcbb:0:800:2::3")
ONE_RANGE = tuple(f"fcbb:0:800:ffff::{number}" for number in range(1, 5))


def table(addresses: tuple[str, ...] = TWO_RANGES) -> PeerTable:
    return PeerTable(
        tuple(
            PeerRow(rank, f"w{rank}", f"u{rank}", (PeerRail("net1", address, 9000),))
            for rank, address in enumerate(addresses)
        )
    )


def views(
    link: LinkType, lost: set[tuple[str, str]], hosts: tuple[str, ...] = HOSTS, names: tuple[str, ...] = HOSTS
) -> dict[int, PathView]:
    """What the workers saw if packets from one host to another one are lost, as ``lost`` has them; a probe needs both
    directions. ``names`` is what the workers know of their hosts."""
    found = {}
    for own in range(len(hosts)):
        arrives = {
            (peer, 0) for peer in range(len(hosts)) if peer != own and (hosts[peer], hosts[own]) not in lost
        }
        silent = tuple(
            (peer, 0)
            for peer in range(len(hosts))
            if peer != own and ({(hosts[own], hosts[peer]), (hosts[peer], hosts[own])} & lost)
        )
        if silent:
            found[own] = PathView(names[own], (link,), silent, tuple(sorted(arrives)))
    return found


def commands(texts: list[str]) -> list[tuple[str, str]]:
    found = [re.search("fix: on (.*?) run: (.*?),", text) for text in texts]
    return [(one[1], one[2]) for one in found if one]


def test_each_node_without_a_route_gets_its_command() -> None:
    both = views(L3, {("node1", "node2"), ("node2", "node1")})
    assert commands(explain(table(), both)) == [
        ("node1", "ip -6 route replace fcbb:0:800:2::/64 via ADDRESS_OF_NODE2"),
        ("node2", "ip -6 route replace fcbb:0:800:1::/64 via ADDRESS_OF_NODE1"),
    ]


def test_only_the_node_whose_packets_are_lost_gets_one() -> None:
    """node2 has its route: its probes arrive, and only node1's answers to them and node1's own probes are lost."""
    one = views(L3, {("node1", "node2")})
    assert set(one) == {0, 1, 2, 3}  # no probe is answered, in either direction
    assert commands(explain(table(), one)) == [
        ("node1", "ip -6 route replace fcbb:0:800:2::/64 via ADDRESS_OF_NODE2")
    ]
    (text,) = explain(table(), one)
    assert "w2, w3" in text


def test_a_node_that_the_pods_do_not_know_is_told_by_its_pod() -> None:
    unknown = views(L3, {("node1", "node2")}, names=("",) * 4)
    assert {node for node, _ in commands(explain(table(), unknown))} == {"the node of w0", "the node of w1"}


def test_one_range_for_all_nodes_cannot_work_in_l3() -> None:
    (first, second) = explain(table(ONE_RANGE), views(L3, {("node1", "node2"), ("node2", "node1")}))
    for text in (first, second):
        assert "same range" in text
        assert "--mode l2" in text
        assert "run: ip" not in text


def test_a_filter_is_named_for_macvlan_alone() -> None:
    lost = {("node1", "node2"), ("node2", "node1")}
    (text,) = explain(table(ONE_RANGE), views(MACVLAN, lost))
    assert "most likely" in text
    assert "node1 to node2, node2 to node1" in text
    for other in (LinkType("ipvlan", "l2", 64), LinkType("veth", "", 64), LinkType()):
        assert explain(table(ONE_RANGE), views(other, lost)) == []
    # Without the nodes' names they may all be on one.
    assert explain(table(ONE_RANGE), views(MACVLAN, lost, names=("",) * 4)) == []


def test_nothing_is_concluded_within_a_node_or_from_one_end() -> None:
    here = views(L3, {("node1", "node2")}, hosts=("node1", "node2", "node1", "node2"), names=("node1",) * 4)
    assert explain(table(), here) == []
    whole = views(L3, {("node1", "node2")})
    assert explain(table(), {0: whole[0]}) == []
    assert explain(table(), {}) == []


def test_a_view_that_does_not_fit_the_table_is_passed_over() -> None:
    strange = {own: PathView(f"n{own}", (L3,), ((1 - own, 7), (1 - own, 0)), ()) for own in range(2)} | {
        2: PathView("n2", (), ((0, 0),), ())
    }
    assert len(explain(table(), strange)) == 2


def test_a_rank_0_that_does_not_respond_suggests_a_route() -> None:
    assert "ip -6 route replace fcbb:0:800:1::/64 via" in hint(
        L3, "net1", "fcbb:0:800:2::2", "fcbb:0:800:1::2"
    )
    assert "--mode l2" in hint(L3, "net1", "fcbb:0:800:ffff::2", "fcbb:0:800:ffff::1")
    assert hint(LinkType("ipvlan", "l2", 64), "net1", "fcbb:0:800:2::2", "fcbb:0:800:1::2") == ""


def test_the_command_is_of_the_ranges_family() -> None:
    assert (
        route_command("10.9.2.0/24", "10.9.0.12", "ens5")
        == "ip route replace 10.9.2.0/24 via 10.9.0.12 dev ens5"
    )
