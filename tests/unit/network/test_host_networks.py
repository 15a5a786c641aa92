"""``--network host:…`` and ``rdma:…``, and what they select on a host."""

from __future__ import annotations

import pytest

from torchnet.errors import NetworkError
from torchnet.network.host_networks import HostNetwork, parse_host_network, select_backend
from torchnet.network.interface_selection import Address, Interface


def interface(name: str, *addresses: str) -> Interface:
    pairs = [address.split("/") for address in addresses]
    found = tuple(Address(ip, int(length), 6 if ":" in ip else 4) for ip, length in pairs)
    return Interface(name, 1, "02:00:00:00:00:01", 1500, True, True, found)


HOST = {
    one.name: one
    for one in (
        interface("lo", "127.0.0.1/8"),
        interface("eth0", "192.168.7.1/24"),
        interface("ens5", "10.10.3.1/24", "fe80::1/64"),
        interface("ens6", "10.10.4.1/24"),
        interface("ens7"),
    )
}


def selected(*texts: str, devices: tuple[str, ...] = ("mlx5_0", "mlx5_1")) -> tuple[tuple[str, ...], ...]:
    networks = [network for text in texts for network in parse_host_network(text)]
    found = select_backend(networks, HOST, devices)
    return found.interfaces, found.prefixes, found.devices


def test_networks_select_interfaces_members_and_devices() -> None:
    assert selected("host:ens5") == (("ens5",), ("10.10.3.0/24", "fe80::/64"), ())
    # Interfaces are named by one of their addresses, and members are those of the whole network.
    assert selected("host:10.10.9.9/16") == (("ens5", "ens6"), ("10.10.0.0/16",), ())
    assert selected("host:ens6,ens5", "rdma:mlx5_1") == (
        ("ens6", "ens5"),
        ("10.10.4.0/24", "10.10.3.0/24", "fe80::/64"),
        ("mlx5_1",),
    )
    assert selected("host:ens5,10.10.3.0/24")[0] == ("ens5",)
    assert selected() == ((), (), ())
    networks = [HostNetwork("host", name) for name in ("ens5", "10.10.3.0/24", "10.10.0.0/16")]
    assert select_backend(networks, HOST, ()).networks == {"ens5": "10.10.3.0/24", "ens6": "10.10.0.0/16"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("host:eth9,10.99.0.0/16", ("eth9", "10.99.0.0/16", "ens5")),
        ("host:ens7", ("ens7",)),
        ("rdma:mlx5_2", ("mlx5_2", "mlx5_0")),
    ],
)
def test_what_the_host_does_not_have_is_refused_with_what_it_has(text: str, named: tuple[str, ...]) -> None:
    with pytest.raises(NetworkError) as caught:
        selected(text)
    assert [name for name in named if name not in caught.value.text] == []


@pytest.mark.parametrize(
    "text",
    [
        "host:",
        "host:=ens5",
        "host:a/b",
        "host:fe80::/64",
        "host:ens5,ens5",
        "rdma:x/y",
        "rdma:",
        "ens5",
        "dra:x",
    ],
)
def test_invalid_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is "):
        parse_host_network(text)


def test_a_network_is_printed_as_it_is_read() -> None:
    for text in ("host:ens5", "host:10.10.0.0/16", "host:fd00::/48", "rdma:mlx5_0"):
        (network,) = parse_host_network(text)
        assert str(network) == text
    assert parse_host_network("host:10.10.9.9/16") == [HostNetwork("host", "10.10.0.0/16")]
