"""What people ask of a benchmark: defaults, what gives way to what, and all wrong values at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.bench_asked import GIB, asked, wrong
from torchnet.bench.worker.factors import COLLECTIVES


def test_without_a_word_it_is_an_all_reduce_of_nccl_tests_usual_sizes() -> None:
    found = asked()
    assert found.collectives == ("all_reduce",)
    assert (found.sizes.least, found.sizes.most, found.sizes.factor) == (1024, 256 << 20, 4)
    assert not found.largest_typed


def test_collectives_are_a_list_with_commas_or_all() -> None:
    assert asked("all_gather,reduce", "all-gather").collectives == ("all_gather", "reduce")
    assert asked("all").collectives == COLLECTIVES


def test_a_report_and_results_are_two_files_whatever_leads_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("x")
    for other in ("./x", str(tmp_path / "x"), "link"):
        assert "is the same file as --json" in wrong(html=other, json="x")[0]
    assert wrong(html="y", json="x") == []
    assert wrong(html="./-", json="-") == []


@pytest.mark.parametrize(
    ("given", "least", "most"),
    [
        ({"min_bytes": "8", "max_bytes": "1G"}, 8, GIB),
        ({"min_bytes": "1G"}, GIB, GIB),
        ({"max_bytes": "512"}, 512, 512),
        ({"max_bytes": "1MiB"}, 1024, 1 << 20),
    ],
)
def test_a_default_gives_way_to_what_was_typed(given: dict[str, str], least: int, most: int) -> None:
    sizes = asked(**given).sizes
    assert (sizes.least, sizes.most) == (least, most)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"min_bytes": "8X"}, '--min-bytes: "8X" is no size: a number of bytes'),
        ({"max_bytes": "-1"}, '--max-bytes: "-1" is no size'),
        ({"max_bytes": "0"}, '--max-bytes: "0" is no size'),
        ({"min_bytes": "2M", "max_bytes": "1M"}, "--min-bytes: 2M is more than --max-bytes 1M"),
        ({"factor": "1"}, '--factor: "1" is not greater than 1'),
        ({"factor": "nan"}, '--factor: "nan" is not a number'),
        ({"factor": "1.01"}, "--factor: 1.01 gives more than 200 sizes"),
        ({"iters": "0"}, '--iters: "0" is too small'),
        ({"iters": "3", "seconds": "1"}, "--iters: says how many calls there are, and --seconds how long"),
        ({"seconds": "0"}, '--seconds: "0" is too short'),
        ({"tcp_seconds": "2h"}, '--tcp-seconds: "2h" is too long'),
        ({"dtype": "float31"}, 'did you mean "float32"?'),
        ({"redop": "mean"}, '--redop: "mean" is not one of its values'),
        ({"streams": "65"}, '--streams: "65" is too large'),
        ({"redop": "avg", "backend": "gloo"}, "--redop: avg is NCCL's alone"),
        ({"compare": "a/b"}, '--compare: "a/b" is no interface'),
        ({"line": "10Gbps"}, "is ambiguous"),
        ({"html": "-"}, '--html: "-" is stdout'),
        ({"html": "x", "json": "x"}, "--html: is the same file as --json"),
    ],
    ids=str,
)
def test_a_wrong_value_is_told_with_its_flag(given: dict[str, str], text: str) -> None:
    (line,) = wrong(**given)
    assert text in line


def test_an_unknown_collective_is_told_with_the_nearest_and_with_all() -> None:
    (line,) = wrong("al_reduce")
    assert line.startswith(
        'COLLECTIVES: "al_reduce" is no collective; did you mean "all_reduce"?; valid: all_reduce,'
    )
