"""The page of ``torchnet bench --html``: one file that needs nothing else, with plots of matplotlib's.

matplotlib comes with the extra ``report`` and is imported when a page is made, never before.
"""

from __future__ import annotations

from torchnet.bench.html.page import html
from torchnet.bench.html.svg import check

__all__ = ["check", "html"]
