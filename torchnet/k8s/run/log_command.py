"""``torchnet logs``: print the logs of a run, as they are now or until the run has ended.

A run that is suspended has not ended: its next attempt has other pods.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torchnet.console.console import Console
from torchnet.constants import PREPARE
from torchnet.errors import TorchnetError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.client.watch import Watch, list_pages
from torchnet.k8s.run.attempts import Attempts
from torchnet.k8s.run.interruptible import ask
from torchnet.k8s.run.launch import close
from torchnet.k8s.run.log_stream import LogDispatcher, LogFiles, LogSelection, allow, followed_text
from torchnet.k8s.run.pod_logs import WHOLE, LogExtent
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus
from torchnet.k8s.run.workload_status import WorkloadStatus
from torchnet.receipt.step_timing import summarize_samples
from torchnet.signals import Signals

_TURN_SECONDS = 0.05


class LogReading:
    """Prints the logs of one run. The workers' states determine which logs exist, and when they end.

    Raises:
        UsageError: following the logs needs more open files than this machine allows.
    """

    def __init__(
        self,
        client: ApiClient,
        info: RunInfo,
        console: Console,
        ranks: Sequence[int],
        follow: bool,
        extent: LogExtent = WHOLE,
        container: str = "",
    ) -> None:
        """Prepare the reading; :meth:`show` does it.

        Args:
            extent: which of the lines that a log holds already are read.
            container: ``prepare`` or ``worker`` reads this one's logs only.
        """
        self._client, self._info, self._console, self._follow = client, info, console, follow
        # What is there now is shown; only who follows waits for the replacement of a pod that has ended.
        replaces = follow and info.kind is not POD
        self._worker_set = WorkerSet(info.nnodes, restarts=info.restarts, replaces=replaces)
        self._lock = threading.Lock()
        self._workload_status = WorkloadStatus(client, info)
        warn = lambda text: console.notice(text, "warning")  # noqa: E731
        self._attempts = Attempts(info, self._worker_set, self._workload_status, warn, lambda: 0)
        self._attempts.knows_number = False  # nothing says how many there were before
        self._queued = ""  # the last message about what the run waits for
        if follow:
            if text := followed_text(info.nnodes, info.nproc_per_node, ranks, everybody=not ranks):
                console.notice(text)
            allow(info.nnodes, info.nproc_per_node, ranks, everybody=not ranks)
        self._container = container
        self._log_selection = LogSelection(
            client,
            info,
            ranks=ranks,
            everybody=not ranks,
            extent=extent,
            container=container,
            follow=follow,
        )
        self._dispatcher = LogDispatcher(console, self._log_selection.take, LogFiles(None))
        self._failed: list[TorchnetError] = []

    def show(self, signals: Signals) -> int:
        """Print the logs.

        Returns:
            0, or 128 + the number of the signal that ended the command.

        Raises:
            ClusterError: the pods cannot be listed or watched, or the server cannot be reached.
            Left: a signal came before there was anything to print.
        """
        self._worker_set.relist(ask(self._pods, signals, "no logs were read", client=self._client))
        if self._follow:
            self._watch()
        try:
            number = self._print(signals)
            if number and not self._follow:
                name = signal.Signals(number).name
                self._console.notice(f"stopped by {name}: the logs are incomplete", "warning")
            for receipt in self._dispatcher.receipts.values():
                body = summarize_samples(receipt) if isinstance(receipt, dict) else receipt
                self._console.event({"event": "receipt", "receipt": body})
        finally:
            self._client.stop.set()
            close(self._console, signals)
        return 128 + number if number else 0

    def _pods(self) -> list[dict[str, Any]]:
        namespace, query = self._info.namespace, {"labelSelector": self._info.selector}
        path, call = POD.path(namespace), POD.call("list", namespace)
        return list_pages(self._client, path, call, query)[0]

    def _print(self, signals: Signals) -> int:
        """Print until no more lines can come; return 0, or the number of the signal that ended it."""
        while True:
            if taken := signals.take():
                return taken[0]
            if self._failed:
                raise self._failed[0]
            with self._lock:
                if self._follow and self._attempts.update(time.monotonic()):
                    self._dispatcher.next_attempt()
                workers = self._worker_set.workers()
                former = self._worker_set.former(self._attempts.ended_uids)
                has_pods = bool(self._worker_set.pods())
            self._log_selection.update(former)  # notifies the followers whose container has ended
            self._log_selection.update(workers)
            self._dispatcher.take(all_of_it=False)
            self._client.access.silence.look()
            self._console.tick()
            self._console.push()
            if not self._log_selection.busy and not (self._follow and self._continues(workers, has_pods)):
                return 0
            time.sleep(_TURN_SECONDS)

    def _continues(self, workers: Mapping[int, WorkerStatus], has_pods: bool) -> bool:
        """Whether more lines may come from other pods, or from those that exist."""
        if self._attempts.paused and not self._attempts.evicted:
            return True
        ended = len(workers) == self._info.nnodes and all(map(self._has_ended, workers.values()))
        if ended or (not has_pods and self._info.kind is POD):
            return False
        if has_pods or self._workload_status.unreadable:
            return has_pods
        queued = self._workload_status.queued(workers)
        if queued and queued != self._queued:
            self._queued = queued
            self._console.notice(f"{self._info.run}: {queued}")
        return not self._workload_status.over()

    def _has_ended(self, one: WorkerStatus) -> bool:
        """Whether the containers that are read have ended."""
        return one.ended is not None or (self._container == PREPARE and one.joins)

    def _watch(self) -> None:
        Watch(
            self._client,
            self._info.namespace,
            self._info.run,
            on_list=self._on_list,
            on_event=self._on_event,
            on_error=self._failed.append,
            label=self._info.label,
        ).start()

    def _on_list(self, pods: list[dict[str, object]]) -> None:
        with self._lock:
            self._worker_set.relist(pods)

    def _on_event(self, kind: str, pod: dict[str, object]) -> None:
        with self._lock:
            self._worker_set.event(kind, pod)
