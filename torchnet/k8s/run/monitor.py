"""The monitor of a run: shows states and output, turns signals into a stop, and determines the exit code.

One thread makes all decisions. The watch, the logs and slow calls run in threads of their own and put their results
into queues.
"""

from __future__ import annotations

import queue
import signal
import time
from dataclasses import dataclass
from typing import Any

from torchnet.agent.events import BACKLOG, Failure
from torchnet.console.console import Console
from torchnet.constants import GRACE_SECONDS, STOPPED_CODE
from torchnet.errors import TorchnetError
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.client.watch import Watch
from torchnet.k8s.run.attempts import Attempts
from torchnet.k8s.run.deletion import NOW_SECONDS
from torchnet.k8s.run.jobset_restart import JobSetRestart
from torchnet.k8s.run.log_stream import LogDispatcher, LogFiles, LogSelection
from torchnet.k8s.run.node_loss import NodeLoss
from torchnet.k8s.run.outcome import first_failure, settle
from torchnet.k8s.run.pending import PendingReasons, WorkloadStatus
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.stop import RunStop
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus
from torchnet.signals import Signals


@dataclass(frozen=True)
class RunOptions:
    """The options of a launch or an attach that concern the monitor; times are in seconds.

    Attributes:
        log_dir: folder for a file with the output of each rank.
        stops: signals and failures stop the job; False for attach, which only watches.
        keep: a stopped run stays on the cluster.
        detach: return once all workers have started, and leave the run, even if it has ended by then.
        tail: how many lines to read of those that a log holds already; None reads all.
        measure: the workers were asked to sample their rails.
    """

    start_timeout: float | None = None
    timeout: float | None = None
    grace: float = GRACE_SECONDS
    ranks: tuple[int, ...] = ()
    log_dir: str | None = None
    stops: bool = True
    keep: bool = False
    detach: bool = False
    tail: int | None = None
    measure: bool = False


@dataclass(frozen=True)
class RunOutcome:
    """How the monitoring of a run ended.

    Attributes:
        receipt: the job's receipt; None if the launcher left the run before its end.
        left: why the launcher left the run.
        stopped: the launcher has asked the cluster to stop the job.
        kept: the workload and its pods stay, as requested (``--keep``).
        commands: the torchnet commands to suggest for a run that was left.
    """

    receipt: dict[str, Any] | None
    code: int
    left: str = ""
    stopped: bool = False
    kept: bool = False
    commands: tuple[str, ...] = ("attach", "logs", "status", "down")


_TICK_SECONDS = 0.1
_READING_TICK_SECONDS = 0.02
_EVENTS_SECONDS = 2.0  # before Events are read: an ordinary start does not need them
# Before all workers have started: for an agent to report its failure to those that have joined. Then they are stopped.
_APART_SECONDS = 3.0
_PATIENCE_SECONDS = 15.0  # beyond --grace, for workers to exit before torchnet stops waiting for them
_BEHIND_SECONDS = 5.0  # how far the watch on the pods may lag behind the JobSet's status
_HALTED_SECONDS = 3.0  # at the end, for a stop with --keep to complete
_SETTLE_SECONDS = 0.5  # for states that are still on their way
_DRAIN_SECONDS = 8.0  # for the last lines of the logs
_STOPPED_SECONDS = 1.5  # the same once the pods are deleted
_LEAVE_SECONDS = 0.6  # after a second signal, for the stop to be accepted: some senders send two at once
_HURRIED_SECONDS = 0.5  # for the last lines of the logs after a signal


class RunMonitor:
    """Monitors one run: :meth:`run` returns once all workers have ended, or there are none left to wait for."""

    def __init__(
        self,
        door: ApiClient,
        facts: RunInfo,
        console: Console,
        wishes: RunOptions,
        signals: Signals,
        told: queue.SimpleQueue[str] | None = None,
    ) -> None:
        """Prepare the monitor; :meth:`run` starts it.

        Args:
            told: warnings for the console, from threads of the launcher.
        """
        self._door, self._facts, self._console, self._wishes = door, facts, console, wishes
        self._signals = signals
        self._told: queue.SimpleQueue[str] = told or queue.SimpleQueue()
        self._gang = WorkerSet(facts.nnodes, restarts=facts.restarts, replaces=facts.kind is not POD)
        self._look = WorkloadStatus(door, facts)
        self._waiting = PendingReasons(facts)
        everybody = wishes.log_dir is not None
        self._following = LogSelection(door, facts, ranks=wishes.ranks, everybody=everybody, tail=wishes.tail)
        self._heard = LogDispatcher(console, self._following.take, LogFiles(wishes.log_dir))
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._workers: dict[int, WorkerStatus] = {}
        warn = lambda text: self._console.notice(text, "warning")  # noqa: E731
        self._leaving = NodeLoss(facts, warn)
        problem = lambda text: self._queue.put(("notice", text))  # noqa: E731
        self._again = JobSetRestart(facts, self._gang, self._leaving, warn)
        self._attempts = Attempts(facts, self._gang, self._look, warn)
        self._listed = self._again_known = False
        self._started = False
        self._failure: Failure | None = None
        self._broken: TorchnetError | None = None
        self._stopped = RunStop(
            door,
            facts,
            keep=wishes.keep,
            notice=problem,
            failed=lambda error: self._queue.put(("failed", error)),
        )
        self._stop_at: float | None = None
        self._over: float | None = None  # monotonic time at which the workload was seen to be over
        self._interrupted = 0
        self._counted = 0.0  # seconds of --start-timeout that have passed: time in a queue does not count
        self._ticked = self._began = time.monotonic()

    def run(self) -> RunOutcome:
        """Monitor the run until it ends or is left.

        Raises:
            ClusterError: the cluster cannot be reached any more; the job itself goes on.
            TorchnetError: a defect ended one of the launcher's threads; the job itself goes on.
        """
        put = self._queue.put
        Watch(
            self._door,
            self._facts.namespace,
            self._facts.run,
            listed=lambda pods: put(("listed", pods)),
            event=lambda kind, pod: put((kind, pod)),
            failed=lambda error: put(("failed", error)),
        ).start()
        while True:
            if self._attempts.reading(time.monotonic()):
                # Further states wait: when many workers end, each state would require another read.
                time.sleep(_READING_TICK_SECONDS)
                changed = False
            else:
                changed = self._take_states()
            self._heard.take(all_of_it=self._stopping is not None)
            if self._broken is not None:
                raise self._broken
            if changed:
                self._workers = self._gang.workers()
                self._leaving.correct(self._workers)
                self._following.update(self._workers)
            outcome = self._decide()
            if outcome is not None:
                return outcome
            while not self._told.empty():
                self._console.notice(self._told.get(), "warning")
            self._door.access.silence.look()
            self._console.tick()
            self._console.push()

    @property
    def _stopping(self) -> float | None:
        """Monotonic time at which the stop of the job began; None before."""
        return self._stopped.since

    # -- inputs --------------------------------------------------------------------------------------------------

    def _take_states(self) -> bool:
        """Process all queued states, waiting briefly for the first; return whether there were any."""
        changed = False
        wait: float | None = _TICK_SECONDS
        while True:
            try:
                kind, value = self._queue.get(timeout=wait) if wait else self._queue.get_nowait()
            except queue.Empty:
                return changed
            wait, changed = None, True
            if kind == "listed":
                self._gang.listed(value)
                self._listed = True
            elif kind == "failed":
                self._broken = value
            elif kind == "notice":
                self._console.notice(value, "warning")
            else:
                self._gang.event(kind, value)

    def _take_signals(self) -> int | None:
        """Stop the job at the first signal, which does not replace an earlier failure; return the newest signal."""
        number = None
        for number in self._signals.take():
            self._interrupted += 1
            if not self._wishes.stops or self._interrupted > 1:
                continue
            if self._failure is None:
                text = f"stopped by {signal.Signals(number).name}"
                self._failure = Failure("interrupted", text, 128 + number, at=time.time())
            if number == signal.SIGINT:
                text = f"stopping within {self._wishes.grace:g} s (a second Ctrl-C ends torchnet at once)"
                self._console.notice(text, "warning")
            self._stop()
        return number

    # -- decisions -----------------------------------------------------------------------------------------------

    def _decide(self) -> RunOutcome | None:
        now = time.monotonic()
        passed, self._ticked = now - self._ticked, now
        paused = self._paused(now, passed)
        if paused and self._attempts.reading(now):
            return None
        if self._listed and not paused and self._all_ended():
            return self._end()
        # Only now: a signal that comes after all workers have ended cuts short only the reading of their logs.
        number = self._take_signals()
        if number is not None and not self._wishes.stops:
            return RunOutcome(None, 128 + number, "the job goes on")
        if self._interrupted > 1:
            return self._leave()
        if self._stopping is not None:
            limit = self._wishes.grace + _PATIENCE_SECONDS
            return self._end(drain=1.0) if now - self._stopping > limit else None
        if paused:
            return self._evicted(now)
        if self._wishes.stops and self._stop_at is not None and now >= self._stop_at:
            if self._wishes.detach and self._failure is not None:
                # The run stays for inspection, and its agents end it by themselves, as they would after detaching.
                return RunOutcome(None, self._failure.code, "it has failed, and has not been stopped")
            self._stop()
        self._look_for_failures(now)
        if not self._started and self._start(now, passed) and self._wishes.detach and self._failure is None:
            return RunOutcome(None, 0, "all workers have started")
        if self._wishes.timeout and now - self._began > self._wishes.timeout:
            text = f"the job ran longer than --timeout {self._wishes.timeout:g} s"
            self._fail(Failure("timeout", text, 124, at=time.time()))
        return None

    def _paused(self, now: float, passed: float) -> bool:
        """Whether no decision is possible, because the workload is suspended or must be read first.

        No deadline runs meanwhile.
        """
        if self._stopping is None and self._stop_at is None:
            if self._attempts.update(now):
                self._workers = self._gang.workers()
                self._leaving.forget()
                self._again.forget()
                self._heard.next_attempt()
                self._next_attempt()
            if self._attempts.paused:
                self._began += passed
                return True
        if self._stopping is None:
            self._leaving.look(self._workers, now)
        return False

    def _next_attempt(self) -> None:
        """Reset what belongs to one attempt: its start timeout and its reasons to wait."""
        self._started, self._counted, self._waiting = False, 0.0, PendingReasons(self._facts)

    def _evicted(self, now: float) -> RunOutcome | None:
        """Leave a group of plain pods that its queue has evicted, once its pods have ended."""
        live = [one for one in self._workers.values() if one.stage in ("preparing", "prepared", "running")]
        patience = max((one.patience for one in live), default=0.0) + _PATIENCE_SECONDS
        if not self._attempts.evicted or (live and now - self._attempts.evicted_at < patience):
            return None
        self._drain(_DRAIN_SECONDS)
        return RunOutcome(None, STOPPED_CODE, self._attempts.eviction, commands=("status", "down"))

    def _all_ended(self) -> bool:
        ended = [one for one in self._workers.values() if one.ended is not None]
        if self._stopping is not None:
            # Only pods whose containers have run leave a termination message.
            live = [
                one for one in self._workers.values() if one.stage in ("preparing", "prepared", "running")
            ]
            if not live and time.monotonic() - self._stopping > _SETTLE_SECONDS:
                return self._stopped.wait(0)
        if self._facts.restarts and self._stopping is None:
            if not self._look.over():
                return False
            self._over = self._over or time.monotonic()
            last = len(ended) == self._facts.nnodes and self._gang.attempt >= self._look.restarts
            return last or time.monotonic() - self._over > _BEHIND_SECONDS
        if len(ended) == self._facts.nnodes:
            return self._stopped.wait(0)
        if self._gang.pods():
            return False
        # No pods are left: somebody else has deleted the run, or it was kept until its pods were deleted. All plain
        # pods were created before the first list, and no controller creates others.
        return self._facts.kind is POD or self._look.gone() or self._look.over()

    def _look_for_failures(self, now: float) -> None:
        """React to a failed worker.

        Its agent informs the workers that have joined, so that they exit. If they do not, the job is stopped, unless
        the launcher only watches it or detaches.
        """
        if self._stop_at is not None:
            return
        apart = self._wishes.grace + _PATIENCE_SECONDS if self._started else _APART_SECONDS
        if self._facts.restarts and not self._look.failed():
            self._see_again(now, apart)
            return
        found = first_failure(self._facts, self._workers)
        if found is None:
            return
        if self._failure is None:
            self._failure = found
        if not self._heard.said(found.text.partition("\n")[0]):
            self._console.event(found.event())
        # The other agents may not notice a lost node: its network can still work.
        self._stop_at = now if self._leaving.unheard else now + apart

    def _see_again(self, now: float, apart: float) -> None:
        """Follow the attempts of a JobSet, which restarts its workers after a failure while restarts are left."""
        if not self._listed:
            return
        if not self._wishes.stops and not self._again_known:
            self._again_known, self._again.attempt = True, self._gang.attempt  # report only later restarts
        if self._again.begun(self._look.restarts):
            self._next_attempt()
        last = not self._look.restarts_left
        limit = apart if last else self._wishes.grace + _PATIENCE_SECONDS
        found = self._again.look(now, limit, last=last)
        if found is not None and self._wishes.stops:
            self._fail(found)

    def _start(self, now: float, passed: float) -> bool:
        """Whether all workers have started; reports what delays those that have not."""
        workers = self._again.workers if self._again.attempt else self._workers
        queued = self._look.queued(workers)
        if queued:
            self._began += passed
        else:
            self._counted += passed
        if len([one for one in workers.values() if one.started or one.ended]) == self._facts.nnodes:
            self._started = True
            return True
        told = self._look.told(workers) if now - self._began > _EVENTS_SECONDS else {}
        replaced = self._gang.replaced()
        for text in self._waiting.lines(workers, told, queued, now, replaced=replaced):
            self._console.notice(text)
        limit = self._wishes.start_timeout
        if limit is not None and self._counted > limit and self._failure is None:
            reasons = self._waiting.reasons(workers, told, queued, replaced=replaced)
            shown = [f"{name}: {why}" for name, why in list(reasons.items())[:16]]
            more = [f"and {len(reasons) - 16} more"] if len(reasons) > 16 else []
            text = "\n".join([f"not all workers started within --start-timeout {limit:g} s", *shown, *more])
            self._fail(Failure("timeout", text, 124, at=time.time()))
        return False

    def _fail(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure
            self._console.event(failure.event())
        self._stop()

    def _stop(self) -> None:
        """Begin to stop the job, and to delete its pods unless they are kept; their last output still arrives."""
        if self._stopped.since is not None or not self._wishes.stops:
            return
        # The first process of a container does not receive SIGTERM until it has installed a handler, so a preparation
        # that has just begun would run to its end. Before the training, there is nothing to save.
        early = self._interrupted > 0 and not any(one.started for one in self._workers.values())
        grace = NOW_SECONDS if early else None

        self._stopped.begin(grace, self._wishes.grace + _PATIENCE_SECONDS)

    def _leave(self) -> RunOutcome:
        """Leave after a second signal, and report what is known of the stop."""
        assert self._failure is not None  # the first signal has set one, at the latest
        known = self._stopped.progress(_LEAVE_SECONDS)
        self._heard.take(all_of_it=True)
        self._heard.close()
        commands = ("logs", "down") if self._stopped.keeps else ("down",)
        return RunOutcome(None, self._failure.code, known, stopped=True, commands=commands)

    def _end(self, drain: float | None = None) -> RunOutcome:
        """Read the logs to their ends, within ``drain`` seconds (default: 8), and build the receipt."""
        drain = _DRAIN_SECONDS if drain is None else drain
        if self._stopping is not None and not self._stopped.wait(_HALTED_SECONDS):
            self._console.notice(f"--keep: {self._facts.run} may go on: it was not told in time", "warning")
        if self._stopping is not None and not self._stopped.keeps:
            # The pods are gone, and not every kubelet closes their log streams.
            drain = min(drain, _STOPPED_SECONDS)
        self._drain(drain)
        self._door.stop.set()
        receipt = settle(
            self._facts,
            self._workers,
            self._heard.receipts.get(self._workers[0].uid) if 0 in self._workers else None,
            self._failure,
            restarts=self._look.restarts,
            now=time.time(),
        )
        stopped = self._stopping is not None
        kept = self._wishes.keep and self._stopped.keeps
        return RunOutcome(receipt, int(receipt["exit_code"]), stopped=stopped, kept=kept)

    def _drain(self, drain: float) -> None:
        """Read the logs to their ends, within ``drain`` seconds."""
        self._following.update(self._workers)
        self._following.release()
        hurried, last = False, time.monotonic()
        while self._following.busy and drain > 0:
            if self._signals.take():
                hurried, drain = True, min(drain, _HURRIED_SECONDS if self._signals.count == 1 else 0.0)
            self._heard.take(all_of_it=self._stopping is not None)
            self._console.tick()
            self._console.push()
            time.sleep(0.02)
            now = time.monotonic()
            # The time that a slow reader of the console takes does not count.
            if hurried or self._stopping is not None or self._console.pending <= BACKLOG:
                drain -= now - last
            last = now
        self._heard.take(all_of_it=self._stopping is not None)
        self._heard.close()
