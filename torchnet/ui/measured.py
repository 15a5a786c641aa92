"""``measured`` in a receipt: what the samples of --measure tell, in the samples' place."""

from __future__ import annotations

import base64
import statistics
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from torchnet.receipt_model import Measured, Series
from torchnet.ui.rhythm import Rhythm, rhythm
from torchnet.ui.units import percent, size

_LIMIT = 1 << 20  # bytes of a block's text


def summed(receipt: dict[str, Any], bits_per_s: float | None = None) -> dict[str, Any]:
    """The receipt with ``measured`` made of its nodes' ``series``; the same one where there are none.

    ``bits_per_s``: of all rails of a node together, where it is known. Samples that cannot be read count as none.
    """
    nodes = receipt.get("nodes")
    if not isinstance(nodes, list) or not any(
        isinstance(node, dict) and node.get("series") for node in nodes
    ):
        return receipt
    found = [one for node in nodes if isinstance(node, dict) for one in _read(node.get("series"))]
    bare = [{**node, "series": None} if isinstance(node, dict) else node for node in nodes]
    measured = _together([one for one, _ in found], found[0][1], bits_per_s) if found else None
    return {**receipt, "nodes": bare, "measured": measured}


def _read(raw: object) -> Iterator[tuple[Rhythm, float]]:
    try:
        series = Series.model_validate(raw)
        texts = [_unpacked(text) for _, text in sorted(series.blocks.items(), key=lambda item: int(item[0]))]
        blocks = [[series.unit_bytes * int(word) for word in text.split()] for text in texts]
    except (ArithmeticError, ValueError, RecursionError, zlib.error):  # a receipt is there without it, too
        return
    yield rhythm(blocks, series.sample_s), series.sample_s


def _unpacked(text: str) -> bytes:
    return zlib.decompressobj().decompress(base64.b64decode(text), _LIMIT)


def _together(nodes: list[Rhythm], sample_s: float, bits_per_s: float | None) -> dict[str, Any]:
    rate = _median(one.rate for one in nodes)
    made = Measured(
        nodes=len(nodes),
        sample_s=sample_s,
        observed_s=_median(one.observed_s for one in nodes) or 0.0,
        idle_share=_median(one.idle_share for one in nodes),
        busbw=rate,
        peak=_median(one.peak for one in nodes),
        line_share=rate * 8 / bits_per_s if rate is not None and bits_per_s else None,
        steps_per_s=_median(one.steps_per_s for one in nodes),
        step_bytes=_median(one.step_bytes for one in nodes),
        step_active_s=_median(one.step_active_s for one in nodes),
        why=next((one.why for one in nodes if one.why), ""),
    )
    return made.model_dump(mode="json")


def _median(values: Iterable[float | None]) -> float | None:
    """None where most do not know it."""
    listed = list(values)
    known = [float(f"{one:.6g}") for one in listed if one is not None]
    return statistics.median(known) if 2 * len(known) > len(listed) else None


def sentence(measured: Measured) -> str:
    """For the receipt's table."""
    parts = []
    if measured.steps_per_s is not None:
        step = f"{measured.steps_per_s:.3g} steps/s"
        if measured.step_bytes is not None:
            step += f" of {size(round(measured.step_bytes))} sent by a node"
        if measured.step_active_s is not None:
            step += f" in {measured.step_active_s * 1000:.3g} ms"
        parts.append(step)
    if measured.busbw is not None:
        line = f" ({percent(measured.line_share)} of the line)" if measured.line_share is not None else ""
        parts.append(f"busbw {measured.busbw * 8 / 1e9:.3g} Gbit/s while active{line}")
    if measured.idle_share is not None:
        parts.append(f"idle {percent(measured.idle_share)} of {measured.observed_s:.1f} s")
    if measured.why:
        parts.append(measured.why)
    return f"measured: {', '.join(parts) or 'nothing'}"
