"""Rates, durations, sizes and ranks, as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.config import parsing

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.one_of(st.integers(), st.text())),
    st.dictionaries(st.text(), st.text()),
)
PARSERS = (
    parsing.parse_whole,
    parsing.parse_number,
    parsing.parse_switch,
    parsing.parse_rate,
    parsing.parse_duration,
    parsing.parse_ranks,
    parsing.parse_text,
    parsing.parse_nonempty,
    parsing.parse_texts,
    parsing.parse_list,
    parsing.parse_label,
    parsing.parse_variables,
    parsing.parse_streams,
)


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@settings(deadline=None)
@given(value=ANYTHING)
def test_a_parser_returns_or_says_what_is_wrong(parse: object, value: object) -> None:
    assert callable(parse)
    said = "nothing is wrong"
    try:
        parse(value)
    except ValueError as error:
        said = str(error)
    assert said


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("1gbit", 10**9),
        ("2.5gbit", 2_500_000_000),
        ("2.3gbit", 2_300_000_000),  # 2.3 * 10**9 is no whole number in floating point
        ("100mbit", 10**8),
        (" 10 Mbit ", 10**7),
        ("1Gbit/s", 10**9),
        ("1gibit", 2**30),
        ("1500", 1500),
        (1500, 1500),
        (1500.0, 1500),
    ],
)
def test_rates_are_read_as_tc_reads_them(text: object, bits: int) -> None:
    assert parsing.parse_rate(text) == bits


@pytest.mark.parametrize(
    "text", ["fast", "", "1", "-1gbit", "1e9", "1.5bit", "gbit", "1 g", "nan", "\0", True, [1], math.inf]
)
def test_what_is_no_rate(text: object) -> None:
    if text == "1":
        assert parsing.parse_rate(text) == 1  # of a bit: the field's own lower bound refuses it
        return
    with pytest.raises(ValueError, match="is not a rate"):
        parsing.parse_rate(text)


def test_tcs_bytes_per_second_are_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        parsing.parse_rate("1gbps")


@settings(deadline=None)
@given(st.integers(min_value=1, max_value=10**13))
def test_a_rate_survives_being_shown(bits: int) -> None:
    assert parsing.parse_rate(parsing.format_rate(bits)) == bits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("10s", 10),
        ("5min", 300),
        ("5m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1 h 5 s", 3605),
        (0, 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parsing.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-1", "-1s", "1y", "1h30", "s", "1.s", "nan", "inf", math.nan, math.inf, -1, True, None],
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parsing.parse_duration(text)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**7))
def test_a_whole_duration_survives_being_shown(seconds: int) -> None:
    assert parsing.parse_duration(parsing.format_duration(float(seconds))) == seconds


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("0,3", (0, 3)),
        ("0-3", (0, 1, 2, 3)),
        ("3,0-1,1", (0, 1, 3)),
        ("", ()),
        (2, (2,)),
        ([3, 0], (0, 3)),
        (" 1 , 2 - 3 ", (1, 2, 3)),
    ],
)
def test_ranks(text: object, ranks: tuple[int, ...]) -> None:
    assert parsing.parse_ranks(text) == ranks


@pytest.mark.parametrize(
    "text", ["a", "1,", "3-1", "-1", "0-99999999", "0-9999999", "1000000", [-1], [True], 1.0, None]
)
def test_what_are_no_ranks(text: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsing.parse_ranks(text)


@settings(deadline=None)
@given(st.sets(st.integers(min_value=0, max_value=5000)))
def test_ranks_survive_being_written(ranks: set[int]) -> None:
    assert parsing.parse_ranks(",".join(map(str, ranks))) == tuple(sorted(ranks))


@pytest.mark.parametrize("word", ["1", "true", "YES", "on", True])
def test_switches_that_are_on(word: object) -> None:
    assert parsing.parse_switch(word) is True


@pytest.mark.parametrize("word", ["0", "false", "No", "off", "", False])
def test_switches_that_are_off(word: object) -> None:
    assert parsing.parse_switch(word) is False


def test_a_boolean_is_no_number() -> None:
    for parse in (parsing.parse_whole, parsing.parse_number):
        with pytest.raises(ValueError, match="is not a"):
            parse(True)


@pytest.mark.parametrize("name", ["a", "run-1", "0", "a" * 63])
def test_labels(name: str) -> None:
    assert parsing.parse_label(name) == name


@pytest.mark.parametrize(
    "name", ["", "a" * 64, "../x", "Run", "a_b", "-a", "a-", "a\0b", "a\n", "ä", "a b", "a.b"]
)
def test_what_is_no_label(name: str) -> None:
    with pytest.raises(ValueError, match=r"DNS label|64 characters"):
        parsing.parse_label(name)


@pytest.mark.parametrize("text", ["0", "3", "0:1", "0:1,1:3"])
def test_streams(text: str) -> None:
    assert parsing.parse_streams(text) == text


@pytest.mark.parametrize("text", ["4", "0:4", "0:", "a", "", "1,2", "0:1,", -1, 4, True])
def test_what_are_no_streams(text: object) -> None:
    with pytest.raises(ValueError, match="LOCAL_RANK"):
        parsing.parse_streams(text)


def test_variables_of_a_file_become_text() -> None:
    assert parsing.parse_variables({"A": 1, "B": True, "C": 0.5, "D": ""}) == {
        "A": "1",
        "B": "1",
        "C": "0.5",
        "D": "",
    }


def test_arguments_that_are_no_unicode_stay_as_they_are() -> None:
    assert parsing.parse_texts(["\udcff", "a\nb", ""]) == ("\udcff", "a\nb", "")


def test_half_a_surrogate_pair_cannot_be_given_to_a_process() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        parsing.parse_text("\ud800")


@settings(deadline=None)
@given(ANYTHING)
def test_a_quoted_value_is_short_and_harmless(value: object) -> None:
    shown = parsing.quote(value)
    assert shown.isprintable()
    assert len(shown) < 1000


def test_a_number_of_many_digits_can_be_shown() -> None:
    assert "30 digits" in parsing.quote(1 << 100_000)
