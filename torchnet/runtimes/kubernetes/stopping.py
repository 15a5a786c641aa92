"""The stop of a run, in a thread of its own: its workload and pods deleted, or ended where they are (``--keep``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from torchnet.errors import ClusterError, TorchnetError
from torchnet.runtimes.kubernetes.door import Door
from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.halt import halt, starts_again
from torchnet.runtimes.kubernetes.remove import stop
from torchnet.runtimes.kubernetes.watch import own_error


class Stopping:
    """``notice`` and ``failed`` are called from the thread."""

    def __init__(
        self,
        door: Door,
        facts: Facts,
        *,
        keep: bool,
        notice: Callable[[str], None],
        failed: Callable[[TorchnetError], None],
    ) -> None:
        self._door, self._facts = door, facts
        self._notice, self._failed = notice, failed
        self._done = threading.Event()
        self.keeps = keep
        """Whether the pods stay; of what starts again as long as it is there, they do not."""
        self.since: float | None = None
        """When it was begun (monotonic)."""

    def begin(self, grace: int | None, patience: float) -> None:
        """``grace``: seconds for pods that are deleted (None: their own); ``patience``: at most for those that stay."""
        self.since = time.monotonic()
        threading.Thread(target=self._work, args=(grace, patience), name="stop", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether what stays has been told to end, and that nothing is made any more; within so many seconds."""
        return not self.keeps or self.since is None or self._done.wait(seconds)

    def _work(self, grace: int | None, patience: float) -> None:
        door, facts = self._door, self._facts
        try:
            if self.keeps and starts_again(door, facts):
                self._notice(
                    "--keep: the JobSet has restarts left and would start again, so the run is removed"
                )
                self.keeps = False
            if not self.keeps:
                stop(door, facts.namespace, facts.run, grace=grace)
            elif why := halt(door, facts, patience):
                self._notice(f"--keep: {facts.run} {why}")
        except ClusterError as error:
            self._failed(error)
        except Exception as error:
            self._failed(own_error(f"the stop of {facts.run}", error))
        finally:
            self._done.set()
