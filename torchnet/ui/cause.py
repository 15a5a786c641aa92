"""A failure as it is told to people: read as soon as it comes, so that what is malformed is never kept for the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cause:
    """What may have ended the job. Two are equal if several agents tell of the same: ``tail`` and ``at`` may differ."""

    kind: str
    text: str
    rank: int | None
    node: str | None
    code: int | None
    tail: tuple[str, ...] = field(compare=False)
    at: float = field(compare=False)

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Cause:
        """Of an event or a receipt. Raises ArithmeticError, RecursionError, TypeError or ValueError if malformed."""
        kind, node, tail, at = str(said.get("kind")), said.get("node"), said.get("tail") or (), said.get("at")
        if not isinstance(tail, list | tuple):
            raise TypeError(f"tail is no list but of the type {type(tail).__name__}")
        return cls(
            kind=kind,
            text=str(said.get("text") or f"a failure of the kind {kind!r}"),
            rank=_whole(said.get("rank")),
            node=None if node is None else str(node),
            code=_whole(said.get("code")),
            tail=tuple(str(line) for line in tail),
            at=float(at or 0.0),
        )

    @property
    def whole(self) -> str:
        """The text, and what it leaves out behind its first line."""
        first, *others = self.text.splitlines()
        facts = []
        for value, said in ((self.rank, f"rank {self.rank}"), (self.code, f"exit code {self.code}")):
            if value is not None and said.removeprefix("exit ") not in first:
                facts.append(said)
        return "\n".join([f"{first} ({', '.join(facts)})" if facts else first, *others])


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
