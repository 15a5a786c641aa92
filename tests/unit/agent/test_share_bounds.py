"""The bounds of the share hold the truth, whatever consistent with the counts the bytes did."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.agent.share_bounds import (
    SLACK_BYTES,
    Interface,
    Observation,
    PeerPayload,
    payload,
    share,
)

MB = 1_000_000
NAMES = {"net1": True, "net2": True, "eth0": False, "eth1": False}  # and whether it is of the backend


@dataclass(frozen=True)
class Traffic:
    """What really went one way: TCP or UDP, from sockets with an address of ``claimed``, over ``carrier``."""

    carrier: str
    claimed: str  # the interface of the socket's address; "" if the two ends' addresses differ
    peer: bool
    seen: bool  # whether the socket's count is known
    udp: bool
    size: int
    packets: int
    header: int  # of each packet, with Ethernet


def observe(traffic: list[Traffic]) -> Observation:
    seen = [one for one in traffic if one.seen and not one.udp]
    udp = [one for one in traffic if one.udp]
    return Observation(
        [
            Interface(
                name,
                backend,
                sum(one.size + one.packets * one.header for one in traffic if one.carrier == name),
                sum(one.packets for one in traffic if one.carrier == name),
                sum(one.size for one in seen if one.claimed == name and one.peer),
                sum(one.size for one in seen if one.claimed == name and not one.peer),
                tcp_header=40,
                link_header=14,
            )
            for name, backend in NAMES.items()
        ],
        unplaced=sum(one.size for one in seen if one.peer and not one.claimed),
        datagrams=sum(one.packets for one in udp),
        sockets_lost=any(not one.seen and not one.udp for one in traffic),
    )


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    carrier = draw(st.sampled_from(list(NAMES)))
    udp, peer = draw(st.booleans()), draw(st.booleans())
    size = draw(st.integers(0, 10 * MB))
    least = -(-size // 65_000)
    return Traffic(
        carrier,
        "" if peer and draw(st.integers(0, 3)) == 0 else carrier,
        peer,
        draw(st.integers(0, 3)) > 0,
        udp,
        size,
        draw(st.integers(least, least + 5_000)),
        draw(st.integers(42 if udp else 54, 114)),
    )


def within(traffic: list[Traffic]) -> None:
    """The truth is within the bounds of both sums, and of the share."""
    there = [one for one in traffic if one.peer]
    backend = sum(one.size for one in there if NAMES.get(one.carrier))
    elsewhere = sum(one.size for one in there) - backend
    counted = sum(one.size for one in there if one.seen and not one.udp)
    found = payload([observe(traffic)], counted)
    assert found.backend_low <= backend <= found.backend_high
    assert found.elsewhere_low <= elsewhere <= found.elsewhere_high
    bounds = share(found)
    if bounds is not None and backend + elsewhere:
        assert bounds[0] <= backend / (backend + elsewhere) <= bounds[1]


@given(st.lists(traffics(), max_size=8))
def test_the_truth_is_within_the_bounds(traffic: list[Traffic]) -> None:
    within(traffic)


@given(
    st.lists(traffics(), max_size=8),
    st.lists(st.sampled_from(list(NAMES)), min_size=8, max_size=8),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_connections_that_took_another_interface_are_within_the_bounds(
    traffic: list[Traffic], claims: list[str], over_lo: list[bool]
) -> None:
    """As long as nothing unknown hides it, the counters show that they did not use their address's interface."""
    known = [replace(one, seen=True, udp=False, header=54) for one in traffic]
    moved = [
        replace(one, claimed=claim, carrier="lo" if lo else one.carrier) if one.peer and one.claimed else one
        for one, claim, lo in zip(known, claims, over_lo, strict=False)
    ]
    within(moved)


@given(st.lists(traffics(), max_size=8))
def test_without_leaks_the_share_of_counted_connections_is_exact(traffic: list[Traffic]) -> None:
    exact = [replace(one, claimed=one.carrier, seen=True, udp=False, header=54) for one in traffic]
    found = payload([observe(exact)], sum(one.size for one in exact))
    assert (found.backend_low, found.elsewhere_low) == (found.backend_high, found.elsewhere_high)
    assert found.unattributed == ()


NET1 = Interface("net1", True, 4 * MB, 0, 4 * MB)
LEFT = {  # what eth0 counts beside 4 MB over net1: (observation, lower bound, reason)
    "nothing": ({"bytes": 0}, {}, 1.0, None),
    "below the slack": ({"bytes": SLACK_BYTES - 1}, {}, 1.0, None),
    "beyond the slack": ({"bytes": SLACK_BYTES + MB}, {}, 0.779564, "remainder"),
    "100 kB of UDP": ({"bytes": 100_000}, {"datagrams": 100}, 0.97561, "datagrams"),
    "a datagram": ({"bytes": 100_000}, {"datagrams": 1}, 0.983881, "datagrams"),
    "a reset": ({"bytes": 4 * MB}, {"sockets_lost": True}, 0.5, "sockets-lost"),
    "no protocol counters": ({"bytes": 4 * MB}, {"datagrams": None}, 0.5, "counters-lost"),
    "a connection of both": ({"bytes": 4 * MB}, {"unplaced": 4 * MB}, 0.5, "unplaced"),
    "one of net1": ({"bytes": 4 * MB}, {}, 0.0, "moved"),
    "others": ({"bytes": 4 * MB, "rest": 4 * MB}, {}, 1.0, None),
    "repeated": ({"bytes": 4 * MB, "rest": 3 * MB, "repeated": MB}, {}, 1.0, None),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_the_frontend_has_left_lowers_the_lower_bound(case: str) -> None:
    counts, fields, low, reason = LEFT[case]
    net1 = replace(NET1, bytes=0) if case == "one of net1" else NET1
    seen = Observation([net1, Interface("eth0", False, **{"packets": 0, **counts})], **fields)  # type: ignore[arg-type]
    found = payload([seen], 4 * MB)
    bounds = share(found)
    assert bounds is not None
    high = 0.5 if reason == "unplaced" else 1.0  # nothing but that can have been on eth0
    assert list(bounds) == pytest.approx([low, high], abs=2e-6)
    assert {one.reason for one in found.unattributed if one.interface == "eth0"} == (
        {reason} if reason else set()
    )


def test_the_end_of_a_stream_is_no_missing_byte() -> None:
    one = replace(NET1, peers=4 * MB + 3, ends=3)
    found = payload([Observation([one])], 4 * MB)
    assert (found.backend_low, found.elsewhere_high, found.unattributed) == (4 * MB, 0, ())


def test_the_bounds_are_rounded_outward() -> None:
    assert share(PeerPayload(10**9 - 1, 10**9 - 1, 1, 1)) == (0.999999, 1.0)
    assert share(PeerPayload(1, 1, 10**9, 10**9)) == (0.0, 0.000001)
    assert share(PeerPayload(3, 3, 7, 7)) == (0.3, 0.3)
    assert share(PeerPayload(0, 5, 0, 0)) is None
