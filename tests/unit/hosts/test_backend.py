"""The backend of a host: what the user names, what was exported for NCCL or Gloo, else what is found."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from torchnet.config.job_spec import JobSpec
from torchnet.errors import NetworkError
from torchnet.hosts import backend
from torchnet.hosts.backend import ChosenBackend
from torchnet.hosts.host_endpoint import HostEndpoint
from torchnet.linux import rtnetlink
from torchnet.network.interface_selection import Address, Interface


def card(name: str, ip: str, length: int = 24) -> Interface:
    return Interface(name, 1, "02:00:00:00:00:01", 1500, True, True, (Address(ip, length, 4),))


CARDS = [
    card("lo", "127.0.0.1", 8),
    card("ens3", "192.0.2.5"),
    card("ens5", "10.7.0.5"),
    card("ens6", "10.6.0.5"),
    card("docker0", "172.17.0.1", 16),
]


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtnetlink, "interfaces", lambda: {one.name: one for one in CARDS})
    monkeypatch.setattr(rtnetlink, "default_interface", lambda family=4: "ens3" if family == 4 else "")
    monkeypatch.setattr(backend, "speed", lambda _name: None)


def choose(*networks: str, endpoint: str = "name-of-nobody.invalid", **environ: str) -> ChosenBackend:
    job = JobSpec.model_validate({"on": "hosts", "script": "x.py", "network": {"networks": list(networks)}})
    return backend.choose(job, HostEndpoint(endpoint, 1), environ)


@pytest.mark.parametrize(
    ("networks", "environ", "interfaces"),
    [
        ((), {}, ("ens6", "ens5")),
        (("host:ens3",), {}, ("ens3",)),
        (("host:ens5,ens6",), {}, ("ens5", "ens6")),
        (("host:10.7.0.0/16",), {"NCCL_SOCKET_IFNAME": "ens3"}, ("ens5",)),
        (("rdma:mlx5_0",), {}, ("ens6", "ens5")),
        ((), {"NCCL_SOCKET_IFNAME": "ens3"}, ("ens3",)),
        ((), {"NCCL_SOCKET_IFNAME": "=ens5"}, ("ens5",)),
        ((), {"NCCL_SOCKET_IFNAME": "ens5,ens6"}, ("ens6", "ens5")),
        ((), {"NCCL_SOCKET_IFNAME": "ens"}, ("ens6", "ens5", "ens3")),
        ((), {"NCCL_SOCKET_IFNAME": "^ens6,docker0"}, ("ens5",)),
        ((), {"NCCL_SOCKET_IFNAME": "^docker0,lo", "GLOO_SOCKET_IFNAME": "ens3"}, ("ens3",)),
        ((), {"GLOO_SOCKET_IFNAME": "ens5,"}, ("ens5",)),
        ((), {"GLOO_SOCKET_IFNAME": " "}, ("ens6", "ens5")),
    ],
)
def test_which_interfaces(
    networks: tuple[str, ...], environ: dict[str, str], interfaces: tuple[str, ...]
) -> None:
    found = choose(*networks, **environ)
    assert found.interfaces == interfaces
    assert found.networks.keys() == set(interfaces)
    assert found.source == f"host:{','.join(interfaces)}"
    assert not found.only_network


def test_the_user_learns_how_they_were_chosen() -> None:
    assert choose().why == "chosen automatically; not used: ens3"
    assert choose(NCCL_SOCKET_IFNAME="ens5").why == "by NCCL_SOCKET_IFNAME"
    assert choose("host:ens5").why == ""


@pytest.mark.parametrize("variable", ["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"])
def test_a_variable_that_names_no_card_of_this_host(variable: str) -> None:
    with pytest.raises(NetworkError, match=f"{variable}=eth7 names no interface") as caught:
        choose(**{variable: "eth7"})
    assert "ens3, ens5, ens6, docker0" in caught.value.text


def test_a_host_with_one_card(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {one.name: one for one in CARDS if one.name not in ("ens5", "ens6")}
    monkeypatch.setattr(rtnetlink, "interfaces", lambda: present)
    networks: tuple[tuple[str, ...], ...] = ((), ("host:ens3",))
    for named in networks:
        found = choose(*named)
        assert (found.interfaces, found.only_network) == (("ens3",), True)


def test_a_tunnel_beside_one_card_is_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {one.name: one for one in (*CARDS[:2], card("tailscale0", "100.64.0.7", 32))}
    monkeypatch.setattr(rtnetlink, "interfaces", lambda: present)
    assert (choose().interfaces, choose().only_network) == (("ens3",), False)
    assert not choose("host:tailscale0").only_network


@pytest.mark.parametrize(
    ("networks", "environ", "rank0", "interfaces"),
    [
        ((), {}, ("10.7.0.0/24",), ("ens5",)),
        ((), {}, ("10.7.0.0/24", "10.6.0.0/24"), ("ens5", "ens6")),
        ((), {}, ("10.99.0.0/24",), ("ens6", "ens5")),  # this host has no address there
        ((), {}, (), ("ens6", "ens5")),
        (("host:ens6",), {}, ("10.7.0.0/24",), ("ens6",)),
        ((), {"NCCL_SOCKET_IFNAME": "ens3"}, ("10.7.0.0/24",), ("ens3",)),
        ((), {"NCCL_SOCKET_IFNAME": "^ens5"}, ("10.7.0.0/24",), ("ens6",)),
        (
            (),
            {"NCCL_SOCKET_IFNAME": "^docker0,lo"},
            ("10.7.0.0/24",),
            ("ens5",),
        ),  # the default of many images
    ],
)
def test_rails_that_are_found_follow_those_of_node_0(
    networks: tuple[str, ...], environ: dict[str, str], rank0: tuple[str, ...], interfaces: tuple[str, ...]
) -> None:
    found = backend.follow(choose(*networks, **environ), rank0, ["eth0"] * len(rank0), "auto", "host-b")
    assert found.interfaces == interfaces
    assert found.networks.keys() == set(interfaces)
    if rank0 == ("10.7.0.0/24",) and not networks and not environ:
        assert found.why == "chosen as on node 0; not used: ens3, ens6"
    if rank0 == ("10.99.0.0/24",):
        assert found.why == "chosen automatically; not used: ens3; none is in node 0's 10.99.0.0/24"


@pytest.mark.parametrize(
    ("up", "addresses", "why"),
    [(True, (), "eth1: no address"), (False, (Address("10.7.0.5", 24, 4),), "eth1: down")],
)
def test_a_host_whose_card_is_not_ready_does_not_use_its_frontend_instead(
    up: bool, addresses: tuple[Address, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    eth1 = Interface("eth1", 2, "", 1500, True, up, addresses)
    present = {one.name: one for one in (*CARDS[:2], eth1)}
    monkeypatch.setattr(rtnetlink, "interfaces", lambda: present)
    chosen = choose()
    assert chosen.why == f"chosen automatically; not used: eth1 ({why.partition(': ')[2]})"
    with pytest.raises(
        NetworkError, match=f"host-b has no interface in node 0's backend 10.7.0.0/24 .{why}.\n"
    ) as caught:
        backend.follow(chosen, ("10.7.0.0/24",), ("eth1",), "auto", "host-b")
    assert "10.7.0.0/24" in caught.value.fix
    # With the card in another network, there may be routers between the hosts' networks.
    present["eth1"] = card("eth1", "10.8.0.5")
    assert backend.follow(choose(), ("10.7.0.0/24",), ("eth1",), "auto", "host-b").interfaces == ("eth1",)


def test_a_port_of_the_rails_that_is_in_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        here = ChosenBackend(("lo",), {"lo": "127.0.0.0/8"})
        with pytest.raises(OSError, match="in use"):
            backend.check_port(here, port)
    backend.check_port(here, port)


def test_the_network_is_given_by_the_address_that_gloo_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a card with both families is no ambiguity."""
    both: Any = Interface(
        "ens5", 1, "", 1500, True, True, (Address("2001:db8::5", 64, 6), Address("10.7.0.5", 24, 4))
    )
    monkeypatch.setattr(rtnetlink, "interfaces", lambda: {"ens5": both})
    assert choose("host:ens5").networks == choose().networks == {"ens5": "10.7.0.0/24"}
    assert choose("host:2001:db8::/64").networks == {"ens5": "2001:db8::/64"}
