"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from torchnet.units import bit_rate, counted, percent, seconds, size


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (size, 0, "0 B"), (size, 999, "999 B"), (size, 1000, "1.000 kB"), (size, 12_345, "12.35 kB"),
        (size, 999_949, "999.9 kB"), (size, 999_950, "1.000 MB"), (size, 405_300_000, "405.3 MB"),
        (size, 10**21, "1000.0 EB"),
        # Rounded down, so that 100 % means all.
        (percent, 1.0, "100 %"), (percent, 0.99999999, "99.99 %"), (percent, 0.9997, "99.97 %"),
        (percent, 0.29, "29 %"), (percent, 0.95, "95 %"), (percent, 0.0, "0 %"), (percent, 1e-9, "<0.01 %"),
        (percent, 0.5025, "50.25 %"),
        (seconds, 0.4, "0.40 s"), (seconds, 12.34, "12.3 s"), (seconds, 59.96, "1 min 00 s"),
        (seconds, 303, "5 min 03 s"), (seconds, 7500, "2 h 05 min"),
        (bit_rate, 0, "0 bit/s"), (bit_rate, 1e8, "100 Mbit/s"), (bit_rate, 999_950_000, "1 Gbit/s"),
        (bit_rate, 2.5e9, "2.5 Gbit/s"), (bit_rate, 4e11, "400 Gbit/s"),
    ],
)  # fmt: skip
def test_numbers(function: Callable[[Any], str], value: float, text: str) -> None:
    assert function(value) == text


def test_counts() -> None:
    assert [counted(1, "process"), counted(2, "process"), counted(1000, "node")] == [
        "1 process", "2 processes", "1,000 nodes"
    ]  # fmt: skip
