"""Message sizes, as nccl-tests' -b, -e and -f define them: from the smallest to the largest, each a factor times the
last.

K, M and G are powers of 1024, as in nccl-tests (src/common.cu, parsesize); KiB, MiB and GiB are the same. KB is
refused, because for some it is a power of 1000.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MOST_SIZES = 200  # in one run; a factor of 1.01 would give thousands
_STEPS = (
    10 * MOST_SIZES
)  # including steps that give no new size: from 8 to 9 bytes a factor of 1.0001 needs 1178
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_FORM = re.compile(r"([0-9]{1,13})(?:([kmg])(?:ib)?)?", re.IGNORECASE)
_LARGEST = 1 << 40
VALID_SIZE = "bytes, optionally with the suffix K, M or G, from 1 to 1024G"


@dataclass(frozen=True)
class Sizes:
    """``least`` and ``most`` are bytes, 1 <= least <= most; ``factor`` is greater than 1."""

    least: int
    most: int
    factor: float

    def series(self) -> list[int]:
        """Return the sizes in bytes, ascending.

        The factor is taken as its decimal text: with the nearest binary fraction, the third power of 1.1 exceeds 1.331,
        and -e 1331 would never be reached.

        Raises:
            ValueError: There are more than 200 sizes, or the factor is too small to finish.
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
                    f"gives more than {MOST_SIZES} sizes from {self.least} to {self.most} bytes: use a larger factor"
                )
            above, below = above * factor.numerator, below * factor.denominator
        raise ValueError(
            f"needs more than {_STEPS} steps from {self.least} to {self.most} bytes: use a larger factor"
        )


def parse_size(text: str) -> int:
    """Return the bytes of ``8``, ``32K``, ``1MiB``, ``2g``.

    Raises:
        ValueError: The text is not a size; see VALID_SIZE.
    """
    match = _FORM.fullmatch(text.strip())
    size = int(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0
    if not 1 <= size <= _LARGEST:
        raise ValueError("is not a size")
    return size


def size_text(size: int) -> str:
    """Return the shortest text that :func:`parse_size` reads as this size."""
    for unit in ("g", "m", "k"):
        if size and not size % _UNITS[unit]:
            return f"{size // _UNITS[unit]}{unit.upper()}"
    return str(size)
