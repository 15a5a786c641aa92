"""Plain tables, wrapped to a width."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.console.text_table import Layout, table

WORDS = st.text(st.sampled_from("abc /-"), max_size=80)


def test_columns_are_lined_up() -> None:
    assert table(("NAME", "WHY"), [("A", "because"), ("LONG", "")], 80) == "NAME  WHY\nA     because\nLONG\n"


def test_cells_are_wrapped_and_paths_broken_after_slashes() -> None:
    shown = table(
        ("N", "SOURCE"), [("x", "torch/distributed/elastic/agent/server/local_elastic_agent.py")], 40
    )
    assert shown.splitlines()[1:] == [
        "x  torch/distributed/elastic/agent/",
        "   server/local_elastic_agent.py",
    ]


def test_a_path_that_fits_is_one_line() -> None:
    assert table(("N", "PATH"), [("x", "a/b/c")], 80) == "N  PATH\nx  a/b/c\n"


def test_narrow_tables_become_paragraphs() -> None:
    shown = table(("NAME", "WHY", "SOURCE"), [("A_LONG_NAME_INDEED", "w" * 30, "s" * 30)], 50)
    assert shown == f"A_LONG_NAME_INDEED\n  WHY: {'w' * 30}\n  SOURCE: {'s' * 30}\n\n"


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.text("abc", max_size=10), WORDS, WORDS), max_size=4),
    width=st.integers(40, 200),
)
def test_no_line_is_too_long_and_no_word_is_lost(rows: list[tuple[str, str, str]], width: int) -> None:
    shown = table(("NAME", "WHY", "SOURCE"), rows, width)
    assert all(len(line) <= width for line in shown.splitlines())
    for row in rows:
        for letter in "abc/-":
            assert shown.count(letter) >= sum(cell.count(letter) for cell in row)


def test_rows_that_come_later_stand_in_the_same_columns() -> None:
    layout = Layout(("NAME", "STATE", "AGE"), [("a", "up", "1 s")], 80, floors={1: 10})
    assert layout.text([("a", "up", "1 s")]) == "NAME  STATE       AGE\na     up          1 s\n"
    assert layout.text([("a", "going down", "2 s")], headed=False) == "a     going down  2 s\n"
    assert layout.text([("longer", "a state too long", "")], headed=False).splitlines() == [
        "longer  a state",
        "      too long",
    ]


def test_several_columns_may_stay_whole() -> None:
    cells = ("a namespace", "a name that is long", "why " * 20)
    shown = Layout(("NAMESPACE", "NAME", "WHY"), [cells], 70, fixed=2).text([cells])
    assert shown.splitlines()[1].startswith("a namespace  a name that is long  why")
    assert len(shown.splitlines()) > 2
