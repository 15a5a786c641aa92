"""What the launcher makes of the samples in a receipt, or says in their place; no worker's text stops it."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.receipts import receipt
from torchnet.receipt.receipt_model import Measured, Receipt
from torchnet.receipt.step_timing import sentence, summarize_samples

STEP = [2000] * 20 + [0] * 20  # samples of 5 ms


def packed(samples: object) -> str:
    text = samples if isinstance(samples, str) else " ".join(map(str, samples))  # type: ignore[call-overload]
    return base64.b64encode(zlib.compress(text.encode())).decode()


def series(*blocks: object, **fields: Any) -> dict[str, Any]:
    texts = {str(number): packed(block) for number, block in enumerate(blocks)}
    return {"sample_s": 0.005, "unit_bytes": 256, "block_samples": 4096, "blocks": texts, **fields}


def told(
    *nodes: object, asked: bool = True, node: dict[str, Any] | None = None, **fields: Any
) -> Measured | None:
    """What is measured where the nodes have these series; ``node``: what the second one has besides."""
    raw = receipt(**fields)
    for one, has in zip(raw["nodes"], nodes, strict=False):
        one["series"] = has
    raw["nodes"][1].update(node or {})
    made = summarize_samples(raw, requested=asked)
    assert [one["series"] for one in made["nodes"]] == [None, None]
    return Receipt.model_validate(made).measured


def test_steps_are_told_with_the_idle_part_of_a_step() -> None:
    found = told(series(STEP * 30), series(STEP * 30))
    assert found is not None
    assert (found.nodes, found.why) == (2, "")
    assert found.steps_per_s == pytest.approx(5, rel=0.03)
    assert "idle 50" in sentence(found) or "idle 49" in sentence(found)
    assert sentence(found).endswith("of a step")


def test_a_long_pause_between_the_steps_is_no_part_of_a_step() -> None:
    """As of a validation: the idle share is that of a step, and is not said to be that of all the time."""
    found = told(series(STEP * 20 + [0] * 1500 + STEP * 20))
    assert found is not None
    assert found.observed_s == pytest.approx((39 * 40 + 20 + 1520) * 0.005, rel=0.05)
    assert found.idle_share == pytest.approx(0.5, abs=0.03)
    assert f"of {found.observed_s:.1f} s" not in sentence(found)
    assert sentence(found).endswith("of a step")


def test_without_steps_idle_is_of_all_the_time() -> None:
    bursts = [5, 9, 14, 33, 61, 47, 7, 28]
    samples = [one for length in bursts for one in [2000] * length + [0] * 25]
    found = told(series(samples))
    assert found is not None
    assert found.steps_per_s is None
    assert found.idle_share == pytest.approx(175 / (sum(bursts) + 175), abs=0.02)
    assert f"of {found.observed_s:.1f} s" in sentence(found)


def test_of_nodes_that_differ_those_count_that_have_steps() -> None:
    bursts = [one for length in (5, 9, 14, 33, 61, 47, 7, 28) for one in [2000] * length + [0] * 2]
    longer = [*STEP, *[0] * 40]
    raw = receipt()
    raw["nodes"] = [{**raw["nodes"][0], "series": series(one)} for one in (STEP * 30, longer * 30, bursts)]
    measured = Measured.model_validate(summarize_samples(raw)["measured"])
    assert measured.steps_per_s is not None
    assert measured.idle_share == pytest.approx((0.5 + 0.75) / 2, abs=0.03)


@pytest.mark.parametrize("field", ["rdma_bytes", "rdma_stray"])
def test_what_went_by_rdma_is_not_measured(field: str) -> None:
    """The interfaces' counters have a few bytes of the start: no steps, no idle time, no busbw are to be told of it."""
    for many in ((series(STEP * 30),) * 2, ()):
        found = told(*many, node={field: {"mlx5_0/1": 10**9}})
        assert found is not None
        assert "RDMA" in found.why
        figures = found.model_dump(exclude={"nodes", "sample_s", "observed_s", "why"})
        assert set(figures.values()) == {None}
        assert sentence(found) == f"measured: {found.why}"
    few = told(series(STEP * 30), node={field: {"mlx5_0/1": 300}})
    assert few is not None
    assert few.steps_per_s is not None


def test_why_there_is_nothing_is_said_where_it_was_asked_for() -> None:
    assert told(asked=False) is None
    for network in ("namespaces", "loopback"):
        found = told(network=network)
        assert found is not None
        assert found.why
        assert sentence(found) == f"measured: {found.why}"
    unreadable = told({"blocks": 5}, asked=False)
    assert unreadable is not None
    assert unreadable.nodes == 0
    # One that can be read is enough.
    one = told({"blocks": 5}, series(STEP * 30))
    assert one is not None
    assert (one.nodes, one.why) == (1, "")


@pytest.mark.parametrize(
    "bad",
    [
        series(STEP * 30, sample_s=0),
        series(STEP * 30, sample_s=1e-300),
        series(STEP * 30, sample_s="x"),
        series(STEP * 30, unit_bytes=10**400),
        series([10**400, 0] * 40),
        series([10**15] * 4),
        series("9" * 5000),
        series("1_0 2"),
        series("-5 5 -5 5"),
        series("5 x"),
        series([1] * 4097),
        series(*[STEP * 5] * 9),
        series(STEP, blocks={"9" * 5000: packed(STEP)}),
        series(STEP, blocks={"x": packed(STEP)}),
        series(STEP, blocks={"0": "ä"}),
        series(STEP, blocks={"0": "AAAA"}),
        [1],
        "text",
    ],
)
def test_samples_that_are_none_cost_nothing_else(bad: object) -> None:
    found = told(bad)
    assert found is not None
    assert (bool(found.why), found.nodes) == (True, 0)


NUMBERS = st.one_of(st.integers(), st.floats(), st.just(10**400), st.just(0))
BLOCKS = st.dictionaries(
    st.sampled_from(["0", "1", "9", "x", "-1"]),
    st.one_of(st.text(max_size=9), st.lists(st.integers(0, 10**15), max_size=60).map(packed)),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(
    sample=NUMBERS, unit=NUMBERS, blocks=BLOCKS,
    rdma=st.one_of(st.none(), st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.integers(0)), max_size=2)),
)  # fmt: skip
def test_whatever_a_worker_says_there_is_a_receipt(sample: Any, unit: Any, blocks: Any, rdma: Any) -> None:
    raw = receipt()
    raw["nodes"][0].update(series=series(sample_s=sample, unit_bytes=unit, blocks=blocks), rdma_stray=rdma)
    made = summarize_samples(raw, 1e9)
    sentence(Measured.model_validate(made["measured"]))
