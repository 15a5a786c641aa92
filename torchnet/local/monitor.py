"""The launcher's monitor of a local job: events to the console, signals to the nodes, one receipt."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import BACKLOG, Event, Failure, Kind
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stop_signals import handled, interrupted, second_interrupt
from torchnet.console.console import Console
from torchnet.launcher.console_feed import ConsoleFeed
from torchnet.linux import refused_connections
from torchnet.local.agent_channel import AgentChannels
from torchnet.local.supervisor_process import Supervisor
from torchnet.signals import on_main_thread

_CHECK_SECONDS = 1.0
_REPORT_SECONDS = 0.5
_FREEZE_SECONDS = 2.0


class LocalMonitor:
    """Serves a local job; :meth:`run` returns the job's receipt when all nodes have ended."""

    def __init__(
        self, specs: Sequence[AgentSpec], supervisor: Supervisor, channels: AgentChannels, console: Console
    ) -> None:
        self._specs = specs
        self._supervisor = supervisor
        self._channels = channels
        self._console = console
        self._loop = EventLoop()
        self._began = time.time()
        self._running = set(range(len(specs)))
        self._reported_end: set[int] = set()
        self._failure: Failure | None = None
        self._receipt: dict[str, Any] | None = None
        self._worker_receipts: dict[int, dict[str, Any]] = {}
        self._restarts = 0
        self._ctrl_c = False
        self._awaiting_freeze: set[int] = set()
        self._rows: dict[int, str] = {}
        self._succeeded: set[int] = set()  # nodes whose ranks have all ended with 0
        self._error_files: dict[int, str] = {}
        self._refused: dict[str, str] = {}  # 127.0.0.1:PORT or [::1]:PORT, and the node
        self._feed = ConsoleFeed(self._loop, console, self._hold)
        channels.serve(self._loop, self._event, self._disconnected)

    def run(self, timeout: float | None, check_internet: Callable[[], str] = lambda: "") -> dict[str, Any]:
        """Serve the job until it ends, and return its receipt.

        Args:
            timeout: seconds for the whole job; None: no limit.
            check_internet: called once, a second after the start; returns a warning to show, or "".
        """
        self._loop.later(_CHECK_SECONDS, lambda: self._notice(check_internet()))
        if on_main_thread():  # Python allows handlers on no other
            self._handle_signals()
        if timeout:
            text = f"the job ran longer than --timeout {timeout:g} s"
            self._loop.later(timeout, lambda: self._stop(Failure("timeout", text, 124, at=time.time())))
        try:
            self._loop.run()
        finally:
            self._supervisor.kill()
            self._loop.close()
            if on_main_thread():
                _ignore_further_signals()
        return self._settle()

    def _handle_signals(self) -> None:
        for number in handled(self._specs[0].signals):
            self._loop.on_signal(number, lambda number=number: self._signal(number))  # type: ignore[misc]
        self._loop.on_signal(signal.SIGTSTP, self._suspend)

    # -- output --------------------------------------------------------------------------------------------------

    def _hold(self) -> None:
        """Take events no faster than the console shows them; when the job is stopping, all until its end."""
        self._channels.hold(self._console.pending > BACKLOG and self._failure is None)

    # -- events --------------------------------------------------------------------------------------------------

    def _event(self, rank: int, event: Event) -> None:
        kind = event["event"]
        if kind == "worker_receipt":
            self._worker_receipts[rank] = event["receipt"]
        elif kind == "receipt":
            self._receipt = event["receipt"]  # shown at the end, after all output
        elif kind == "end":
            self._reported_end.add(rank)
        elif kind == "frozen":
            self._awaiting_freeze.discard(rank)
        elif kind == "error_file":
            self._error_files[int(event["rank"])] = str(event["data"])
        elif kind == "refused":
            self._refused.update((str(where), self._specs[rank].name) for where in event["addresses"])
        elif kind == "ranks_ended":
            self._succeeded.add(rank)
        elif kind == "row":
            self._stop_on_duplicate_address(rank, event["row"])
        else:
            if kind == "started":
                self._restarts = max(self._restarts, int(event["attempt"]))
                self._forget_attempt(rank, event["ranks"])
            self._console.event(event)
            self._feed.pace()
            if kind == "failure" and not event.get("restart"):
                failure = Failure.read(event)
                # The coordinator stops the nodes that have joined; this stops the others.
                self._channels.send_order({"op": "stop", "failure": asdict(failure)}, but=rank)
                if self._failure is None:
                    self._failure = failure
                    self._kill_after_grace()

    def _forget_attempt(self, node: int, ranks: Sequence[int]) -> None:
        """Forget what a node's processes did before a restart."""
        self._succeeded.discard(node)
        for rank in ranks:
            self._error_files.pop(rank, None)
        name = self._specs[node].name
        self._refused = {where: node for where, node in self._refused.items() if node != name}

    def refused(self) -> list[str]:
        """Explain connections that were refused in a node although this machine listens there."""
        return [
            f"a connection to {where} was refused on {name}: this machine listens there, but a local node has its own "
            f"{where.rpartition(':')[0]}; with --network loopback, workers use this machine's"
            for where, name in self._refused.items()
            if refused_connections.listens(where)
        ]

    def error_file(self, rank: int | None) -> str:
        """Return what a rank that failed has written to TORCHELASTIC_ERROR_FILE, or ""."""
        return "" if rank is None else self._error_files.get(rank, "")

    def _notice(self, text: str) -> None:
        if text:
            self._console.notice(text, "warning")

    def _stop_on_duplicate_address(self, rank: int, row: str) -> None:
        """Stop the job if two nodes have the same address.

        The join checks this, too, but possibly neither node ever gets that far.
        """
        from torchnet.agent.messages import decode_row
        from torchnet.network.peer_table import PeerTable, check

        self._rows[rank] = row
        rows = sorted((decode_row(text) for text in self._rows.values()), key=lambda row: row.node_rank)
        for problem in check(PeerTable(tuple(rows))):
            if problem.kind == "duplicate":
                text = f"{problem.text}\n  fix: {problem.fix}"
                self._stop(Failure("network", text, 4, node=problem.nodes[0], at=time.time()))

    def _disconnected(self, rank: int) -> None:
        self._running.discard(rank)
        if rank not in self._reported_end and self._failure is None:
            # If there already is a coordinator, it notices, too, and then stops the others in order.
            self._loop.later(_REPORT_SECONDS, lambda: self._report_lost_worker(rank))
        elif not self._running:
            self._loop.stop()

    def _report_lost_worker(self, rank: int) -> None:
        if self._failure is None:
            name = self._specs[rank].name
            complaint = self._supervisor.complaint()
            if complaint is not None:
                kind: Kind = "network" if complaint.exit_code == 4 else "internal"
                failure = Failure(kind, str(complaint), complaint.exit_code, node=name, at=time.time())
            else:
                text = f"lost {name} (node rank {rank}): its agent exited without a report"
                failure = Failure("lost", text, 70, node=name, at=time.time())
            self._stop(failure)
        if not self._running:
            self._loop.stop()

    def _stop(self, failure: Failure) -> None:
        stopped = failure.kind in ("interrupted", "timeout")
        if stopped and self._failure is None and len(self._succeeded) == len(self._specs):
            # The job has succeeded, and only waits for what its ranks have left behind.
            self._channels.send_order({"op": "finish"})
            return
        if self._failure is None:
            self._failure = failure
            self._console.event(failure.event())
            self._feed.pace()
            self._kill_after_grace()
        self._channels.send_order({"op": "stop", "failure": asdict(failure)})
        if not self._running:
            self._loop.stop()

    def _kill_after_grace(self) -> None:
        """Kill the nodes if they have not ended 15 s after the grace period."""
        self._loop.later(self._specs[0].grace + 15.0, self._loop.stop)

    # -- signals -------------------------------------------------------------------------------------------------

    def _signal(self, number: int) -> None:
        failure = interrupted(number)
        if number == signal.SIGINT:
            if self._ctrl_c:
                self._failure = self._failure or failure
                self._loop.stop()
                return
            # Only a second Ctrl-C kills: a terminal that closes sends SIGHUP twice, Slurm SIGUSR1 before SIGTERM.
            self._ctrl_c = True
            self._console.notice(second_interrupt(self._specs[0].grace), "warning")
        self._stop(failure)

    def _suspend(self) -> None:
        """Handle Ctrl-Z: stop all nodes' processes first, then this one; continue in reverse order."""
        self._awaiting_freeze = set(self._running)
        self._channels.send_order({"op": "freeze"})
        self._loop.later(_FREEZE_SECONDS, self._awaiting_freeze.clear)
        self._await_freeze()

    def _await_freeze(self) -> None:
        if self._awaiting_freeze & self._running:
            self._loop.later(0.02, self._await_freeze)
            return
        os.kill(os.getpid(), signal.SIGSTOP)
        self._channels.send_order({"op": "thaw"})  # runs after SIGCONT

    # -- end -----------------------------------------------------------------------------------------------------

    def _settle(self) -> dict[str, Any]:
        result = self._receipt
        if result is None or len(result["nodes"]) < len(self._worker_receipts):
            # Rank 0 ended early or did not hear from all nodes; here all receipts are known.
            failure = self._failure
            if result is not None:
                failure = Failure.read(result["failure"]) if result["failure"] else None
            elif failure is None:
                failure = Failure("internal", "the job ended without a receipt", 70, at=time.time())
            from torchnet.agent import receipt  # rarely needed, and takes 25 ms

            result = receipt.job(
                spec=self._specs[0],
                receipts=list(self._worker_receipts.values()),
                attachments=self._specs[0].attachments,
                failure=failure,
                began=self._began,
                restarts=self._restarts,
            )
        return result


def _ignore_further_signals() -> None:
    """Another signal must not prevent the receipt."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_DFL:  # else a caller with other jobs handles it
            signal.signal(number, signal.SIG_IGN)
