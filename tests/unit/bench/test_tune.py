"""Which settings a tuning tries together, and how large its model is."""

from __future__ import annotations

import pytest

from tests.training import needs_torch

torch = pytest.importorskip("torch")
pytestmark = needs_torch

from torchnet.bench.worker.ddp_steps import network, width_for  # noqa: E402
from torchnet.bench.worker.tune import TuneSetting, combined  # noqa: E402


def test_the_best_of_each_kind_is_tried_together() -> None:
    singles = [
        TuneSetting({"bucket_cap_mb": "1"}),
        TuneSetting({"bucket_cap_mb": "5"}),
        TuneSetting({"bucket_cap_mb": "100"}),
        TuneSetting({"gloo_devices": "2"}),
    ]
    base = [1.0, 2.0, 3.0]
    figures = [base, [1.1, 2.2, 3.3], [1.2, 2.4, 3.0], [0.5, 1.0, 1.5], [0.9, 1.9, 2.9]]
    assert combined(singles, figures).values == {"bucket_cap_mb": "5"}
    figures[4] = [1.1, 2.1, 3.1]
    both = combined(singles, figures)
    assert both.values == {"bucket_cap_mb": "5", "gloo_devices": "2"}
    assert both.name == "bucket_cap_mb 5, gloo_devices 2"
    assert not both.numerics
    assert TuneSetting({**both.values, "compress": "bf16"}).numerics
    assert combined(singles, [base] * 5).values == {}


@pytest.mark.parametrize("memory", [10**4, 10**7, 10**8, 10**9, 1 << 40])
def test_the_model_fits_into_the_memory(memory: int) -> None:
    width = width_for(memory)
    if width is None:
        assert memory < 10**7
        return
    assert 256 <= width <= 2048
    if width <= 1024:
        size = sum(4 * one.numel() for one in network(width).parameters())
        assert 5 * size < 1.1 * memory
