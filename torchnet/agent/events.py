"""Events that an agent sends to its runtime: plain dicts with a key ``event``.

    row             node, row                 the worker's row of the peer table
    phase           node, phase, text         a phase's state: "4/4 joined"
    notice          node, level, text         a message for the user
    started         node, attempt, ranks, pids
    ranks_ended     node, attempt             all ranks of a node have ended with 0
    output          node, rank, stream, data, end    a line of a process; end is "" if it is unfinished
    raw             node, rank, stream, data  output of a process as it is, in base64 (--no-prefix)
    error_file      rank, data                what a process that failed wrote to TORCHELASTIC_ERROR_FILE
    refused         node, addresses           connections to loopback that were refused before a process failed
    stdin           rank                      a rank read its standard input, which is empty; None: one of many
    failure         the fields of Failure     why the job stops; restart: whether it restarts
    stopping        the same                  why this agent stops: the coordinator or a signal
    replaced        the same                  this pod cannot take part, and another will replace it
    time            phase, own_s, waited_s    at a phase's end: torchnet's own time and its waiting time
    own_time        own_s                     torchnet's own time until the script starts
    stall           text                      which ranks wait where, with stacks
    worker_receipt  receipt                   one worker's receipt
    receipt         receipt                   the job's receipt
    end             node, code                the agent's exit code

Local agents send them to the launcher over a socket; in a pod, they are text in the container's log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, get_args

from torchnet.text import printable

Event = dict[str, Any]
Kind = Literal["script", "network", "lost", "timeout", "interrupted", "internal", "usage"]
BACKLOG = 1 << 20  # bytes; above it, processes' output stays unread until the reader has caught up


@dataclass(frozen=True)
class Failure:
    """Why a job stopped. ``code`` is the launcher's exit code, ``at`` Unix time, ``tail`` a process's last lines."""

    kind: Kind
    text: str
    code: int
    rank: int | None = None
    node: str | None = None
    at: float = 0.0
    tail: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, data: dict[str, Any]) -> Failure:
        """Validate the fields of a failure; other keys are ignored.

        Raises:
            ValueError: a field is missing, or has a wrong type or range.
        """
        values = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        for name, valid in _VALID.items():
            if not valid(data.get(name)) and (name in values or name in ("kind", "text", "code")):
                raise ValueError(f"has the {name} {printable(repr(data.get(name)), 80)}")
        return cls(**values)

    def event(self) -> Event:
        return {"event": "failure", **asdict(self)}


def _integer(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


_VALID: dict[str, Callable[[Any], bool]] = {
    "kind": lambda value: value in get_args(Kind),
    "text": lambda value: isinstance(value, str),
    "code": lambda value: _integer(value, 1, 255),
    "rank": lambda value: value is None or _integer(value, 0, 1 << 31),
    "node": lambda value: value is None or isinstance(value, str),
    "at": lambda value: type(value) in (int, float) and 0 <= value < 1e11,
    "tail": lambda value: isinstance(value, list) and all(isinstance(line, str) for line in value),
}


class Reporter(Protocol):
    """The destination of an agent's events."""

    def send(self, event: Event) -> None: ...

    @property
    def pending(self) -> int: ...

    def flush(self) -> None: ...
