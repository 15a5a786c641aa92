"""What the screen and the page say in the same words."""

from __future__ import annotations

from torchnet.bench.results import Line, Results
from torchnet.network.text import printable

FINDINGS = "findings"  # what is lacking where they could not be looked for
_KNOWN = {"shaped": "shaped by --rate", "interface": "reported by the interface", "told": "set with --line"}


def known(line: Line) -> str:
    """Where the line's rate is from; the word itself, where a newer torchnet wrote it."""
    return _KNOWN.get(line.known) or printable(line.known, 40)


def measured(results: Results) -> bool:
    return bool(results.collectives or results.tcp or results.tuning)


def doubt(results: Results) -> str:
    """Why nobody can say that nothing was found; empty where findings were looked for in some figures."""
    for one in results.lacks:
        if one.what == FINDINGS:
            return f"findings could not be evaluated: {printable(one.why, 300)}"
    return "" if measured(results) else "nothing was measured"
