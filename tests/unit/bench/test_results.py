"""The model of a benchmark's results, as programs read it."""

from __future__ import annotations

import pytest

from torchnet.bench.results import schema


@pytest.mark.parametrize("part", ["Collective", "Tcp", "Latency"])
def test_each_figure_is_described(part: str) -> None:
    fields = schema()["$defs"][part]["properties"]
    assert [name for name, field in fields.items() if not field.get("description")] == []
