"""Which interfaces of a host are found to be the backend."""

from __future__ import annotations

from typing import Any

import pytest

from torchnet.errors import NetworkError
from torchnet.hosts.rail_search import FoundRails, external, find_rails, in_order, network_of, rails_on
from torchnet.network.interface_selection import Address, Interface


def card(name: str, *addresses: str, up: bool = True, carrier: bool = True) -> Interface:
    found = []
    for text in addresses:
        ip, _, length = text.partition("/")
        scope: Any = "link" if ip.startswith("fe80:") else "host" if ip.startswith("127.") else "global"
        found.append(Address(ip, int(length), 6 if ":" in ip else 4, scope))
    return Interface(name, 1, "02:00:00:00:00:01", 1500, up, carrier, tuple(found))


LO = card("lo", "127.0.0.1/8", "::1/128")
EVERYWHERE = (
    card("docker0", "172.17.0.1/16"),
    card("br-0123456789ab", "172.18.0.1/16"),
    card("virbr0", "192.168.122.1/24"),
    card("veth1a2b3c", "169.254.1.1/32", "10.88.0.1/16"),
    card("cni0", "10.244.0.1/24"),
    card("flannel.1", "10.244.0.0/32"),
    card("tun0", "10.8.0.2/24"),
    card("tap0", "10.9.0.2/24"),
    card("wg0", "10.99.0.2/24"),
    card("tailscale0", "100.64.0.1/32"),
)


def search(*cards: Interface, **more: Any) -> tuple[str, ...]:
    return find_rails(
        {one.name: one for one in (LO, *EVERYWHERE, *cards)}, more.pop("speeds", {}), **more
    ).interfaces


def test_interfaces_of_containers_machines_and_tunnels_never_count() -> None:
    assert search(card("ens3", "10.0.0.5/24")) == ("ens3",)
    with pytest.raises(NetworkError, match="no interface can be the backend") as caught:
        search()
    assert "--network host:INTERFACE" in caught.value.fix
    assert "docker0 (of containers or a tunnel)" in caught.value.text


def test_a_bridge_bond_or_vlan_of_the_host_counts() -> None:
    for name in ("br0", "bond0", "ens5.100", "ib0", "enp1s0f1np1"):
        assert search(card(name, "10.0.0.5/24")) == (name,)


def test_cards_that_are_down_or_have_no_global_address_do_not_count() -> None:
    found = search(
        card("ens3", "10.0.0.5/24"),
        card("ens4", "10.1.0.5/24", up=False),
        card("ens5", "10.2.0.5/24", carrier=False),
        card("ens6", "fe80::1/64"),
        card("ens7"),
    )
    assert found == ("ens3",)


def test_the_user_learns_which_cards_are_not_used_and_why() -> None:
    cards = (
        card("ens3", "10.0.0.5/24"),
        card("ens4", "10.1.0.5/24", carrier=False),
        card("ens5", "10.2.0.5/24"),
        card("ens6", "fe80::1/64"),
        card("ens7", "fd00::7/64"),
        *EVERYWHERE,
        LO,
    )
    found = find_rails({one.name: one for one in cards}, {}, default_routes={"ens3"}, family="ipv4")
    assert found.interfaces == ("ens5",)
    assert found.others == ("ens3", "ens4 (down)", "ens6 (no address)", "ens7 (no ipv4 address)")


FRONTEND, BACKEND, OTHER = (
    card("ens3", "192.0.2.5/24"),
    card("ens5", "10.7.0.5/24"),
    card("ens6", "10.6.0.5/24"),
)


def test_the_default_route_leads_to_the_frontend() -> None:
    assert search(FRONTEND, BACKEND, default_routes={"ens3"}) == ("ens5",)
    assert search(FRONTEND, BACKEND, default_routes={"ens3"}, endpoint="ens5") == ("ens5",)
    assert search(FRONTEND, default_routes={"ens3"}, endpoint="ens3") == ("ens3",)


def test_without_a_default_route_the_endpoint_is_on_the_frontend() -> None:
    assert search(FRONTEND, BACKEND, endpoint="ens3") == ("ens5",)


def test_equal_cards_are_rails_in_the_order_of_their_networks() -> None:
    found = search(FRONTEND, BACKEND, OTHER, default_routes={"ens3"})
    assert found == ("ens6", "ens5")
    swapped = search(card("a", "10.7.0.6/24"), card("b", "10.6.0.6/24"), FRONTEND, default_routes={"ens3"})
    assert swapped == ("b", "a")
    assert in_order(["x", "y"], {"x": "fd00::/64", "y": "10.0.0.0/8"}) == ["y", "x"]


def test_the_fastest_card_wins_where_all_speeds_are_known() -> None:
    speeds = {"ens3": 10**9, "ens5": 10**11, "ens6": 10**10}
    assert search(FRONTEND, BACKEND, OTHER, speeds=speeds, default_routes={"ens3"}) == ("ens5",)
    assert search(FRONTEND, BACKEND, speeds={"ens3": 10**11, "ens5": 10**9}, default_routes={"ens3"}) == (
        "ens3",
    )
    assert search(FRONTEND, BACKEND, speeds={"ens3": 10**11}, default_routes={"ens3"}) == ("ens5",)


def test_more_cards_than_rails_are_refused() -> None:
    with pytest.raises(NetworkError, match="17 interfaces"):
        search(*(card(f"ens{number}", f"10.{number}.0.1/24") for number in range(17)))


def test_one_network_is_known_as_such() -> None:
    alone = find_rails({"lo": LO, "ens3": FRONTEND, "docker0": EVERYWHERE[0]}, {})
    assert (alone.others, alone.networks) == ((), {"ens3": "192.0.2.0/24"})
    two = find_rails({"ens3": FRONTEND, "ens5": BACKEND}, {}, default_routes={"ens3"})
    assert two.others == ("ens3",)


def test_a_tunnel_is_no_rail_but_leads_to_other_machines() -> None:
    """Traffic can take it, so a host with one card and a tunnel has two networks."""
    for name in ("wg0", "tailscale0", "tun0", "vxlan.calico", "genev_sys_6081", "ovn-k8s-mp0", "antrea-gw0"):
        tunnel = card(name, "10.99.0.2/24", carrier=name != "tun0")
        assert search(card("ens3", "10.0.0.5/24"), tunnel) == ("ens3",)
        assert external({"ens3": FRONTEND, name: tunnel}) == {"ens3", name}
    inside = (
        LO,
        EVERYWHERE[0],
        EVERYWHERE[1],
        card("ens9", "10.9.9.1/24", up=False),
        card("ens8", "fe80::1/64"),
    )
    assert external({one.name: one for one in (FRONTEND, *inside)}) == {"ens3"}


def test_the_rails_on_the_networks_of_another_host() -> None:
    present = {one.name: one for one in (LO, *EVERYWHERE, FRONTEND, BACKEND, OTHER)}
    found = rails_on(["10.7.0.0/24", "10.6.0.0/24"], present)
    assert found == FoundRails(("ens5", "ens6"), {"ens5": "10.7.0.0/24", "ens6": "10.6.0.0/24"}, ("ens3",))
    for missing in ("10.5.0.0/24", "fd00::/64", "172.17.0.0/16"):  # the last one is docker0's
        assert rails_on(["10.7.0.0/24", missing], present) is None
    assert rails_on(["10.7.0.0/24", "10.7.0.0/24"], present) is None
    twins = {one.name: one for one in (BACKEND, card("ens9", "10.7.0.9/24"))}
    both = rails_on(["10.7.0.0/24", "10.7.0.0/24"], twins)
    assert both is not None
    assert both.interfaces == ("ens5", "ens9")


def test_the_network_is_that_of_the_address_that_gloo_uses() -> None:
    both = card("ens3", "2001:db8::5/64", "10.0.0.5/24", "10.1.0.5/24")
    assert network_of(both) == "10.0.0.0/24"
    assert network_of(both, "ipv6") == "2001:db8::/64"
    assert network_of(card("ens3", "2001:db8::5/64")) == "2001:db8::/64"
    assert network_of(card("ens3", "2001:db8::5/64"), "ipv4") == ""
