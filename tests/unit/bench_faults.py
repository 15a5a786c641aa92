"""What the tests of the findings share: results with one fault in them, and the one finding that they must give."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.unit.bench_results import SIZES, changed, healthy
from torchnet.bench.findings import find
from torchnet.bench.results import Finding, Results

SEEDS = st.integers(0, 1 << 30)
NOISES = st.sampled_from([0.005, 0.03])
PAIRS = st.sampled_from(["ring", "all"])


def only(results: Results) -> Finding:
    found = find(results)
    assert [finding.kind for finding in found] == [found[0].kind] if found else found == (), found
    assert found, "no finding"
    assert found[0].fix
    assert found[0].text.endswith(".")
    return found[0]


def made(nodes: int = 2, **fields: Any) -> Results:
    noise = fields.setdefault("noise", 0.01)
    return healthy(nodes, **{"wander": noise / 2, "sizes": SIZES[::2], **fields})


def changed_setup(results: Results, **fields: Any) -> Results:
    assert results.setup
    return changed(results, setup=results.setup.model_copy(update=fields))


def typed(results: Results, *words: str) -> Results:
    return changed_setup(results, command=("torchnet", "bench", *words))
