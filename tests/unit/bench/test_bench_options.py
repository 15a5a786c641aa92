"""What people ask of a benchmark: defaults, what gives way to what, and all wrong values at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.bench_asked import GIB, asked, wrong
from torchnet.bench.worker.busbw import COLLECTIVES
from torchnet.bench.worker.pairs import WARM
from torchnet.bench.worker.rank_context import PATIENCE


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


def test_raw_tcp_takes_no_longer_than_the_other_nodes_wait() -> None:
    values = ("0", "100ms", "10min")
    assert [asked(tcp_seconds=value).tcp_seconds for value in values] == [0, 0.1, 600]
    # A pair measures three times; nearly half of the time is left for its connections and small messages.
    assert 0.55 * PATIENCE.total_seconds() > 3 * (600 + WARM)


def test_what_one_of_the_collectives_needs_is_taken() -> None:
    assert wrong("all_gather,reduce", redop="max", root="1") == []
    assert wrong("all", redop="max", root="1") == []
    assert wrong("send_recv") == []
    # Of a word that is not known nobody knows what it would need.
    (line,) = wrong("broadcst", root="1")
    assert line.startswith("COLLECTIVES")
