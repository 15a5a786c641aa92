"""Whatever a console is told, out of a pod's log or by a broken agent: it goes on, and the terminal stays clean."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.receipts import receipt
from tests.unit.screens import Screen
from torchnet.console.terminal import ERASE

# Everything that a terminal acts on, apart from the newlines and tabs that torchnet means.
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
HUGE = 10**400  # JSON has it, and no float has
BAD = ("\x1b]0;owned\x07", "\x1b[2J", "a\r\n\x00b", "\u202e", "\ud800", "", "\n", "3", "nan")

TEXTS = st.text(st.characters(exclude_categories=()), max_size=8) | st.sampled_from(BAD)
NUMBERS = st.integers() | st.floats() | st.sampled_from((0, -1, HUGE, -HUGE))
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    *("node", "phase", "text", "level", "attempt", "rank", "stream", "data", "end", "kind", "code"),
    *("tail", "at", "restart", "receipt", "ranks", "failure"),
)
KINDS = ("phase", "notice", "started", "output", "failure", "stall", "receipt", "stopping", "end")
FAILURE = {
    "kind": "script",
    "rank": 3,
    "node": "node-1",
    "code": 42,
    "text": "boom",
    "tail": ["x"],
    "at": 1.0,
}


def changed(whole: Any, path: list[int], value: Any) -> Any:
    """``whole`` with ``value`` somewhere in it, or beside what is there."""
    if not path or not isinstance(whole, (dict, list)) or not whole:
        return value
    keys = list(whole) if isinstance(whole, dict) else list(range(len(whole)))
    key, copy = keys[path[0] % len(keys)], whole.copy()
    copy[key] = changed(whole[key], path[1:], value)
    return copy


PATHS = st.lists(st.integers(0, 40), max_size=5)
EVENTS = st.one_of(
    st.fixed_dictionaries({"event": st.sampled_from(KINDS)}, optional=dict.fromkeys(FIELDS, JUNK)),
    st.fixed_dictionaries({"event": JUNK}),
    st.builds(
        lambda path, value: {"event": "failure"} | dict(changed(FAILURE, [path], value)),
        st.integers(0, 6),
        JUNK,
    ),
    st.builds(
        lambda path, value, fails: {
            "event": "receipt",
            "receipt": changed(
                receipt(failure=FAILURE if fails else None, exit_code=42 * fails), path, value
            ),
        },
        PATHS,
        JUNK,
        st.booleans(),
    ),
)


@settings(deadline=None, max_examples=300)
@given(
    events=st.lists(EVENTS, max_size=6),
    options=st.fixed_dictionaries(dict.fromkeys(("quiet", "tty", "color", "one"), st.booleans())),
)
def test_nothing_is_raised_and_nothing_acts_on_the_terminal(
    events: list[dict[str, Any]], options: dict[str, bool]
) -> None:
    screen = Screen(**options)
    for event in events:
        screen.console.event(event)
    screen.console.close()
    shown = screen.stderr + screen.stdout
    if options["color"]:
        shown = COLOURS.sub("", shown)
    if options["tty"]:
        shown = shown.replace(ERASE, "")
    assert not ACTS.search(shown), ascii(shown)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": "x"},
        {"rank": [3]},
        {"rank": float("inf")},
        {"code": {}},
        {"tail": 5},
        {"at": HUGE},
    ],
    ids=lambda value: f"{value}"[:20],
)
def test_a_malformed_failure_is_told_and_is_no_cause(wrong: dict[str, Any]) -> None:
    screen = Screen()
    screen.failure(**wrong)
    screen.failure(rank=0, text="rank 0 on node-0 exited with code 42", tail=["boom"], at=2.0)
    screen.console.close()
    assert "malformed" in screen.stderr
    assert "root cause: rank 0 on node-0" in screen.stderr


def test_a_receipts_failure_counts_only_if_the_receipt_can_be_read() -> None:
    screen = Screen()
    broken = receipt(failure={"rank": "\x1b[2J", "tail": 5}, exit_code=42)
    screen.console.event({"event": "receipt", "receipt": broken})
    screen.console.close()
    assert screen.stderr.startswith("torchnet: error: malformed receipt: failure.")
    assert screen.stderr.count("\n") == 1


def test_a_receipt_of_counts_that_no_float_has_is_told() -> None:
    screen = Screen()
    nodes = receipt()["nodes"]
    nodes[0]["interfaces"]["net1"]["sent_bytes"] = HUGE
    screen.console.event({"event": "receipt", "receipt": receipt(nodes=nodes)})
    assert "malformed event (OverflowError" in screen.stderr


def test_a_level_is_a_word_and_no_escape() -> None:
    screen = Screen()
    screen.notice("\x1b[2J", "text")
    assert screen.stderr == "torchnet: \\x1b[2J: text\n"


def test_what_cannot_be_read_is_shown_in_short() -> None:
    nested: Any = "x"
    for _ in range(5000):
        nested = [nested]
    screen = Screen()
    screen.console.event({"event": "output", "rank": nested, "data": "y" * 100_000})
    assert "malformed" in screen.stderr
    assert len(screen.stderr) < 1000
