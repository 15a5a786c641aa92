"""Foreign text: nothing that a terminal could act on gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.text import listed, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("net1", "net1"),
        ("größe 日本", "größe 日本"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("$(reboot)", "$(reboot)"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_result_is_harmless_and_stays(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable(shown) == shown


def test_limit_says_how_long_it_was() -> None:
    assert printable("x" * 100, 10) == "x" * 10 + "… (100 characters)"
    assert printable("x" * 10, 10) == "x" * 10


def test_listed() -> None:
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed([f"n{i}" for i in range(1000)]) == "n0, n1, n2 and 997 more"
    assert "\n" not in listed(["a\nb"])
