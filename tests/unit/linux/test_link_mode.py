"""The mode of an ipvlan, which a kernel without ipvlan cannot show: from a message as the kernel composes it."""

from __future__ import annotations

import struct

import pytest

from torchnet.linux.netlink import HEADER
from torchnet.linux.rtnetlink import NEWLINK, Link


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


@pytest.mark.parametrize(
    ("kind", "number", "mode"),
    [("ipvlan", 0, "l2"), ("ipvlan", 1, "l3"), ("ipvlan", 2, "l3s"), ("ipvlan", 3, ""), ("macvlan", 1, "")],
)
def test_an_ipvlans_mode_is_named_and_another_kinds_is_not(kind: str, number: int, mode: str) -> None:
    about = attribute(1, kind.encode() + b"\0") + attribute(2, attribute(1, struct.pack("=H", number)))
    body = struct.pack("=BxHiII", 0, 1, 7, 1, 0) + attribute(3, b"net1\0") + attribute(18, about)
    link = Link.decode(HEADER.pack(HEADER.size + len(body), NEWLINK, 0, 1, 0) + body)
    assert (link.name, link.kind, link.mode) == ("net1", kind, mode)


def test_an_ipvlan_that_says_no_mode_has_none() -> None:
    body = struct.pack("=BxHiII", 0, 1, 7, 1, 0) + attribute(18, attribute(1, b"ipvlan\0"))
    assert Link.decode(HEADER.pack(HEADER.size + len(body), NEWLINK, 0, 1, 0) + body).mode == ""
