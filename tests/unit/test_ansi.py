"""No output of a script leaves a terminal in another state: the grammar of what gets through."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torchnet.ansi import RESET, TerminalLine, cells, clean, clip

SGR = re.compile(r"\x1b\[[0-9;:]*m")
HARMFUL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# Sequences that change more than a colour, in whole and in part, between ordinary text.
FRAGMENTS = st.sampled_from(
    ["\x1b", "\x1b[", "\x1b]", "\x1bP", "\x1b\\", "\x9b", "\x9d", "\x07", "\x08", "\x00", "\r", "\n", "\x85"]
    + ["\x1b[31m", "\x1b[0m", "\x1b[m", "\x1b[1;38;5;9m", "\x1b[4:3m", "\x1b[31"]
    + ["\x1b[>4;2m", "\x1b[?4m", "\x1b[ m"]  # these end as colours do
    + [
        "\x1b[?1049h",
        "\x1b[2J",
        "\x1b[10;10H",
        "\x1b[6n",
        "\x1b[!p",
        "\x1bc",
        "\x1b(0",
        "\x1b#8",
        "\x0e",
        "\x1b%G",
    ]
    + ["\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x1b]52;c;aGk=\x07", "\x1bPq#0\x1b\\", "\x1b_G\x1b\\"]
    + ["\u202e", "\u2066", "\u2028", "\udc9b", "m", "[", "text", "ä", "日本", "\t", ";", "0"]
)
HOSTILE = st.lists(FRAGMENTS | st.text(max_size=8), max_size=30).map("".join)


def harmless(shown: str) -> bool:
    colours = SGR.findall(shown)
    closed = not colours or shown.endswith(RESET)  # whatever came before, the line's last word is "as it was"
    return closed and not HARMFUL.search(SGR.sub("", shown))


@given(HOSTILE)
@example("\x1b\x1b[2J[31m")
@example("\x1b[\x1b[2J2J")
def test_only_colours_that_are_closed_get_through(text: str) -> None:
    assert harmless(clean(text, colour=True))


@given(st.binary(max_size=200))
def test_no_bytes_get_through_but_colours_that_are_closed(data: bytes) -> None:
    for errors in ("surrogateescape", "replace", "backslashreplace"):
        assert harmless(clean(data.decode("utf-8", errors), colour=True))


@given(HOSTILE)
def test_without_colours_no_escape_gets_through(text: str) -> None:
    assert not HARMFUL.search(clean(text))


@given(st.lists(HOSTILE, min_size=1, max_size=6))
def test_pieces_are_as_harmless_as_the_whole(pieces: list[str]) -> None:
    line = TerminalLine(colour=True)
    shown = [line.feed(piece, last=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
    for piece in shown:
        assert harmless(piece), shown


@given(HOSTILE, st.integers(0, 40))
def test_pieces_say_what_the_whole_says(text: str, cut: int) -> None:
    line = TerminalLine(colour=True)
    pieces = line.feed(text[:cut], last=False) + line.feed(text[cut:], last=True)
    assert SGR.sub("", pieces) == SGR.sub("", clean(text, colour=True))


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=80))
def test_ordinary_text_stays(text: str) -> None:
    assert clean(text) == text == clean(text, colour=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m and", "\x1b[31mred\x1b[0m and\x1b[0m"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[1m\x1b[31mopen", "\x1b[1m\x1b[31mopen\x1b[0m"),
        ("a\x1b]0;owned\x07b", "ab"),
        ("a\x1b]0;never ended", "a\\x1b]0;never ended"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x1b[2Kb\x1b[1Ac", "abc"),
        ("\x1b[>4;2mx", "x"),
        ("\x1b(0lqqk\x1b(B", "lqqk"),
        ("bell\x07 back\x08", "bell back"),
        ("nul\x00 c1\x9b31m", "nul\\x00 c1\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff\udc00", "\\xff\\udc00"),
        ("tab\tstays 👩‍💻", "tab\tstays 👩‍💻"),
    ],
)
def test_what_becomes_of_what(text: str, shown: str) -> None:
    assert clean(text, colour=True) == shown


def test_a_colour_goes_on_in_the_next_piece_and_ends_with_the_line() -> None:
    line = TerminalLine(colour=True)
    assert line.feed("\x1b[31mred ", last=False) == "\x1b[31mred \x1b[0m"
    assert line.feed("more", last=False) == "\x1b[31mmore\x1b[0m"
    assert line.feed("", last=True) == ""
    assert line.feed("plain", last=True) == "plain"


def test_a_sequence_cut_in_two_is_one() -> None:
    line = TerminalLine(colour=True)
    assert line.feed("a\x1b[3", last=False) == "a"
    assert line.feed("1mb\x1b]0;ti", last=False) == "\x1b[31mb\x1b[0m"
    assert line.feed("tle\x07c", last=True) == "\x1b[31mc\x1b[0m"


def test_a_sequence_that_never_ends_is_not_kept_for_ever() -> None:
    line = TerminalLine(colour=True)
    line.feed("\x1b]" + "x" * 3000, last=False)
    assert line.feed("y" * 3000, last=False).startswith("\\x1b]xxx")


@pytest.mark.parametrize(
    "pattern", ["\x1b", "\x1b[", "\x1b]", "\x1b[1;", "\x1b]x", "\x00", "\x1b[31m", "\x1bP\x1b"]
)
def test_time_is_linear(pattern: str) -> None:
    def timed(count: int) -> float:
        text, start = pattern * (count // len(pattern)), time.perf_counter()
        clean(text, colour=True)
        TerminalLine(colour=True).feed(text, last=False)
        return time.perf_counter() - start

    timed(1000)
    assert timed(1 << 16) < 1.0


def test_clip_counts_cells_and_closes_colours() -> None:
    assert clip("abcdef", 3) == "abc"
    assert clip("日本語", 5) == "日本"
    assert clip("e\u0301e\u0301e", 2) == "e\u0301e\u0301"
    assert clip("\x1b[31mabc\x1b[0m", 2) == "\x1b[31mab\x1b[0m"
    assert clip("a\tb", 3) == "a b"
    assert cells("\x1b[31m日本\x1b[0m") == 4
