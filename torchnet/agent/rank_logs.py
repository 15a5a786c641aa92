"""The files in ``--log-dir``: the ranks' raw output and error files, written by a process of its own.

    DIR/RUN_x/node-R/attempt_N/LOCAL_RANK/{stdout.log,stderr.log,error.json}

As torchrun's, with a level for the node, since nodes may share DIR. ``x`` is unique to a start of a job, so that
nothing is overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.output_writer import OutputWriter
from torchnet.agent.spec import AgentSpec

STREAMS = ("stdout", "stderr")
ERROR = "error.json"
_OPEN_SECONDS = 1.0  # before the start; a file system that hangs must not delay the job for longer
_END_SECONDS = 5.0  # at the end, for a file system that accepts nothing


class RankLogs:
    """One attempt's files.

    Args:
        run: Name of this run's folder in the directory.
        notice: gets a warning for each file that cannot be opened or written.
    """

    def __init__(
        self, loop: EventLoop, spec: AgentSpec, run: str, attempt: int, notice: Callable[[str], None]
    ) -> None:
        self._folder = spec.log_dir
        self._first = spec.ranks[0]
        self._notice = notice
        self._failed: set[int] = set()
        place = os.path.join(spec.log_dir, run, f"node-{spec.node_rank}", f"attempt_{attempt}")
        # In the order of their numbers, which the writer uses.
        self._files = [
            (local, name) for local in range(len(spec.ranks)) for name in (*sorted(kept(spec, local)), ERROR)
        ]
        self._numbers = {file: number for number, file in enumerate(self._files)}
        self._paths = [
            os.path.join(place, str(local), name if name == ERROR else f"{name}.log")
            for local, name in self._files
        ]
        # An error file exists only if there is an error, as under torchrun.
        late = {number for file, number in self._numbers.items() if file[1] == ERROR}
        self._writer = OutputWriter(loop, self._paths, self._fail, late)
        self._writer.wait_until_opened(_OPEN_SECONDS)

    @property
    def pending(self) -> int:
        """Bytes that the file system has not accepted yet."""
        return self._writer.pending

    def has(self, rank: int, stream: str) -> bool:
        """Return whether this output of the rank goes to a file, as far as is known."""
        number = self._numbers.get((rank - self._first, stream))
        return number is not None and number not in self._failed

    def writers(self, rank: int) -> dict[str, Callable[[bytes], None]]:
        """Return the function that takes a rank's output, for each stream that is kept, and for its error file."""
        local = rank - self._first
        return {
            name: partial(self._writer.write, number)
            for (one, name), number in self._numbers.items()
            if one == local
        }

    def close(self) -> None:
        """Close the files as soon as all is written, without blocking."""
        self._writer.close()

    def drain(self) -> None:
        """Wait until all is written, unless the file system does not respond; for the end of the agent."""
        if not self._writer.drain(_END_SECONDS):
            self._notice(
                f"--log-dir {self._folder} accepts no data: {self._writer.pending:,} bytes of the logs are lost"
            )
        self.close()

    def _fail(self, number: int, why: str, opening: bool) -> None:
        if number in self._failed:
            return
        self._failed.add(number)
        rank, name = self._files[number][0] + self._first, self._files[number][1]
        if opening:
            self._notice(f"no {name} of rank {rank} in --log-dir: {self._paths[number]}: {why}")
        elif name != ERROR:
            self._notice(f"cannot write {name} of rank {rank} to --log-dir any more: {why}")


def kept(spec: AgentSpec, local: int) -> set[str]:
    """Return the streams of a local rank that go to files: those of -r and -t, else both."""
    chosen = streams(spec.redirects, local) | streams(spec.tee, local)
    return chosen if f"{spec.redirects}{spec.tee}".strip("0") else set(STREAMS)


def hidden(spec: AgentSpec, local: int) -> set[str]:
    """Return the streams of a local rank that are not shown: as under torchrun, -t shows what -r hides."""
    return streams(spec.redirects, local) - streams(spec.tee, local)


def streams(value: str, local: int) -> set[str]:
    """Parse torchrun's notation: "0" to "3" for all ranks of a worker, or "0:1,1:3" by local rank."""
    bits = 0
    if ":" in value:
        for part in value.split(","):
            one, _, number = part.partition(":")
            if int(one) == local:
                bits = int(number)
    else:
        bits = int(value or 0)
    return {name for bit, name in zip((1, 2), STREAMS, strict=True) if bits & bit}
