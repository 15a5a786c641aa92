"""The monitor of a run: shows states and output, turns signals into a stop, and determines the exit code.

One thread makes all decisions, by the phase of the run (torchnet.k8s.run.phase). The watch, the logs and slow calls
run in threads of their own and put their results into queues.
"""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchnet.agent.events import BACKLOG, Failure
from torchnet.console.console import Console
from torchnet.constants import GRACE_SECONDS, LOST_CODE, STOPPED_CODE
from torchnet.errors import TorchnetError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.client.watch import Watch
from torchnet.k8s.run.attempt_receipts import AttemptReceipts, OnAttempt
from torchnet.k8s.run.attempts import Attempts
from torchnet.k8s.run.deletion import NOW_SECONDS
from torchnet.k8s.run.jobset_restart import JobSetRestart
from torchnet.k8s.run.log_stream import LogDispatcher, LogFiles, LogSelection, followed_text
from torchnet.k8s.run.node_loss import NodeLoss
from torchnet.k8s.run.outcome import first_failure, settle
from torchnet.k8s.run.phase import TRANSITIONS, Phase
from torchnet.k8s.run.pod_logs import LogExtent
from torchnet.k8s.run.queue_status import QueueStatus
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.start_progress import StartProgress
from torchnet.k8s.run.stop import RunStop
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus
from torchnet.k8s.run.workload_status import WorkloadStatus
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
        left: why the launcher left the run on the cluster.
        stopped: the launcher has asked the cluster to stop the job.
        kept: the workload and its pods stay, as requested (``--keep``).
        started: all workers have started.
        commands: the torchnet commands to suggest for a run that was left.
    """

    receipt: dict[str, Any] | None
    code: int
    left: str = ""
    stopped: bool = False
    kept: bool = False
    started: bool = True
    commands: tuple[str, ...] = ("attach", "logs", "status", "down")


_ALIVE = ("preparing", "prepared", "joining", "running")  # stages
_TICK_SECONDS = 0.1
_READING_TICK_SECONDS = 0.02
_SECONDS_PER_WORKER, _LONGEST_PAUSE_SECONDS = 5e-4, 1.0  # between two looks at all workers
# Before all workers have started: for an agent to report its failure to those that have joined. Then they are stopped.
_START_FAILURE_SECONDS = 3.0
PATIENCE_SECONDS = 15.0  # beyond --grace, for workers to exit before torchnet stops waiting for them
WATCH_LAG_SECONDS = 5.0  # how far the watch on the pods may lag behind the JobSet's status
_KEEP_SECONDS = 3.0  # at the end, for a stop with --keep to complete
_SETTLE_SECONDS = 0.5  # for states that are still on their way
DRAIN_SECONDS = 8.0  # for the last lines of the logs
_STOPPED_DRAIN_SECONDS = 1.5  # the same once the pods are deleted
_NUMBER_SECONDS = 2.0  # for a launcher that only watches a run to know how often its queue has evicted it
_LEAVE_SECONDS = 0.6  # after a second signal, for the stop to be accepted: some senders send two at once
_INTERRUPTED_DRAIN_SECONDS = 0.5  # for the last lines of the logs after a signal


class RunMonitor:
    """Monitors one run: :meth:`run` returns once all workers have ended, or there are none left to wait for."""

    def __init__(
        self,
        client: ApiClient,
        info: RunInfo,
        console: Console,
        options: RunOptions,
        signals: Signals,
        warnings: queue.SimpleQueue[str] | None = None,
        on_attempt: OnAttempt = lambda _number, _receipt: None,
    ) -> None:
        """Prepare the monitor; :meth:`run` starts it.

        Args:
            warnings: warnings for the console, from threads of the launcher.
            on_attempt: receives the number and the receipt of each attempt but the last.
        """
        self._client, self._info, self._console, self._options = client, info, console, options
        self._signals = signals
        self._warnings: queue.SimpleQueue[str] = warnings or queue.SimpleQueue()
        self._worker_set = WorkerSet(info.nnodes, restarts=info.restarts, replaces=info.kind is not POD)
        self._workload_status = WorkloadStatus(client, info)
        everybody = options.log_dir is not None
        if text := followed_text(info.nnodes, info.nproc_per_node, options.ranks, everybody=everybody):
            console.notice(text)
        self._log_selection = LogSelection(
            client, info, ranks=options.ranks, everybody=everybody, extent=LogExtent(tail=options.tail)
        )
        self._dispatcher = LogDispatcher(console, self._log_selection.take, LogFiles(options.log_dir))
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._workers: dict[int, WorkerStatus] = {}
        warn = lambda text: self._console.notice(text, "warning")  # noqa: E731
        self._node_loss = NodeLoss(info, warn)
        self._jobset_restart = JobSetRestart(info, self._worker_set, self._node_loss, warn)
        self._attempts = Attempts(
            info,
            self._worker_set,
            self._workload_status,
            warn,
            lambda: self._attempt_number,
            self._console.notice,
        )
        self._queue_status = QueueStatus(client, info)
        self._attempt_receipts = AttemptReceipts(
            info, self._worker_set, self._log_selection, self._dispatcher.receipts, on_attempt
        )
        self._run_stop = RunStop(
            client,
            info,
            keep=options.keep,
            notice=lambda text: self._queue.put(("notice", text)),
            on_error=lambda error: self._queue.put(("failed", error)),
        )
        self._reports_attempt = not options.stops
        self._failure: Failure | None = None
        self._error: TorchnetError | None = None
        self._eviction = ""  # why the run is left on the cluster, because its queue does not admit it again
        self._signal_count = 0
        self.phase = Phase.SUBMITTED
        self._phase_began = self._tick_began = time.monotonic()
        self._timeout_began = self._phase_began  # moves on while no timeout runs
        self._start: StartProgress | None = self._new_start()  # None once all workers have started
        self._stop_at: float | None = None  # FAILING: when the monitor stops the run
        self._workload_ended: float | None = None  # monotonic time at which the workload was seen to be over
        self._methods: dict[Phase, Callable[[float, float], RunOutcome | None]] = {
            Phase.SUBMITTED: self._watch_start,
            Phase.STARTING: self._watch_start,
            Phase.RUNNING: self._watch_run,
            Phase.PAUSED: self._wait_for_resumption,
            Phase.EVICTED: self._wait_for_evicted_pods,
            Phase.FAILING: self._wait_for_agents,
            Phase.STOPPING: self._wait_for_stop,
        }

    def run(self) -> RunOutcome:
        """Monitor the run until it ends or is left.

        Raises:
            ClusterError: the cluster cannot be reached any more; the job itself goes on.
            TorchnetError: a defect ended one of the launcher's threads; the job itself goes on.
        """
        put = self._queue.put
        Watch(
            self._client,
            self._info.namespace,
            self._info.run,
            on_list=lambda pods: put(("listed", pods)),
            on_event=lambda kind, pod: put((kind, pod)),
            on_error=lambda error: put(("failed", error)),
            label=self._info.label,
        ).start()
        while True:
            if self._attempts.reading(time.monotonic()):
                # Further states wait: when many workers end, each state would require another read.
                time.sleep(_READING_TICK_SECONDS)
                changed = False
            else:
                # The states of many workers are taken together, since each time costs the work for all workers. A
                # thousand also take longer to change.
                time.sleep(min(_LONGEST_PAUSE_SECONDS, self._info.nnodes * _SECONDS_PER_WORKER))
                changed = self._take_states()
            self._dispatcher.take(all_of_it=self.phase is Phase.STOPPING)
            if self._error is not None:
                raise self._error
            if changed:
                self._workload_status.expect_change()
                self._workers = self._worker_set.workers()
                self._node_loss.correct(self._workers)
                self._log_selection.update(self._workers)
            self._attempt_receipts.collect(time.monotonic())
            outcome = self._decide()
            if outcome is not None:
                self._enter(Phase.ENDED)
                return outcome
            while not self._warnings.empty():
                self._console.notice(self._warnings.get(), "warning")
            self._client.access.silence.look()
            self._console.tick()
            self._console.push()

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
                self._worker_set.relist(value)
                if self.phase is Phase.SUBMITTED:
                    self._enter(Phase.STARTING)
                    if not self._options.stops:
                        self._jobset_restart.attempt = self._worker_set.attempt  # report only later restarts
            elif kind == "failed":
                self._error = value
            elif kind == "notice":
                self._console.notice(value, "warning")
            else:
                self._worker_set.event(kind, value)

    def _take_signals(self) -> RunOutcome | None:
        """Stop the job at the first signal, which does not replace an earlier failure, and leave it at the second."""
        for number in self._signals.take():
            self._signal_count += 1
            if not self._options.stops:
                return RunOutcome(None, 128 + number, "the job keeps running")
            if self._signal_count > 1:
                continue
            if self._failure is None:
                text = f"stopped by {signal.Signals(number).name}"
                self._failure = Failure("interrupted", text, 128 + number, at=time.time())
            if number == signal.SIGINT:
                text = (
                    f"stopping the job, up to {self._options.grace:g} s; press Ctrl-C again to exit at once"
                )
                self._console.notice(text, "warning")
            self._stop()
        return self._leave() if self._signal_count > 1 else None

    # -- phases --------------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        assert phase in TRANSITIONS[self.phase], f"{self.phase.value} to {phase.value}"
        self.phase, self._phase_began = phase, time.monotonic()

    def _decide(self) -> RunOutcome | None:
        now = time.monotonic()
        passed, self._tick_began = now - self._tick_began, now
        if self._awaits_number(now):
            return self._take_signals()
        if self.phase not in (Phase.FAILING, Phase.STOPPING):
            self._follow_attempts(now)
        if self.phase in (Phase.PAUSED, Phase.EVICTED):
            self._timeout_began += passed
        if self.phase is Phase.PAUSED and self._attempts.reading(now):
            return None
        if self._has_ended():
            return self._end()
        # Only now: a signal that comes after all workers have ended cuts short only the reading of their logs.
        return self._take_signals() or self._methods[self.phase](now, passed)

    def _follow_attempts(self, now: float) -> None:
        """Begin the next attempt after a suspension, and enter or leave PAUSED and EVICTED."""
        if self._attempts.update(now):
            number = self._attempt_number - 1
            cause = lambda: self._attempts.failure(number, self._queue_status.eviction)  # noqa: E731
            self._attempt_receipts.add(number, self._attempts.ended_uids, cause, now)
            self._queue_status.next_attempt()
            self._workers = self._worker_set.workers()
            self._node_loss.forget()
            self._jobset_restart.forget()
            self._dispatcher.next_attempt()
            self._begin_attempt()
        self._eviction = self._eviction or self._attempts.eviction or self._deactivation()
        if self._eviction:
            if self.phase is not Phase.EVICTED:
                self._enter(Phase.EVICTED)
        elif self._attempts.paused:
            if self.phase is not Phase.PAUSED:
                self._enter(Phase.PAUSED)
        elif self.phase is Phase.PAUSED:
            self._enter(Phase.RUNNING if self._start is None else Phase.STARTING)

    @property
    def _attempt_number(self) -> int:
        """The number of the current attempt, or of the next one during a suspension; the first one is 1."""
        return 1 + self._attempts.suspensions + self._jobset_restart.attempt

    def _awaits_number(self, now: float) -> bool:
        """Whether a launcher that only watches the run waits for the number of the attempt, for 2 s at most."""
        if not self._reports_attempt or self.phase is Phase.SUBMITTED:
            return False
        self._tell_queue(now)
        if self._queue_status.is_read:
            self._reports_attempt = False
            count = self._queue_status.evictions if self._info.queue else 0
            self._attempts.set_evictions(count, is_evicted=self._queue_status.is_evicted)
        waits = self.phase is Phase.STARTING and now - self._phase_began < _NUMBER_SECONDS
        return self._reports_attempt and waits

    def _deactivation(self) -> str:
        """Why the run is left, if it is suspended and its queue does not admit it again; attach goes on watching."""
        waits = self._options.stops and self.phase in (Phase.STARTING, Phase.PAUSED)
        return self._queue_status.deactivation if waits and self._workload_status.suspension().active else ""

    def _tell_queue(self, now: float) -> None:
        """Show what Kueue reports of the run."""
        for text in self._queue_status.changes(now):
            self._console.notice(f"{self._info.run}: {text}")

    def _new_start(self) -> StartProgress:
        return StartProgress(self._info, self._workload_status, self._console.notice)

    def _begin_attempt(self) -> None:
        """Reset what belongs to one attempt: its start timeout and its reasons to wait."""
        self._start = self._new_start()
        if self.phase is Phase.RUNNING:
            self._enter(Phase.STARTING)

    def _watch_start(self, now: float, passed: float) -> RunOutcome | None:
        """SUBMITTED, STARTING: report what delays the workers, until all have started."""
        self._tell_queue(now)
        self._node_loss.look(self._workers, now)
        # All start together. A script that fails at once has ended before the kubelet says that it has started.
        started = any(one.started for one in self._workers.values())
        self._check_workers(
            now, self._options.grace + PATIENCE_SECONDS if started else _START_FAILURE_SECONDS
        )
        if self._all_started(now, passed):
            if self.phase is Phase.STARTING:
                self._enter(Phase.RUNNING)
            if self._options.detach and self._failure is None:
                return RunOutcome(None, 0, "all workers have started")
        self._check_timeout(now)
        return None

    def _watch_run(self, now: float, passed: float) -> RunOutcome | None:  # noqa: ARG002
        """RUNNING: wait for the end of the workers, or for a failure."""
        self._node_loss.look(self._workers, now)
        self._check_workers(now, self._options.grace + PATIENCE_SECONDS)
        self._check_timeout(now)
        return None

    def _wait_for_resumption(self, now: float, passed: float) -> RunOutcome | None:
        """PAUSED: only a signal or the next read of the workload changes anything."""
        self._tell_queue(now)
        if self._start is not None:
            self._start.count(passed)
        return None

    def _wait_for_evicted_pods(self, now: float, passed: float) -> RunOutcome | None:  # noqa: ARG002
        """EVICTED: leave a run that its queue has evicted for good, once its pods have ended."""
        former = self._worker_set.former(self._attempts.ended_uids).values()
        alive = [*self._alive(), *(one for one in former if one.ended is None)]
        patience = max((one.patience for one in alive), default=0.0) + PATIENCE_SECONDS
        if alive and now - self._phase_began < patience:
            return None
        self._drain(DRAIN_SECONDS)
        receipt = self._settle(Failure("interrupted", self._eviction, STOPPED_CODE, at=time.time()))
        commands = ("status", "down") if self._info.kind is POD else ("attach", "status", "down")
        return RunOutcome(receipt, int(receipt["exit_code"]), self._eviction, commands=commands)

    def _wait_for_agents(self, now: float, passed: float) -> RunOutcome | None:
        """FAILING: the agents have until the deadline to end the other workers."""
        self._node_loss.look(self._workers, now)
        if self._options.stops and self._stop_at is not None and now >= self._stop_at:
            if self._options.detach and self._failure is not None:
                # The run stays for inspection, and its agents end it by themselves, as they would after detaching.
                return RunOutcome(None, self._failure.code, "it failed and was not stopped")
            self._stop()
        else:
            self._all_started(now, passed)
            self._check_timeout(now)
        return None

    def _wait_for_stop(self, now: float, passed: float) -> RunOutcome | None:  # noqa: ARG002
        """STOPPING: the workers have their grace period."""
        late = now - self._phase_began > self._options.grace + PATIENCE_SECONDS
        return self._end(drain=1.0) if late else None

    # -- decisions -----------------------------------------------------------------------------------------------

    def _alive(self) -> list[WorkerStatus]:
        """The workers whose containers run or have run. Only they leave a termination message."""
        return [one for one in self._workers.values() if one.stage in _ALIVE]

    def _has_ended(self) -> bool:
        """Whether there is no worker left to wait for."""
        if self.phase in (Phase.PAUSED, Phase.EVICTED) or not self._worker_set.is_listed:
            return False  # the pods' states do not mean the end of the job, or are not known yet
        ended = [one for one in self._workers.values() if one.ended is not None]
        if self.phase is Phase.STOPPING:
            if not self._alive() and time.monotonic() - self._phase_began > _SETTLE_SECONDS:
                return self._run_stop.wait(0)
        elif self._info.restarts:
            if not self._workload_status.over():
                return False
            self._workload_ended = self._workload_ended or time.monotonic()
            attempts = self._worker_set.attempt >= self._workload_status.restarts
            late = time.monotonic() - self._workload_ended > WATCH_LAG_SECONDS
            return (len(ended) == self._info.nnodes and attempts) or late
        if len(ended) == self._info.nnodes:
            return self._run_stop.wait(0)
        if not self._worker_set.is_empty:
            return False
        # No pods are left: somebody else has deleted the run, or it was kept until its pods were deleted. All plain
        # pods were created before the first list, and no controller creates others.
        return self._info.kind is POD or self._workload_status.gone() or self._workload_status.over()

    def _check_workers(self, now: float, patience: float) -> None:
        """React to a failed worker.

        Its agent informs the workers that have joined, so that they exit. If they do not, the job is stopped, unless
        the launcher only watches it or detaches.

        Args:
            patience: how many seconds the other workers have to exit by themselves.
        """
        if self.phase is Phase.SUBMITTED:
            return
        if self._info.restarts and not self._workload_status.failed():
            self._check_attempt(now, patience)
            return
        failure = first_failure(self._info, self._workers)
        if failure is None:
            return
        if self._failure is None:
            self._failure = failure
        if not self._dispatcher.was_shown(failure.text.partition("\n")[0]):
            self._console.event(failure.event())
        # The other agents may not notice a lost node: its network can still work.
        self._stop_at = now if self._node_loss.any_lost else now + patience
        self._enter(Phase.FAILING)

    def _check_attempt(self, now: float, patience: float) -> None:
        """Follow the attempts of a JobSet, which restarts its workers after a failure while restarts are left."""
        number = self._attempt_number
        if self._jobset_restart.begun(self._workload_status.restarts):
            unknown = Failure("lost", f"attempt {number} failed", LOST_CODE, at=time.time())
            cause = self._jobset_restart.ended_cause or unknown
            self._attempt_receipts.add(number, self._jobset_restart.ended_uids, lambda: cause, now)
            self._begin_attempt()
        last = not self._workload_status.restarts_left
        limit = patience if last else self._options.grace + PATIENCE_SECONDS
        failure = self._jobset_restart.look(now, limit, last=last)
        if failure is not None and self._options.stops:
            self._fail(failure)

    def _all_started(self, now: float, passed: float) -> bool:
        """Whether all workers have started; reports what delays those that have not."""
        if self._start is None:
            return True
        workers = self._jobset_restart.workers if self._jobset_restart.attempt else self._workers
        if self._start.has_started(workers):
            self._start = None
            self._workload_status.stop_events()
            return True
        if self._start.update(workers, self._worker_set.replaced, now, passed):
            self._timeout_began += passed
        limit = self._options.start_timeout
        if limit is not None and self._start.seconds > limit and self._failure is None:
            text = self._start.timeout_text(limit, self._worker_set.replaced())
            self._fail(Failure("timeout", text, 124, at=time.time()))
        return False

    def _check_timeout(self, now: float) -> None:
        if self._options.timeout and now - self._timeout_began > self._options.timeout:
            text = f"the job ran longer than --timeout {self._options.timeout:g} s"
            self._fail(Failure("timeout", text, 124, at=time.time()))

    # -- the end -------------------------------------------------------------------------------------------------

    def _fail(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = failure
            self._console.event(failure.event())
        self._stop()

    def _stop(self) -> None:
        """Begin to stop the job, and to delete its pods unless they are kept; their last output still arrives."""
        if self.phase is Phase.STOPPING or not self._options.stops:
            return
        # The first process of a container does not receive SIGTERM until it has installed a handler, so a preparation
        # that has just begun would run to its end. It has nothing to save. Whether a script has started is known late.
        # The pods of an earlier attempt may still exist, and save theirs.
        saves = self._worker_set.exist(self._attempts.ended_uids | self._jobset_restart.ended_uids)
        early = self._signal_count > 0 and not saves and not any(one.joins for one in self._workers.values())
        self._enter(Phase.STOPPING)
        self._run_stop.begin(NOW_SECONDS if early else None, self._options.grace + PATIENCE_SECONDS)

    def _leave(self) -> RunOutcome:
        """Leave after a second signal, and report what is known of the stop."""
        assert self._failure is not None  # the first signal has set one, at the latest
        known = self._run_stop.progress(_LEAVE_SECONDS)
        self._dispatcher.take(all_of_it=True)
        self._dispatcher.close()
        commands = ("logs", "down") if self._run_stop.keeps else ("down",)
        return RunOutcome(None, self._failure.code, known, stopped=True, commands=commands)

    def _end(self, drain: float | None = None) -> RunOutcome:
        """Read the logs to their ends, within ``drain`` seconds (default: 8), and build the receipt."""
        drain = DRAIN_SECONDS if drain is None else drain
        if self.phase is Phase.STOPPING and not self._run_stop.wait(_KEEP_SECONDS):
            self._console.notice(
                f"--keep: cannot confirm that {self._info.run} stopped; it may still be running", "warning"
            )
        if self.phase is Phase.STOPPING and not self._run_stop.keeps:
            # The pods are gone, and not every kubelet closes their log streams.
            drain = min(drain, _STOPPED_DRAIN_SECONDS)
        self._drain(drain)
        self._client.stop.set()
        lost = self._jobset_restart.lost if self._info.restarts and self._workload_status.failed() else None
        receipt = self._settle(self._failure or lost or self._attempts.deletion())
        stopped = self.phase is Phase.STOPPING
        kept = self._options.keep and self._run_stop.keeps
        started = self._start is None
        return RunOutcome(receipt, int(receipt["exit_code"]), stopped=stopped, kept=kept, started=started)

    def _settle(self, failure: Failure | None) -> dict[str, Any]:
        """Build the receipt of the last attempt, after those of earlier ones."""
        self._attempt_receipts.collect(time.monotonic(), all_of_them=True)
        return settle(
            self._info,
            self._workers,
            self._dispatcher.receipts.get(self._workers[0].uid) if 0 in self._workers else None,
            failure,
            restarts=self._workload_status.restarts,
            now=time.time(),
        )

    def _drain(self, drain: float) -> None:
        """Read the logs to their ends, within ``drain`` seconds."""
        self._log_selection.update(self._workers)
        self._log_selection.release()
        interrupted, last = False, time.monotonic()
        while self._log_selection.busy and drain > 0:
            if self._signals.take():
                interrupted, drain = (
                    True,
                    min(drain, _INTERRUPTED_DRAIN_SECONDS if self._signals.count == 1 else 0.0),
                )
            self._dispatcher.take(all_of_it=self.phase is Phase.STOPPING)
            self._console.tick()
            self._console.push()
            time.sleep(0.02)
            now = time.monotonic()
            # The time that a slow reader of the console takes does not count.
            if interrupted or self.phase is Phase.STOPPING or self._console.pending <= BACKLOG:
                drain -= now - last
            last = now
        self._dispatcher.take(all_of_it=self.phase is Phase.STOPPING)
        self._dispatcher.close()
