"""What one TCP connection adds to a flow: each byte once, and apart from them what may have gone again."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from torchnet.agent.accounting import Flow
from torchnet.linux.sock_diag import SocketBytes

MSS = 1440
EMPTY = SocketBytes("fd00::1", "fd00::2", 7000, 40000, 0, 0, 0, 0, 0, 0, MSS, 0, 0, 1, 1, 1)
COUNTS = st.integers(0, 1 << 40)


def made(sent: int, again: int, received: int, segments: int) -> SocketBytes:
    return replace(
        EMPTY,
        sent_bytes=sent,
        tried_bytes=sent + again,
        received_bytes=received,
        segments_out=segments + 2,
        segments_in=segments + 1,
        data_segments_in=segments,
    )


def test_full_segments_leave_no_room_for_repeated_ones() -> None:
    flow = Flow()
    flow.add(made(1000, 0, 100 * MSS, 100))
    assert flow == Flow(1000, 100 * MSS, 102, 101, 0, 0, 1)
    flow.add(made(1000, 300, 100 * MSS, 103))
    assert (flow.resent_bytes, flow.repeated_bytes) == (300, 3 * MSS)


def test_small_segments_hide_no_more_than_they_carried() -> None:
    flow = Flow()
    flow.add(made(0, 0, 5_000, 1_000))
    assert flow.repeated_bytes == 5_000


@given(COUNTS, COUNTS, COUNTS, st.integers(0, 1 << 30), COUNTS, COUNTS, COUNTS, st.integers(0, 1 << 30))
def test_what_was_before_does_not_count(
    sent: int,
    again: int,
    received: int,
    segments: int,
    sent2: int,
    again2: int,
    received2: int,
    segments2: int,
) -> None:
    whole, alone = Flow(), Flow()
    base = made(sent, again, received, segments)
    whole.add(made(sent + sent2, again + again2, received + received2, segments + segments2), base)
    alone.add(
        replace(made(sent2, again2, received2, segments2), segments_out=segments2, segments_in=segments2)
    )
    assert whole == alone


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS, st.integers(0, 1 << 30))))
def test_flows_add_up(connections: list[tuple[int, int, int, int]]) -> None:
    one, parts = Flow(), Flow()
    for connection in connections:
        one.add(made(*connection))
        part = Flow()
        part.add(made(*connection))
        parts.merge(part)
    assert one == parts
    assert one.total == sum(sent + received for sent, _, received, _ in connections)
    assert one.resent_bytes == sum(again for _, again, _, _ in connections)
    assert one.repeated_bytes <= one.received_bytes
