"""Message sizes, as nccl-tests' -b, -e and -f give them: from the least to the most, each the factor times the last.

K, M and G are powers of 1024, as there (nccl-tests' src/common.cu, parsesize); KiB, MiB and GiB say the same. KB, which
is a power of 1000 to some, is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MOST_SIZES = 200  # of one run; a factor of 1.01 would make thousands
_STEPS = (
    10 * MOST_SIZES
)  # those that give no new size included: from 8 to 9 bytes a factor of 1.0001 needs 1178
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_FORM = re.compile(r"([0-9]{1,13})(?:([kmg])(?:ib)?)?", re.IGNORECASE)
_LARGEST = 1 << 40


@dataclass(frozen=True)
class Sizes:
    """``least`` and ``most`` are bytes, 1 <= least <= most; ``factor`` is greater than 1."""

    least: int
    most: int
    factor: float

    def series(self) -> list[int]:
        """The sizes in bytes, rising.

        The factor counts as it is written: of its nearest binary fraction the third power of 1.1 is more than 1.331,
        and -e 1331 would never be reached.

        Raises:
            ValueError: there are more than 200, or the factor is so small that there is no end to it.
        """
        found: list[int] = []
        factor = Fraction(repr(self.factor))
        above, below = self.least, 1
        for _ in range(_STEPS):
            size = above // below
            if size > self.most:
                return found
            if not found or size > found[-1]:
                found.append(size)
            if len(found) > MOST_SIZES:
                raise ValueError(
                    f"gives more than {MOST_SIZES} sizes from {self.least} to {self.most} bytes: take a larger factor"
                )
            above, below = above * factor.numerator, below * factor.denominator
        raise ValueError(
            f"needs more than {_STEPS} steps from {self.least} to {self.most} bytes: take a larger factor"
        )


def parse_size(text: str) -> int:
    """Bytes of ``8``, ``32K``, ``1MiB``, ``2g``.

    Raises:
        ValueError: it is no size; says what is one.
    """
    match = _FORM.fullmatch(text.strip())
    size = int(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0
    if not 1 <= size <= _LARGEST:
        raise ValueError("is no size: a number of bytes, or one with K, M or G behind it, from 1 to 1024G")
    return size


def size_text(size: int) -> str:
    """The shortest text that :func:`parse_size` reads as this size."""
    for unit in ("g", "m", "k"):
        if size and not size % _UNITS[unit]:
            return f"{size // _UNITS[unit]}{unit.upper()}"
    return str(size)
