"""The monitor of a run: states and output to the console, signals to the cluster, one exit code.

One thread decides. The watch, the logs and slow calls have threads of their own and put their results into queues.
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
    """What the launch asked for. Times are seconds. ``stops``: a signal stops the job, and a failure, too; attach only
    looks on. ``keep``: what is stopped stays there. ``detach``: return when all have started, and leave the run, also
    where it has ended by itself by then. ``measure``: the workers were to sample their rails."""

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
    """``receipt`` is None for a launch that was left while its job runs on (``left``: why).

    ``stopped``: the launcher has asked the cluster to end the job. ``kept``: its workload and pods stay, as was wished.
    ``commands`` go on with a run that was left.
    """

    receipt: dict[str, Any] | None
    code: int
    left: str = ""
    stopped: bool = False
    kept: bool = False
    commands: tuple[str, ...] = ("attach", "logs", "status", "down")


_TICK_SECONDS = 0.1
_READING_TICK_SECONDS = 0.02
_EVENTS_SECONDS = 2.0  # before events are asked for: an ordinary start needs none
_APART_SECONDS = (
    3.0  # for those that have joined to hear of a failure from its agent; then the others are stopped
)
_PATIENCE_SECONDS = 15.0  # beyond --grace, until a worker that does not end although it was told to is ended
_BEHIND_SECONDS = 5.0  # that the watch on the pods may be behind what a JobSet says of itself
_HALTED_SECONDS = 3.0  # for the last of what stays to be told, at the end
_SETTLE_SECONDS = 0.5  # in which states that were on their way arrive
_DRAIN_SECONDS = 8.0  # for the logs' last lines
_STOPPED_SECONDS = 1.5
_LEAVE_SECONDS = 0.6  # after a second signal, for the stop to be accepted: some senders send two in one go
_HURRIED_SECONDS = 0.5  # for the logs' last lines after a signal


class RunMonitor:
    """:meth:`run` returns when all workers have ended, or when there is nobody to wait for any more."""

    def __init__(
        self,
        door: ApiClient,
        facts: RunInfo,
        console: Console,
        wishes: RunOptions,
        signals: Signals,
        told: queue.SimpleQueue[str] | None = None,
    ) -> None:
        """``told``: lines for the console from threads of the launcher's that are none of the session's."""
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
        self._over: float | None = None  # when a JobSet was seen to have ended
        self._interrupted = 0
        self._counted = 0.0  # of --start-timeout: time in a queue counts for no deadline
        self._ticked = self._began = time.monotonic()

    def run(self) -> RunOutcome:
        """Serve until the end.

        Raises:
            ClusterError: the cluster cannot be asked any more; the job itself goes on.
            TorchnetError: nor can it where a thread of the launcher had a defect.
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
                # Further states wait: of a large gang that ends, each would want another read.
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
        """When the job was told to end."""
        return self._stopped.since

    # -- what comes ----------------------------------------------------------------------------------------------

    def _take_states(self) -> bool:
        """Everything that has come, waiting a moment for the first; whether there was something."""
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
        """Stop the job at the first; the last that came, if one did. An earlier failure stays the job's."""
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

    # -- what follows --------------------------------------------------------------------------------------------

    def _decide(self) -> RunOutcome | None:
        now = time.monotonic()
        passed, self._ticked = now - self._ticked, now
        paused = self._paused(now, passed)
        if paused and self._attempts.reading(now):
            return None
        if self._listed and not paused and self._all_ended():
            return self._end()
        # After that: a signal that comes when all have ended interrupts nothing but the reading of what they said.
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
                # What can be seen of it is to stay, and its agents end it by themselves, as if nobody had looked.
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
        """Whether nothing can be decided: the workload is suspended, or has to be read first. No deadline runs then."""
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
        """Each start has its own time, and its own reasons to wait."""
        self._started, self._counted, self._waiting = False, 0.0, PendingReasons(self._facts)

    def _evicted(self, now: float) -> RunOutcome | None:
        """A group of plain pods that its queue has evicted is left when its pods have ended."""
        live = [one for one in self._workers.values() if one.stage in ("preparing", "prepared", "running")]
        patience = max((one.patience for one in live), default=0.0) + _PATIENCE_SECONDS
        if not self._attempts.evicted or (live and now - self._attempts.evicted_at < patience):
            return None
        self._drain(_DRAIN_SECONDS)
        return RunOutcome(None, STOPPED_CODE, self._attempts.eviction, commands=("status", "down"))

    def _all_ended(self) -> bool:
        ended = [one for one in self._workers.values() if one.ended is not None]
        if self._stopping is not None:
            # Only whose containers have run has last words.
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
        # Removed by somebody else, or kept for so long that its pods are gone: nothing comes any more. Plain pods were
        # all made before they were listed, and nobody makes others.
        return self._facts.kind is POD or self._look.gone() or self._look.over()

    def _look_for_failures(self, now: float) -> None:
        """A worker that ended badly: its agent tells those that have joined; what does not end then is stopped."""
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
        # Of a lost node the other agents may know nothing: the network can be as good as before.
        self._stop_at = now if self._leaving.unheard else now + apart

    def _see_again(self, now: float, apart: float) -> None:
        """A JobSet's gang that is broken starts again if restarts are left; each attempt has its own time."""
        if not self._listed:
            return
        if not self._wishes.stops and not self._again_known:
            self._again_known, self._again.attempt = True, self._gang.attempt  # what was before is no news
        if self._again.begun(self._look.restarts):
            self._next_attempt()
        last = not self._look.restarts_left
        limit = apart if last else self._wishes.grace + _PATIENCE_SECONDS
        found = self._again.look(now, limit, last=last)
        if found is not None and self._wishes.stops:
            self._fail(found)

    def _start(self, now: float, passed: float) -> bool:
        """Whether all have started; says what holds up those that have not."""
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
        """Tell the cluster to end the job, and to remove its pods unless they are kept; its last words still come."""
        if self._stopped.since is not None or not self._wishes.stops:
            return
        # A container's first process that has no handler yet never gets a SIGTERM: a preparation that has just begun
        # would go on to its end. Nobody has anything to save before the training.
        early = self._interrupted > 0 and not any(one.started for one in self._workers.values())
        grace = NOW_SECONDS if early else None

        self._stopped.begin(grace, self._wishes.grace + _PATIENCE_SECONDS)

    def _leave(self) -> RunOutcome:
        """A second signal: the launcher ends, and says what is known of the stop."""
        assert self._failure is not None  # the first signal is one, where nothing else was
        known = self._stopped.progress(_LEAVE_SECONDS)
        self._heard.take(all_of_it=True)
        self._heard.close()
        commands = ("logs", "down") if self._stopped.keeps else ("down",)
        return RunOutcome(None, self._failure.code, known, stopped=True, commands=commands)

    def _end(self, drain: float | None = None) -> RunOutcome:
        """The logs to their ends (within ``drain`` seconds), then the receipt."""
        drain = _DRAIN_SECONDS if drain is None else drain
        if self._stopping is not None and not self._stopped.wait(_HALTED_SECONDS):
            self._console.notice(f"--keep: {self._facts.run} may go on: it was not told in time", "warning")
        if self._stopping is not None and not self._stopped.keeps:
            # The pods are gone, and not every kubelet ends their streams.
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
        """The logs to their ends, within ``drain`` seconds."""
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
            # Who reads slowly is waited for: only the logs' own time counts.
            if hurried or self._stopping is not None or self._console.pending <= BACKLOG:
                drain -= now - last
            last = now
        self._heard.take(all_of_it=self._stopping is not None)
        self._heard.close()
