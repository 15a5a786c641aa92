"""``torchnet logs``: print the logs of a run, as they are now or until its workers have ended."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from torchnet.console.console import Console
from torchnet.errors import TorchnetError
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.client.kinds import POD, selector
from torchnet.k8s.client.watch import Watch
from torchnet.k8s.run.interruptible import ask
from torchnet.k8s.run.launch import close
from torchnet.k8s.run.log_stream import LogDispatcher, LogFiles, LogSelection, allow
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerSet
from torchnet.receipt.step_timing import summarize_samples
from torchnet.signals import Signals

_TURN_SECONDS = 0.05


class LogReading:
    """Prints the logs of one run. The workers' states determine which logs exist, and when they end.

    Raises:
        UsageError: following the logs needs more open files than this machine allows.
    """

    def __init__(
        self, door: ApiClient, known: RunInfo, console: Console, ranks: Sequence[int], follow: bool
    ) -> None:
        self._door, self._known, self._console, self._follow = door, known, console, follow
        self._gang = WorkerSet(known.nnodes, restarts=known.restarts, replaces=known.kind is not POD)
        self._lock = threading.Lock()
        if follow:
            allow(known.nnodes, known.nproc_per_node, ranks, everybody=not ranks)
        self._following = LogSelection(door, known, ranks=ranks, everybody=not ranks, follow=follow)
        self._heard = LogDispatcher(console, self._following.take, LogFiles(None))
        self._failed: list[TorchnetError] = []

    def show(self, signals: Signals) -> int:
        """Print the logs.

        Returns:
            0, or 128 + the number of the signal that ended the command.

        Raises:
            ClusterError: the pods cannot be listed or watched, or the server cannot be reached.
            Left: a signal came before there was anything to print.
        """
        pods = ask(self._pods, signals, "no log had been read yet", door=self._door)
        self._gang.listed(pods.get("items") or ())
        if self._follow:
            self._watch()
        try:
            number = self._print(signals)
            if number and not self._follow:
                name = signal.Signals(number).name
                self._console.notice(f"stopped by {name}: the logs were not read to their ends", "warning")
            for receipt in self._heard.receipts.values():
                made = summarize_samples(receipt) if isinstance(receipt, dict) else receipt
                self._console.event({"event": "receipt", "receipt": made})
        finally:
            self._door.stop.set()
            close(self._console, signals)
        return 128 + number if number else 0

    def _pods(self) -> dict[str, Any]:
        namespace = self._known.namespace
        query = {"labelSelector": selector(self._known.run)}
        return self._door.call("GET", POD.path(namespace), POD.call("list", namespace), query=query)

    def _print(self, signals: Signals) -> int:
        """Print until no more lines can come; return 0, or the number of the signal that ended it."""
        while True:
            if taken := signals.take():
                return taken[0]
            if self._failed:
                raise self._failed[0]
            with self._lock:
                workers = self._gang.workers()
                there = bool(self._gang.pods())
            self._following.update(workers)
            self._heard.take(all_of_it=False)
            self._door.access.silence.look()
            self._console.tick()
            self._console.push()
            ended = all(one.ended for one in workers.values()) and len(workers) == self._known.nnodes
            if not self._following.busy and (not self._follow or ended or not there):
                return 0
            time.sleep(_TURN_SECONDS)

    def _watch(self) -> None:
        Watch(
            self._door,
            self._known.namespace,
            self._known.run,
            listed=self._listed,
            event=self._event,
            failed=self._failed.append,
        ).start()

    def _listed(self, pods: list[dict[str, object]]) -> None:
        with self._lock:
            self._gang.listed(pods)

    def _event(self, kind: str, pod: dict[str, object]) -> None:
        with self._lock:
            self._gang.event(kind, pod)
