"""What people see of the ranks: their lines with prefixes and colours, whole or not."""

from __future__ import annotations

import pytest

from tests.unit.screens import Screen
from torchnet.console.rank_output import PALETTE


def test_each_stream_goes_to_its_own_with_the_rank() -> None:
    screen = Screen()
    screen.output(0, "to out")
    screen.output(3, "to err", stream="stderr")
    assert (screen.stdout, screen.stderr) == ("[rank 0] to out\n", "[rank 3] to err\n")


def test_prefixes_are_aligned_and_can_be_searched_for() -> None:
    screen = Screen(world_size=100)
    for rank in (0, 10, 99):
        screen.output(rank, "x")
    assert screen.stdout == "[rank 0]  x\n[rank 10] x\n[rank 99] x\n"


def test_an_empty_line_has_no_blank_at_its_end() -> None:
    screen = Screen()
    screen.output(0, "")
    assert screen.stdout == "[rank 0]\n"


def test_ranks_filters_output_but_never_a_failure() -> None:
    screen = Screen(ranks=(0,))
    screen.output(0, "shown")
    screen.output(3, "hidden")
    screen.failure()
    screen.console.close()
    assert screen.stdout == "[rank 0] shown\n"
    assert "rank 3 on node-1 exited with code 42" in screen.stderr
    assert "[rank 3] boom" in screen.stderr


def test_an_unfinished_line_is_shown_at_once_and_goes_on() -> None:
    screen = Screen()
    screen.output(0, "name? ", end="")
    assert screen.stdout == "[rank 0] name? "
    screen.output(0, "and ", end="")
    screen.output(0, "more")
    assert screen.stdout == "[rank 0] name? and more\n"


def test_an_unfinished_line_is_closed_by_another_rank_and_resumed_with_a_prefix() -> None:
    screen = Screen()
    screen.output(0, "one ", end="")
    screen.output(1, "whole")
    screen.output(0, "two", end="")
    screen.output(0, "")
    screen.output(0, "next")
    assert screen.stdout == "[rank 0] one \n[rank 1] whole\n[rank 0] two\n[rank 0] next\n"


def test_the_end_of_a_line_that_was_closed_for_it_is_no_empty_line() -> None:
    screen = Screen()
    screen.output(0, "one", end="")
    screen.output(1, "whole")
    screen.output(0, "")
    assert screen.stdout == "[rank 0] one\n[rank 1] whole\n"


def test_an_unfinished_line_on_a_separate_stream_is_left_alone() -> None:
    screen = Screen()
    screen.output(0, "one ", end="")
    screen.notice("info", "something")
    screen.output(0, "two")
    assert screen.stdout == "[rank 0] one two\n"


def test_both_streams_on_one_terminal_know_each_other() -> None:
    screen = Screen(one=True)
    screen.output(0, "one ", end="")
    screen.output(0, "warning", stream="stderr")
    screen.output(0, "two")
    assert screen.stdout == "[rank 0] one \n[rank 0] warning\n[rank 0] two\n"


def test_close_ends_what_is_unfinished() -> None:
    screen = Screen()
    screen.output(0, "unfinished", end="")
    screen.console.close()
    screen.console.close()
    assert screen.stdout == "[rank 0] unfinished\n"


def test_a_line_of_64_kib_is_passed_whole() -> None:
    screen = Screen()
    screen.output(0, "x" * 65536, end="")
    screen.output(0, "y" * 65536)
    assert screen.stdout == f"[rank 0] {'x' * 65536}{'y' * 65536}\n"


@pytest.mark.parametrize(
    ("environ", "tty", "colored"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_when_colours_are_used(environ: dict[str, str], tty: bool, colored: bool) -> None:
    screen = Screen(environ=environ, tty=tty)
    screen.output(0, "\x1b[31mred")
    expected = f"\x1b[{PALETTE[0]}m[rank 0]\x1b[0m \x1b[31mred\x1b[0m\n" if colored else "[rank 0] red\n"
    assert screen.stdout == expected


def test_bytes_are_passed_on_as_they_are() -> None:
    """Nothing is added at the end, either: it may be JSON without a newline."""
    screen = Screen(ranks=(0,))
    for data in (b"a\rb\x1b[2J", b"\xc3\xa9\n", b"{}"):
        screen.raw(0, data)
    screen.raw(1, b"hidden")
    screen.raw(0, b"err", stream="stderr")
    screen.console.close()
    assert (screen.stdout, screen.stderr) == ("a\rb\x1b[2J\u00e9\n{}", "err")


def test_torchnets_lines_begin_anew_where_bytes_share_the_terminal() -> None:
    screen = Screen(one=True)
    screen.raw(0, b"half")
    screen.notice("info", "note")
    screen.raw(0, b" a line\n")
    screen.notice("info", "note")
    assert screen.stdout == "half\ntorchnet: note\n a line\ntorchnet: note\n"


def test_a_prefix_of_the_users() -> None:
    screen = Screen(prefix=lambda rank: f"{rank}> ")
    screen.output(3, "x")
    screen.output(3, "")
    assert screen.stdout == "3> x\n3>\n"
