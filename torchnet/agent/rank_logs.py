"""The files in ``--log-dir``: each rank's raw output, written by a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.output_writer import OutputWriter

_OPEN_SECONDS = 1.0  # before the start; a file system that hangs must not delay the job for longer
_END_SECONDS = 5.0  # at the end, for a file system that accepts nothing


class RankLogs:
    """One attempt's files.

    Args:
        notice: gets a warning for each file that cannot be opened or written.
    """

    def __init__(
        self, loop: EventLoop, folder: str, ranks: Sequence[int], attempt: int, notice: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._ranks = ranks
        self._notice = notice
        self._failed: set[int] = set()
        suffix = f".restart-{attempt}" if attempt else ""
        self._paths = [os.path.join(folder, f"rank-{rank}{suffix}.log") for rank in ranks]
        self._writer = OutputWriter(loop, self._paths, self._fail)
        self._writer.wait_until_opened(_OPEN_SECONDS)

    @property
    def pending(self) -> int:
        """Bytes that the file system has not accepted yet."""
        return self._writer.pending

    def has(self, rank: int) -> bool:
        """Return whether the rank's output goes to a file, as far as is known."""
        return rank not in self._failed

    def writer(self, rank: int) -> Callable[[bytes], None]:
        """Return the function that takes a rank's output."""
        return partial(self._writer.write, self._ranks.index(rank))

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
        rank = self._ranks[number]
        if rank in self._failed:
            return
        self._failed.add(rank)
        if opening:
            self._notice(f"no log of rank {rank}: {self._paths[number]}: {why}")
        else:
            self._notice(f"cannot write the log of rank {rank} any more: {why}")
