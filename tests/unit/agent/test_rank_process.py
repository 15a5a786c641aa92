"""From bytes to lines: nothing is lost, whatever the bytes are and however they come."""

from __future__ import annotations

import itertools
import re
import time
from collections import deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from torchnet.agent.rank_process import PIECE, TAIL_CHARACTERS, TAIL_LINES, LineSplitter

# Bytes that matter often, and any others.
PARTS = st.one_of(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"ab", "é中".encode(), b"\xff", b"\x1b[0m", b"\0"]), st.binary()
)
IDLE = None


def emitted(chunks: list[bytes | None], *, close: bool = True) -> list[tuple[str, str]]:
    """What comes out when these chunks go in; None is a moment in which nothing comes."""
    found: list[tuple[str, str]] = []
    lines = LineSplitter(lambda text, end: found.append((text, end)))
    for chunk in chunks:
        lines.idle() if chunk is None else lines.feed(chunk)
    if close:
        lines.close()
    return found


def reference(data: bytes) -> list[tuple[str, str]]:
    """The lines of all of it at once, by other means."""
    pieces = re.split("(\r\n|\n|\r)", data.decode(errors="backslashreplace"))
    found = [
        (text, "\r" if end == "\r" else "\n") for text, end in zip(pieces[::2], pieces[1::2], strict=False)
    ]
    if pieces[-1]:
        return [*found, (pieces[-1], "\n")]
    # A carriage return at the end of all is no progress bar any more.
    return found[:-1] + [(text, "\n") for text, _ in found[-1:]]


@settings(deadline=None, max_examples=300)
@given(st.lists(PARTS, max_size=20))
@example([b"a\r", b"\n"])
@example([b"\r", b"\r"])
@example([b"\xe4\xb8", b"\xad\n"])
@example([b"\xe4\xb8"])
@example([b"\r", b"\xc2"])
def test_what_comes_out_is_what_went_in(chunks: list[bytes]) -> None:
    assert emitted(list(chunks)) == reference(b"".join(chunks))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(PARTS, st.just(None)), max_size=20))
@example([b"a\r", None, b"\n"])
@example([b"\xe4\xb8", None, b"\xad\n"])
def test_pauses_lose_and_add_nothing(chunks: list[bytes | None]) -> None:
    data = b"".join(chunk for chunk in chunks if chunk is not None)
    found = emitted(chunks)
    text = "".join(text + end for text, end in found)
    expected = data.decode(errors="backslashreplace")
    for letters in (
        "\r",
        "\n",
    ):  # "\r", a pause and "\n" are two ends; at the end of all stands one in any case
        text, expected = text.replace(letters, ""), expected.replace(letters, "")
    assert text == expected
    assert not found or found[-1][1]


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_the_cuts_between_reads_change_nothing(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(places)]
    assert emitted(list(chunks)) == emitted([data])


def test_a_prompt_is_shown_when_nothing_more_comes() -> None:
    assert emitted([b"name? "], close=False) == []
    assert emitted([b"name? ", IDLE], close=False) == [("name? ", "")]
    assert emitted([b"name? ", IDLE, b"Ada\n"], close=False) == [("name? ", ""), ("Ada", "\n")]
    assert emitted([b"name? ", IDLE]) == [("name? ", ""), ("", "\n")]
    assert emitted([IDLE, IDLE]) == []


def test_a_progress_bar_is_shown_as_it_moves() -> None:
    assert emitted([b"10 %\r", b"20 %\r", IDLE], close=False) == [("10 %", "\r"), ("20 %", "\r")]


def test_waiting_tells_whether_something_would_be_shown() -> None:
    lines = LineSplitter(lambda *_: None)
    seen = [lines.waiting]
    for part in (b"a", b"\n", b"b\n\r"):
        lines.feed(part)
        seen.append(lines.waiting)
    assert seen == [False, True, False, True]


def test_a_line_without_an_end_comes_in_pieces_and_in_bounded_memory() -> None:
    found: list[int] = []
    lines = LineSplitter(lambda text, _: found.append(len(text)))
    for _ in range(100):
        lines.feed(b"x" * 50_000)
    assert len(lines._rest) <= PIECE
    lines.close()
    assert sum(found) == 5_000_000
    assert max(found) == PIECE
    assert len(lines._line) <= TAIL_CHARACTERS


def test_many_short_lines_take_time_in_proportion() -> None:
    count = 0

    def emit(text: str, end: str) -> None:
        nonlocal count
        count += 1

    lines = LineSplitter(emit)
    before = time.process_time()
    for _ in range(16):
        lines.feed(b"x\n" * (32 << 10))
    assert count == 16 << 15
    # 0.4 s here. Looking for "\r" anew in all the rest at each line took 4.
    assert time.process_time() - before < 2


def test_the_tail_keeps_the_last_lines() -> None:
    tail: deque[tuple[float, str]] = deque(maxlen=TAIL_LINES)
    lines = LineSplitter(lambda *_: None, tail)
    before = time.monotonic()
    lines.feed(b"".join(b"line %d\n" % number for number in range(100)))
    lines.feed(b"  \n\n50 %\r60 %\rend")
    lines.close()
    assert [text for _, text in tail] == [*(f"line {number}" for number in range(81, 100)), "end"]
    assert all(before <= at <= time.monotonic() for at, _ in tail)
    lines = LineSplitter(lambda *_: None, tail)
    lines.feed(b"y" * 10_000 + b"\n")
    assert tail[-1][1] == "y" * TAIL_CHARACTERS
