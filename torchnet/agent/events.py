"""Events that an agent sends to its runtime: plain dicts with a key ``event``.

    row             node, row                 the worker's row of the peer table
    phase           node, phase, text         a phase's state: "4/4 joined"
    notice          node, level, text         a message for the user
    started         node, attempt, ranks, pids
    output          node, rank, stream, data, end    a line of a process; end is "" if it is unfinished
    failure         the fields of Failure     why the job stops; restart: whether it restarts
    told            the same                  why this agent will stop: the coordinator or a signal
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

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

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
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})

    def event(self) -> Event:
        return {"event": "failure", **asdict(self)}


class Reporter(Protocol):
    """The destination of an agent's events."""

    def send(self, event: Event) -> None: ...

    @property
    def pending(self) -> int: ...

    def flush(self) -> None: ...
