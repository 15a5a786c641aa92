"""What an agent tells its runtime: events, as plain dicts with a key ``event``.

    phase           node, phase, text         a phase's state: "4/4 joined"
    notice          node, level, text         something that people should read
    started         node, attempt, ranks, pids
    output          rank, stream, data, end   a line of a process; end "" when it is not finished
    failure         the fields of Failure     what stopped the job
    told            the same                  what this agent was told, or heard by a signal: it will end
    replaced        the same                  this pod cannot take part, and another one is made in its place
    time            phase, own_s, waited_s    a phase has ended: torchnet's own time, and what it waited for others
    own_time        own_s                     all of it, up to the script's start
    stall           text                      who waits for whom, with stacks
    worker_receipt  receipt                   one worker's account
    receipt         receipt                   the job's
    end             node, code                the agent is done

Locally they go to the launcher over a socket; in a pod they are text on the standard streams, which its log keeps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

Event = dict[str, Any]
Kind = Literal["script", "network", "lost", "timeout", "interrupted", "internal", "usage"]
BACKLOG = 1 << 20  # bytes; above it, processes' output is not read until the reader has caught up


@dataclass(frozen=True)
class Failure:
    """Why a job stopped.  ``code`` is the launcher's exit code, ``at`` unix time, ``tail`` a process's last lines."""

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
    """Where an agent's events go."""

    def send(self, event: Event) -> None: ...

    @property
    def pending(self) -> int: ...

    def flush(self) -> None: ...
