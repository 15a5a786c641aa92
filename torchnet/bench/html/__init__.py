"""The page that ``torchnet bench --html`` writes: one self-contained file with matplotlib plots.

matplotlib comes with the extra ``report`` and is imported only when a page is written.
"""

from __future__ import annotations

from torchnet.bench.html.page import html
from torchnet.bench.html.svg import check

__all__ = ["check", "html"]
