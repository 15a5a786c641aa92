"""Sample the bytes sent on the rails every 5 ms, for --measure; torchnet.receipt.step_timing derives the steps."""

from __future__ import annotations

import base64
import os
import time
import zlib
from typing import Any

from torchnet.agent.event_loop import EventLoop

SAMPLE = 0.005  # seconds; a reading takes 10 µs
UNIT = 256  # bytes
NODES = 4  # workers that sample: steps are the same on all
BLOCK, _KEPT = 4096, 4  # samples per block, and blocks kept, spread over the whole run, however long


class RateSampler:
    """Samples until :meth:`close`, which returns them (``series`` in receipt.schema.json).

    Raises:
        OSError: the counters cannot be read.
    """

    def __init__(self, loop: EventLoop, interfaces: set[str]) -> None:
        self._names = {name.encode() for name in interfaces}
        self._file = os.open("/proc/self/net/dev", os.O_RDONLY | os.O_CLOEXEC)
        self._blocks: dict[int, list[int]] = {}
        self._stride = 1
        self._slot = 0
        self._began = time.monotonic()
        self._units = self._sent()
        self._timer = loop.every(SAMPLE, self._sample)

    def _sent(self) -> int:
        text = b""
        while piece := os.pread(self._file, 1 << 16, len(text)):  # a read returns up to one page
            text += piece
        rows = [line.split(b":") for line in text.splitlines()[2:]]
        return sum(int(row[1].split()[8]) for row in rows if row[0].strip() in self._names) // UNIT

    def _sample(self) -> None:
        now, slot = self._sent(), int((time.monotonic() - self._began) / SAMPLE)
        more, late = max(0, now - self._units), slot - self._slot
        for part in range(late):  # spread a late reading over the missed samples
            self._add(more * (part + 1) // late - more * part // late)
        if late:
            self._units = now

    def _add(self, units: int) -> None:
        number, at = divmod(self._slot, BLOCK)
        self._slot += 1
        if not at and not number % self._stride:
            if len(self._blocks) == _KEPT:
                self._stride *= 2
                self._blocks = {n: block for n, block in self._blocks.items() if not n % self._stride}
            if not number % self._stride:
                self._blocks[number] = []
        if number in self._blocks:
            self._blocks[number].append(units)

    def close(self) -> dict[str, Any]:
        self._timer.cancel()
        os.close(self._file)
        texts = {str(n): " ".join(map(str, block)).encode() for n, block in self._blocks.items()}
        packed = {n: base64.b64encode(zlib.compress(text)).decode() for n, text in texts.items()}
        return {"sample_s": SAMPLE, "unit_bytes": UNIT, "block_samples": BLOCK, "blocks": packed}
