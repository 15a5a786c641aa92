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
_BLOCKS, _SAMPLES = 8, 4096  # of a node, and of a block: twice what an agent keeps, and as many as it does
_DIGITS = 15  # of a sample
_FASTEST, _LARGEST = 1e-6, 1 << 30  # seconds of a sample, bytes of its unit
_BY_RDMA = 64 << 10  # bytes: less is no training's, as for the agents' share


def summed(
    receipt: dict[str, Any], bits_per_s: float | None = None, *, asked: bool = False
) -> dict[str, Any]:
    """The receipt with ``measured`` made of its nodes' ``series``; the same one where there are none.

    ``bits_per_s``: of all rails of a node together, where it is known. ``asked``: --measure was said, so that it is a
    matter why there are none. Samples that cannot be read count as none.
    """
    nodes = receipt.get("nodes")
    listed = [node for node in nodes if isinstance(node, dict)] if isinstance(nodes, list) else []
    series = [node["series"] for node in listed if node.get("series")]
    if not series and not asked:
        return receipt
    found = [one for raw in series for one in _read(raw)]
    if any(_rdma(node) for node in listed):
        why = "bytes went by RDMA, which the interfaces' counters do not see"
    elif receipt.get("network") == "loopback":
        why = "on loopback no interface is a rail, and nothing was sampled"
    elif not series:
        why = "no worker gave its samples"
    else:
        why = "" if found else "the workers' samples cannot be read"
    measured = _untold(why) if why else _together([one for one, _ in found], found[0][1], bits_per_s)
    if series and isinstance(nodes, list):
        nodes = [{**node, "series": None} if isinstance(node, dict) else node for node in nodes]
    return {**receipt, "nodes": nodes, "measured": measured}


def _rdma(node: dict[str, Any]) -> bool:
    ports = [node.get(name) for name in ("rdma_bytes", "rdma_stray")]
    counts = [count for one in ports if isinstance(one, dict) for count in one.values()]
    return sum(count for count in counts if isinstance(count, int)) > _BY_RDMA


def _read(raw: object) -> Iterator[tuple[Rhythm, float]]:
    try:
        series = Series.model_validate(raw)
        if len(series.blocks) > _BLOCKS or series.sample_s < _FASTEST or series.unit_bytes > _LARGEST:
            return
        ordered = sorted(series.blocks.items(), key=lambda item: int(item[0]))
        blocks = [[series.unit_bytes * one for one in _samples(text)] for _, text in ordered]
        made = rhythm(blocks, series.sample_s)
    except (ArithmeticError, ValueError, RecursionError, zlib.error):  # a receipt is there without it, too
        return
    yield made, series.sample_s


def _samples(text: str) -> list[int]:
    words = zlib.decompressobj().decompress(base64.b64decode(text), _LIMIT).split()
    if len(words) > _SAMPLES or any(len(word) > _DIGITS or not word.isdigit() for word in words):
        raise ValueError("these are no samples")
    return [int(word) for word in words]


def _untold(why: str) -> dict[str, Any]:
    made = Measured(
        nodes=0,
        sample_s=0.0,
        observed_s=0.0,
        idle_share=None,
        busbw=None,
        peak=None,
        line_share=None,
        steps_per_s=None,
        step_bytes=None,
        step_active_s=None,
        why=why,
    )
    return made.model_dump(mode="json")


def _together(nodes: list[Rhythm], sample_s: float, bits_per_s: float | None) -> dict[str, Any]:
    rate = _median(one.rate for one in nodes)
    steps = _median(one.steps_per_s for one in nodes)
    # Idle of a step is another share than idle of all the time.
    alike = [one for one in nodes if (one.steps_per_s is None) == (steps is None)]
    made = Measured(
        nodes=len(nodes),
        sample_s=sample_s,
        observed_s=_median(one.observed_s for one in nodes) or 0.0,
        idle_share=_median(one.idle_share for one in alike),
        busbw=rate,
        peak=_median(one.peak for one in nodes),
        line_share=rate * 8 / bits_per_s if rate is not None and bits_per_s else None,
        steps_per_s=steps,
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
        whole = "a step" if measured.steps_per_s is not None else f"{measured.observed_s:.1f} s"
        parts.append(f"idle {percent(measured.idle_share)} of {whole}")
    if measured.why:
        parts.append(measured.why)
    return f"measured: {', '.join(parts) or 'nothing'}"
