"""A console to look at."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

from torchnet.console.console import Console


class Screen:
    """A console on two files in memory, with a clock that stands until it is moved."""

    def __init__(self, **options: Any) -> None:
        self.err, self.out, self.now = io.StringIO(), io.StringIO(), 0.0
        if options.pop("one", False):
            self.out = self.err
        options = {"world_size": 4, "environ": {}, **options}
        self.console = Console(self.err, self.out, clock=lambda: self.now, **options)

    def output(self, rank: int, data: str, end: str = "\n", stream: str = "stdout") -> None:
        self.console.event({"event": "output", "rank": rank, "stream": stream, "data": data, "end": end})

    def raw(self, rank: int, data: bytes, stream: str = "stdout") -> None:
        text = b64encode(data).decode()
        self.console.event({"event": "raw", "rank": rank, "stream": stream, "data": text})

    def phase(self, phase: str, text: str, node: int = 0) -> None:
        self.console.event({"event": "phase", "node": node, "phase": phase, "text": text})

    def notice(self, level: str, text: str, node: int | None = None) -> None:
        self.console.event({"event": "notice", "node": node, "level": level, "text": text})

    def failure(self, **fields: Any) -> None:
        failure = {
            "kind": "script",
            "rank": 3,
            "node": "node-1",
            "code": 42,
            "tail": ["boom"],
            "at": 1.0,
            **fields,
        }
        self.console.event({"event": "failure", "text": "rank 3 on node-1 exited with code 42", **failure})

    @property
    def stdout(self) -> str:
        return self.out.getvalue()

    @property
    def stderr(self) -> str:
        return self.err.getvalue()
