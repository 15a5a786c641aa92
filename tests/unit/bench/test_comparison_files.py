"""The files that are compared may be from anywhere: they are read or refused in words, and none acts on a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.bench_results import SIZES, changed, healthy, slower
from torchnet.bench.comparison import compare
from torchnet.bench.comparison_text import text
from torchnet.bench.results import Results, dump
from torchnet.bench.results_file import read

EVIL = "\x1b]0;x\x07\nNo significant change.\u202e"


def hostile(results: Results) -> Results:
    """All that a file has to say, so that it would act on a terminal."""
    assert results.setup
    setup = results.setup.model_copy(
        update={
            "versions": {EVIL: EVIL, "torch": EVIL},
            "environment": {EVIL: EVIL, "NCCL_X": EVIL},
            **dict.fromkeys(("backend", "device", "interface", "compare", "image"), EVIL),
        }
    )
    nodes = [one.model_copy(update={"name": EVIL, "cpu": EVIL, "kernel": EVIL}) for one in results.nodes]
    own = {"network": EVIL, "collective": EVIL, "dtype": EVIL, "redop": EVIL}
    return changed(
        results,
        torchnet=EVIL,
        run=EVIL,
        reason=EVIL,
        complete=False,
        setup=setup,
        nodes=tuple(nodes),
        lines=tuple(one.model_copy(update={"network": EVIL}) for one in results.lines),
        collectives=tuple(one.model_copy(update={**own, "wrong": 1}) for one in results.collectives),
        tcp=tuple(one.model_copy(update={"network": EVIL}) for one in results.tcp),
        latency=tuple(one.model_copy(update={"network": EVIL}) for one in results.latency),
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_that_a_file_says_acts_on_the_terminal(seed: int) -> None:
    old, slow = hostile(healthy()), hostile(healthy(seed=seed, rate=2e8, round_trip=0.01))
    rows = [row.model_copy(update={"busbw_low": row.busbw * 0.3}) for row in slow.collectives]
    one = [
        slower(row, 0.5) if row.size == SIZES[-1] else row for row in hostile(healthy(seed=seed)).collectives
    ]
    for new in (
        slow,
        changed(slow, collectives=tuple(rows)),
        changed(slow, collectives=tuple(one)),
        changed(old, complete=True, collectives=()),
        healthy(),
    ):
        for diff in (compare(old, new), compare(new, old)):
            shown = text(diff)
            assert all(line.isprintable() for line in shown.split("\n"))
            assert not any(
                line.strip().startswith("No significant change") for line in shown.split("\n")[:-2]
            )
            assert EVIL not in shown


def test_what_cannot_be_read_does_not_act_on_the_terminal_either() -> None:
    for content in (
        broken(nodes=[{"node": 0, "name": "a", "addresses": {EVIL: 1}}]),
        broken(schema=EVIL),
        "{",
    ):
        with pytest.raises(ValueError, match="old") as error:
            read(content, f"old{EVIL}")
        assert str(error.value).isprintable()


def broken(**fields: Any) -> str:
    return json.dumps({**json.loads(dump(healthy())), **fields})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "torchnet bench --json"),
        ("{}", "torchnet bench --json"),
        (broken(schema="torchnet.bench/2"), "torchnet.bench/2"),
        (broken(schema="torchnet.receipt/1"), "torchnet.receipt/1"),
        (broken(complete="perhaps"), "complete: "),
        (broken(collectives=[{}]), "collectives.0"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_words(content: str, words: str) -> None:
    with pytest.raises(ValueError, match="old.json") as error:
        read(content, "old.json")
    assert words in str(error.value)


def test_what_was_written_is_read() -> None:
    results = healthy(3)
    assert read(dump(results), "x.json") == results
    assert read(broken(more=1), "x.json").reason == ""
    older = broken(tuning={"trials": [], "chosen": {"compress": "bf16"}, "block": ""})
    assert not compare(read(older, "x.json"), healthy()).worse
