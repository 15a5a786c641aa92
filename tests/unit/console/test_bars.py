"""Progress bars and other carriage returns, on a terminal and in a pipe."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.screens import Screen

ERASE = "\r\x1b[K"


def bar(screen: Screen, states: list[str], step: float, rank: int = 0) -> None:
    """As tqdm writes them: a carriage return before each state, a newline at the end."""
    for state in states:
        screen.output(rank, "", end="\r", stream="stderr")
        screen.output(rank, state, end="", stream="stderr")
        screen.now += step
    screen.output(rank, "", end="\n", stream="stderr")


def test_a_bar_in_a_pipe_is_two_lines_a_second_and_the_last() -> None:
    screen = Screen()
    bar(screen, [f"{n} %" for n in range(101)], step=0.1)
    lines = screen.stderr.splitlines()
    assert lines[0] == "[rank 0] 0 %"
    assert lines[-1] == "[rank 0] 100 %"
    assert 18 <= len(lines) <= 22


def test_a_bar_that_ends_its_states_in_carriage_returns() -> None:
    screen = Screen()
    for n in range(101):
        screen.output(0, f"{n} %", end="\r")
    screen.output(0, "")
    screen.output(0, "after")
    assert screen.stdout == "[rank 0] 0 %\n[rank 0] 100 %\n[rank 0] after\n"


def test_the_newest_state_is_shown_when_its_time_has_come() -> None:
    screen = Screen()
    screen.output(0, "1 %", end="\r")
    screen.output(0, "2 %", end="\r")
    assert screen.stdout == "[rank 0] 1 %\n"
    screen.now += 1
    screen.console.tick()
    assert screen.stdout == "[rank 0] 1 %\n[rank 0] 2 %\n"


def test_the_last_state_is_not_lost_at_the_end() -> None:
    screen = Screen()
    screen.output(0, "1 %", end="\r")
    screen.output(0, "2 %", end="\r")
    screen.console.close()
    assert screen.stdout == "[rank 0] 1 %\n[rank 0] 2 %\n"


def test_lines_that_end_in_cr_lf_are_lines() -> None:
    screen = Screen()
    for line in ("one", "one", "", "three"):
        screen.output(0, line, end="\r")
        screen.output(0, "", end="\n")
    assert screen.stdout == "[rank 0] one\n[rank 0] one\n[rank 0]\n[rank 0] three\n"


def test_a_line_in_two_pieces_that_ends_in_cr_lf() -> None:
    screen = Screen()
    screen.output(0, "hel", end="")
    screen.output(0, "lo", end="\r")
    screen.output(0, "", end="\n")
    assert screen.stdout == "[rank 0] hello\n"


def test_a_bar_is_rewritten_in_place_where_one_rank_has_the_terminal() -> None:
    screen = Screen(world_size=1, tty=True, color=False, one=True)
    bar(screen, ["1 %", "2 %"], step=0.1)
    screen.output(0, "done")
    assert screen.stdout == f"[rank 0] 1 %{ERASE}[rank 0] 2 %{ERASE}[rank 0] 2 %\n[rank 0] done\n"


def test_a_bar_in_place_fits_the_width_until_it_is_done() -> None:
    screen = Screen(world_size=1, tty=True, color=False, one=True)
    bar(screen, ["x" * 200], step=0.1)
    assert screen.stdout == f"[rank 0] {'x' * 70}{ERASE}[rank 0] {'x' * 200}\n"


def test_bars_of_many_ranks_on_a_terminal_are_lines() -> None:
    screen = Screen(world_size=2, tty=True, color=False, one=True)
    for rank in (0, 1):
        screen.output(rank, "1 %", end="\r")
    assert screen.stdout == "[rank 0] 1 %\n[rank 1] 1 %\n"


PIECES = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["a", "bb", "", "\x1b[31m", "\x1b[2"]), st.sampled_from("\n\r")
    ),
    max_size=30,
) | st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["a", "bb", "", "\x1b[31m"]), st.sampled_from(["\n", "\r", ""])
    ),
    max_size=30,
)


@given(PIECES, st.booleans(), st.booleans(), st.sampled_from([1, 3]))
def test_any_order_of_pieces_leaves_whole_lines(
    pieces: list[tuple[int, str, str]], tty: bool, one: bool, world_size: int
) -> None:
    screen = Screen(world_size=world_size, tty=tty, one=one)
    for rank, data, end in pieces:
        screen.output(rank % world_size, data, end)
        screen.now += 0.1
    screen.console.close()
    assert screen.stdout == "" or screen.stdout.endswith("\n")
    for line in screen.stdout.replace(ERASE, "\n").splitlines():
        assert line == "" or "[rank " in line
        assert line.count("\x1b[31m") == 0 or line.endswith("\x1b[0m")
    if not tty:
        assert "\x1b" not in screen.stdout


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.text("xyz", max_size=3), st.sampled_from(["\n", ""])), max_size=30
    )
)
def test_no_text_is_lost_or_mixed(pieces: list[tuple[int, str, str]]) -> None:
    screen = Screen()
    for rank, data, end in pieces:
        screen.output(rank, data, end)
    screen.console.close()
    for rank in range(3):
        sent = "".join(data for r, data, _ in pieces if r == rank)
        lines = [line for line in screen.stdout.splitlines() if line.startswith(f"[rank {rank}]")]
        assert "".join(line.removeprefix(f"[rank {rank}]").removeprefix(" ") for line in lines) == sent
