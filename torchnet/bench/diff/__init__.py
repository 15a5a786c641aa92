"""What changed between two runs: ``torchnet bench diff``."""

from torchnet.bench.diff.matching import compare
from torchnet.bench.diff.model import Diff, Row, Series
from torchnet.bench.diff.reading import read
from torchnet.bench.diff.words import text

__all__ = ["Diff", "Row", "Series", "compare", "read", "text"]
