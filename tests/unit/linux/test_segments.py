"""Segments of a connection beyond what the kernel's 32 bits hold."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from torchnet.linux import sock_diag
from torchnet.linux.sock_diag import unwrapped

MSS = 1440
TURN = 1 << 32


@given(st.integers(0, 24 * TURN), st.floats(0.98, 1))
def test_full_segments_are_counted_on(segments: int, full: float) -> None:
    payload = int(segments * full) * MSS
    assert unwrapped(segments % TURN, payload, MSS) == segments


@given(st.integers(0, TURN - 1), st.integers(0, MSS))
def test_small_segments_are_what_the_kernel_says(segments: int, size: int) -> None:
    assert unwrapped(segments, segments * size, MSS) == segments


@given(st.integers(1, TURN // 100), st.integers(1, 45))
def test_segments_that_a_card_has_joined_are_no_turns(frames: int, each: int) -> None:
    assert unwrapped(frames, frames * each * MSS, MSS) == frames


def test_an_unknown_size_changes_nothing() -> None:
    assert unwrapped(7, 1 << 60, 0) == 7


@given(st.integers(0, TURN - 1), st.integers(0, TURN - 1))
def test_acknowledgements_are_the_rest_whatever_has_turned(data: int, acknowledgements: int) -> None:
    info = bytearray(232)  # struct tcp_info
    struct.pack_into("=I", info, sock_diag._SEGS_IN, (data + acknowledgements) % TURN)
    struct.pack_into("=I", info, sock_diag._DATA_SEGS_IN, data)
    assert sock_diag._difference(bytes(info), sock_diag._SEGS_IN, sock_diag._DATA_SEGS_IN) == acknowledgements
