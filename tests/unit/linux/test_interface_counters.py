"""Which interfaces' disappearance matters, and whose byte counts contain Ethernet headers."""

from __future__ import annotations

import pytest

from torchnet.linux import rtnetlink
from torchnet.linux.rtnetlink import Counters, Link


def test_pairs_without_an_address_come_and_go_with_containers() -> None:
    base = {
        "eth0": Counters(1, 1),
        "cali1": Counters(1, 1, pair=True),
        "veth0": Counters(1, 1, pair=True),
        "port": Counters(1, 1, master="bridge"),
    }
    assert rtnetlink.vanished(base, {}, {"veth0"}) == ("eth0", "veth0")
    assert rtnetlink.vanished(base, base, {"veth0"}) == ()


@pytest.mark.parametrize(
    ("kind", "hardware", "counted"),
    [
        ("", 1, True),
        ("", 772, False),
        ("veth", 1, True),
        ("macvlan", 1, True),
        ("tun", 1, False),
        ("vlan", 1, False),
    ],
)
def test_cards_count_the_ethernet_header(kind: str, hardware: int, counted: bool) -> None:
    assert rtnetlink.counts_ethernet(Link("net0", 2, hardware, kind=kind)) == counted
