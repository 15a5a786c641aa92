"""What all workers' views of their paths show: missing routes of ipvlan's l3 modes, ranges, MAC filters."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv6Network

import pytest

from torchnet.network import probe_plan
from torchnet.network.path_diagnosis import MOST_PATHS, LinkType, PathView, explain, hint, route_command
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

L3 = LinkType("ipvlan", "l3", 64)
MACVLAN = LinkType("macvlan", "", 64)
HOSTS = ("node1", "node1", "node2", "node2")
TWO_RANGES = ("fcbb:0:800:1::2", "fcbb:0:800:1::3", "fcbb:0:800:2::2", "fcbb:0:800:2::3")
ONE_RANGE = tuple(f"fcbb:0:800:ffff::{number}" for number in range(1, 5))


def table(addresses: Sequence[str] = TWO_RANGES, rails: int = 1) -> PeerTable:
    """Rail 1 has the addresses of rail 0 with another beginning."""
    return PeerTable(
        tuple(
            PeerRow(
                rank,
                f"w{rank}",
                f"u{rank}",
                tuple(
                    PeerRail(f"net{rail + 1}", address.replace("fcbb", f"fcb{11 + rail:x}"), 9000)
                    for rail in range(rails)
                ),
            )
            for rank, address in enumerate(addresses)
        )
    )


def views(
    link: LinkType,
    lost: set[tuple[str, str]],
    hosts: Sequence[str] = HOSTS,
    names: Sequence[str] = (),
    dead: Sequence[int] = (),
    rails: Sequence[int] = (0,),
    known: bool = True,
) -> dict[int, PathView]:
    """What the workers saw if packets from one host to another one are lost, as ``lost`` has them, and those from and
    to the workers ``dead``; a probe needs both directions.

    Args:
        names: what the workers know of their hosts.
        rails: those on which it is so; on the others everything arrives.
        known: whether the workers that saw nothing wrong are in the result.
    """
    found = {}
    count = range(len(hosts))

    def arrives(own: int, peer: int) -> bool:
        return (hosts[own], hosts[peer]) not in lost and not {own, peer} & {*dead}

    plan = {own: probe_plan.peers(own, len(hosts)) for own in count}
    for own in count:
        heard = [(peer, 0) for peer in count if own in plan[peer] and arrives(peer, own)]
        silent = [
            (peer, rail)
            for peer in plan[own]
            for rail in rails
            if not (arrives(own, peer) and arrives(peer, own))
        ]
        name = (names or hosts)[own]
        if silent:
            found[own] = PathView(name, (link,) * (max(rails) + 1), tuple(silent), tuple(heard))
        elif known:
            found[own] = PathView(name)
    return found


def commands(texts: list[str]) -> list[tuple[str, str]]:
    """By node. Each is a line of its own."""
    found = [re.search(r"on ([^,]*?) run:\n    (.*)\n", text) for text in texts]
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
    assert commands(explain(table(), unknown)) == [
        ("the node of w0", "ip -6 route replace fcbb:0:800:2::/64 via ADDRESS_OF_THE_NODE_OF_W2")
    ]


def test_one_range_for_all_nodes_cannot_work_in_l3() -> None:
    (first, second) = explain(table(ONE_RANGE), views(L3, {("node1", "node2"), ("node2", "node1")}))
    for text in (first, second):
        assert "same range" in text
        assert "net1 is ipvlan in mode l3," in text
        assert "--mode l2 if" in text
        assert "run:" not in text


def test_behind_a_router_the_route_may_be_the_routers() -> None:
    """The pods of both nodes see the same, whichever node lacks the route."""
    (text,) = explain(table(), views(L3, {("node1", "node2")}))
    assert "Most likely node1, or a router between the nodes, has no route to that range." in text
    assert "if the nodes share a segment, on node1 run:\n    ip -6 route replace" in text
    assert "Else add the route on the routers between the nodes" in text
    assert max(len(one.split()) for one in re.split(r"[.;:]\s", text)) <= 25


def test_a_filter_or_two_segments_are_named_for_macvlan_alone() -> None:
    lost = {("node1", "node2"), ("node2", "node1")}
    (text,) = explain(table(ONE_RANGE), views(MACVLAN, lost))
    assert "most likely a hypervisor" in text
    assert "If they do not, the cards share no segment" in text
    assert "node1 to node2, node2 to node1" in text
    assert "\n    torchnet manifests backend-network --type ipvlan\n" in text
    for other in (LinkType("ipvlan", "l2", 64), LinkType("veth", "", 64), LinkType()):
        assert explain(table(ONE_RANGE), views(other, lost)) == []
    # Without the nodes' names they may all be on one.
    for link in (MACVLAN, L3):
        assert explain(table(ONE_RANGE), views(link, lost, names=("",) * 4)) == []
        assert explain(table(ONE_RANGE[:2]), views(link, lost, ("node1", "node2"), ("", ""))) == []


@pytest.mark.parametrize(("link", "addresses"), [(MACVLAN, ONE_RANGE), (L3, TWO_RANGES), (L3, ONE_RANGE)])
def test_a_dead_pod_beside_one_that_is_reached_is_neither_a_route_nor_a_filter(
    link: LinkType, addresses: tuple[str, ...]
) -> None:
    assert explain(table(addresses), views(link, set(), dead=(3,))) == []
    if addresses is TWO_RANGES:  # a route leads to a range, on whichever nodes its pods are
        assert explain(table(), views(link, set(), names=("",) * 4, dead=(3,))) == []
    # Alone on its node, it may be either.
    alone = views(link, set(), hosts=("node1", "node1", "node2", "node3"), dead=(3,))
    assert explain(table(addresses), alone) != []


def test_a_node_may_have_pods_of_an_earlier_range() -> None:
    """node1 has the route to the range of w3, and none to that of w2, which is on the same node."""
    addresses = (*TWO_RANGES[:3], "fcbb:0:800:3::3")
    assert commands(explain(table(addresses), views(L3, set(), dead=(2,)))) == [
        ("node1", "ip -6 route replace fcbb:0:800:2::/64 via ADDRESS_OF_NODE2")
    ]


def test_one_direction_that_works_for_another_pod_is_no_missing_route() -> None:
    """node2 has no route to node1, and w1 reaches nobody; what w0 sends arrives, so that node1 has its route."""
    found = commands(explain(table(), views(L3, {("node2", "node1")}, dead=(1,))))
    assert [node for node, _ in found] == ["node2"]


def test_among_many_workers_those_without_a_fault_show_which_pods_are_reached() -> None:
    """Only a few workers probe the dead one then; that the others reach its node is known from these others."""
    hosts = [f"node{rank % 2}" for rank in range(70)]
    many = table([f"fcbb::{rank % 2}:{rank + 1:x}" for rank in range(70)])
    for link in (MACVLAN, LinkType("ipvlan", "l3", 112)):
        seen = views(link, set(), hosts, dead=(69,))
        assert 2 < sum(bool(view.silent) for view in seen.values()) < 20
        assert explain(many, seen) == []
        # Two workers of which none has probed the other one show nothing.
        assert explain(many, views(link, {("node0", "node1"), ("node1", "node0")}, hosts)) != []


@pytest.mark.parametrize("link", [MACVLAN, L3])
def test_each_rail_is_named_with_its_own_hosts(link: LinkType) -> None:
    both = {("node1", "node2"), ("node2", "node1")}
    addresses = ONE_RANGE if link is MACVLAN else TWO_RANGES
    texts = explain(table(addresses, 2), views(link, both, rails=(1,)))
    assert texts
    assert all("net2 is" in text and "net1" not in text for text in texts)
    texts = explain(table(addresses, 2), views(link, both, rails=(0, 1)))
    assert (
        sum("net1 is" in text for text in texts) == sum("net2 is" in text for text in texts) == len(texts) / 2
    )
    assert all(text.count("node1 to node2") <= 1 for text in texts)


def test_a_list_that_was_cut_says_nothing_of_what_it_lacks() -> None:
    seen = views(MACVLAN, {("node1", "node2"), ("node2", "node1")})
    many = tuple(
        (9999, rail) for rail in range(MOST_PATHS - 1)
    )  # no peers of this job: only their number counts

    def cut(silent: int, heard: int) -> list[str]:
        return explain(
            table(ONE_RANGE),
            {
                rank: PathView(
                    one.host, one.links, (one.silent[0], *many[:silent]), many[:heard] + ((9999, 9999),)
                )
                for rank, one in seen.items()
            },
        )

    assert cut(0, 0) == []  # each one has reached the second worker of the other node
    assert cut(MOST_PATHS - 1, 0) == explain(table(ONE_RANGE), seen) != []
    assert (
        cut(MOST_PATHS - 1, MOST_PATHS - 1) == []
    )  # the peer may have heard the probe, so that its answer was lost


class Unsearched(tuple[tuple[int, int], ...]):
    """Looking for something in it, one item after another, would take a thousand workers' views too long."""

    __slots__ = ()

    def __contains__(self, one: object) -> bool:
        raise AssertionError("searched")


@pytest.mark.large
def test_a_thousand_workers_that_reach_nobody_are_explained_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some 3 s, in rank 0's event loop."""
    addresses = [f"fcbb:0:800:{rank:x}::2" for rank in range(1000)]
    found = {}
    for own in range(1000):
        peers = [(peer, 0) for peer in probe_plan.peers(own, 1000, "full")][:MOST_PATHS]
        found[own] = PathView(f"n{own}", (L3,), Unsearched(peers), Unsearched(peers[1:]))
    networks = []

    def network(*arguments: object, **more: bool) -> IPv6Network:
        networks.append(arguments)
        return IPv6Network(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ipaddress, "ip_network", network)
    assert len(explain(table(addresses), found, "full")) > 1
    assert len(networks) == 1000


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
    assert "routers between the nodes, need a route" in hint(L3, "net1", "fcbb:0:800:2::2", "fcbb:0:800:1::2")
    assert "--mode l2" in hint(L3, "net1", "fcbb:0:800:ffff::2", "fcbb:0:800:ffff::1")
    assert hint(LinkType("ipvlan", "l2", 64), "net1", "fcbb:0:800:2::2", "fcbb:0:800:1::2") == ""


def test_the_command_is_of_the_ranges_family() -> None:
    assert (
        route_command("10.9.2.0/24", "10.9.0.12", "ens5")
        == "ip route replace 10.9.2.0/24 via 10.9.0.12 dev ens5"
    )
