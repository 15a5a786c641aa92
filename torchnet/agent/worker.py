"""One worker: discovery, rendezvous, preflight and training.

JOINING ─ Table ─> PREFLIGHT ─ Start ─> RUNNING ─> ENDED ─ Over ─> OVER
   ^                   │
   └─ rank 0 left ─────┘
any ─ Stop, or a failure without a coordinator ─> STOPPING ─┬─ Over ─> OVER
                                                            └─ Table ─> PREFLIGHT (a restart)
"""

from __future__ import annotations

import os
import socket
from enum import Enum

from torchnet import constants
from torchnet.agent import etc_hosts, failures, messages, name_lookup, rdma_check
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure, Reporter
from torchnet.agent.handover import announce_start
from torchnet.agent.heartbeat import heartbeat_seconds, silence_seconds
from torchnet.agent.join import Join
from torchnet.agent.message_socket import MessageSocket
from torchnet.agent.messages import CoordinatorMessage, InvalidMessageError
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.preflight import Preflight
from torchnet.agent.rank_process import Process
from torchnet.agent.rendezvous import Endpoint
from torchnet.agent.spec import AgentSpec
from torchnet.agent.state_machine import StateMachine
from torchnet.agent.stop_signals import stop_signal
from torchnet.agent.training_phase import TrainingPhase
from torchnet.network import probe_plan
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Rail
from torchnet.network.path_diagnosis import PathView
from torchnet.network.peer_table import PeerRow, PeerTable


class WorkerState(Enum):
    JOINING = "joining"
    PREFLIGHT = "preflight"
    RUNNING = "running"
    ENDED = "ended"
    STOPPING = "stopping"
    OVER = "over"


TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    WorkerState.JOINING: frozenset({WorkerState.PREFLIGHT, WorkerState.STOPPING}),
    WorkerState.PREFLIGHT: frozenset(
        {
            WorkerState.PREFLIGHT,
            WorkerState.RUNNING,
            WorkerState.JOINING,
            WorkerState.STOPPING,
        }
    ),
    WorkerState.RUNNING: frozenset({WorkerState.ENDED, WorkerState.STOPPING}),
    WorkerState.ENDED: frozenset({WorkerState.STOPPING, WorkerState.OVER}),
    WorkerState.STOPPING: frozenset({WorkerState.PREFLIGHT, WorkerState.STOPPING, WorkerState.OVER}),
    WorkerState.OVER: frozenset(),
}


_STACKS_SECONDS = 0.5  # until processes have written their stacks
_SENT_PROBLEMS = 1000  # a message has a limit, and a user reads the first few
_FAILED_CODE = 1  # instead of the one that asks for a replacement
_LOAD_SECONDS = 1.0  # after the start, when the processes import for themselves
_ALONE_SECONDS = 3.0  # how long an interrupted worker waits for the coordinator to stop it


class Worker:
    """One worker. :meth:`begin` starts it; ``code`` is its exit code once the loop has ended.

    Args:
        frontend: where the rendezvous listens; None: on rank 0's first rail.
    """

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        source: AddressSource,
        reporter: Reporter,
        frontend: Endpoint | None = None,
    ) -> None:
        self.code = 70
        self._loop = loop
        self._spec = spec
        self._reporter = reporter
        self._frontend = frontend
        self._connection: MessageSocket[CoordinatorMessage] | None = None
        self._table = PeerTable(())
        self._attempt = self._round = 0
        self._last_message_at = loop.time()
        self._failure: Failure | None = None
        self._state = StateMachine("worker", TRANSITIONS)
        self._frozen = False
        self._admitted = False  # rank 0 has sent a message on this connection
        self._wrote_hosts = False
        self._phase_timer = PhaseTimer(reporter.send)
        self._join = Join(
            loop,
            spec,
            source,
            reporter,
            self._phase_timer,
            frontend,
            connected=self._use,
            failed=self._stop_alone,
            address_taken=self._end_for_replacement,
        )
        self._training = TrainingPhase(
            loop,
            spec,
            reporter,
            ended=self._handle_end,
            rail_lost=self._handle_lost_rail,
            notice=lambda text: self._notice("warning", text),
        )
        self._processes = self._training.processes

    @property
    def state(self) -> WorkerState:
        return self._state.current

    @property
    def _begun(self) -> bool:
        """Whether any process has been started."""
        return self._training.begun

    # -- joining -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Discover and join; messages trigger everything else."""
        if self.state is not WorkerState.JOINING:
            return  # stopped before it began
        self._phase_timer.own()
        self._phase_timer.done("start")
        self._join.begin()
        self._loop.every(heartbeat_seconds(self._spec.nnodes), self._exchange_heartbeats)

    def _end_for_replacement(self, failure: Failure) -> None:
        """End this pod before the start. Its replacement joins instead, and the others wait for that."""
        self._reporter.send({**failure.event(), "event": "replaced"})
        self._state.enter(WorkerState.STOPPING)
        self._join.cancel()
        if self._connection is not None:
            self._connection.close()
        self._exit(constants.REPLACE_CODE)

    def _rejoin(self) -> None:
        """Join rank 0's replacement, which sends a new table. Before the start, nothing is lost with rank 0."""
        if not self._admitted:
            self._join.retry()
            return
        self._notice("warning", "rank 0 left before the start: joining again")
        self._cancel_preflight()
        if self.state is not WorkerState.JOINING:
            self._state.enter(WorkerState.JOINING)
        self._table = PeerTable(())
        self._join.rejoin()

    def _use(self, sock: socket.socket) -> None:
        """Use a connection on which the join request has been sent."""
        self._last_message_at = self._loop.time()
        self._admitted = False
        self._connection = MessageSocket(
            self._loop, sock, messages.decode_from_coordinator, self._receive, self._lose_connection
        )

    @property
    def _may_rejoin(self) -> bool:
        """Whether nothing has started yet."""
        return self._waits_for_start and self._spec.node_rank > 0

    @property
    def _waits_for_start(self) -> bool:
        return self.state in (WorkerState.JOINING, WorkerState.PREFLIGHT) and not self._begun

    @property
    def _connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    # -- messages ----------------------------------------------------------------------------------------------------

    def _receive(self, message: CoordinatorMessage) -> None:
        if self.state is WorkerState.OVER:
            return
        self._last_message_at = self._loop.time()
        self._admitted = True
        if isinstance(message, messages.Table):
            self._require(WorkerState.PREFLIGHT)
            self._check_table(message.table)
            self._phase_timer.waited()
            if self.state is WorkerState.JOINING:
                self._phase_timer.done("join")
            self._state.enter(WorkerState.PREFLIGHT)
            self._attempt, self._round, self._table = message.attempt, message.round, message.table
            self._check_paths()
        elif isinstance(message, messages.Start):
            self._require(WorkerState.RUNNING)
            self._start(message.port)
        elif isinstance(message, messages.Rejection):
            self._stop_alone(message.failure)
        elif isinstance(message, messages.Stop):
            self._require(WorkerState.STOPPING)
            self._receive_stop(message)
        elif isinstance(message, messages.StacksRequest):
            dumping = [process for process in self._processes.processes.values() if process.ask_stacks()]
            self._loop.later(_STACKS_SECONDS, lambda: self._send_stacks(dumping))
        elif isinstance(message, messages.EndLeftovers):
            self.end_leftovers()
        elif isinstance(message, messages.ReceiptRequest):
            self._close_account()
        elif isinstance(message, messages.Over):
            self._require(WorkerState.OVER)
            self._finish(message.code)

    def _receive_stop(self, message: messages.Stop) -> None:
        if not message.restart and self._failure is None:
            self._reporter.send({**message.failure.event(), "event": "stopping"})
        self._stop(message.failure, restart=message.restart)
        if message.at_once:
            self._processes.kill()

    def _require(self, state: WorkerState) -> None:
        """Check that a message, which leads to ``state``, fits the current state.

        Raises:
            InvalidMessageError: it does not.
        """
        if not self._state.allows(state):
            raise InvalidMessageError(f"unexpected in state {self.state.value}: it leads to {state.value}")

    def _check_table(self, table: PeerTable) -> None:
        """Check that the table is one of this job.

        Raises:
            InvalidMessageError: it is not.
        """
        ranks = [row.node_rank for row in table.rows]
        if ranks != list(range(self._spec.nnodes)):
            raise InvalidMessageError(
                f"the table has {len(ranks)} rows for {self._spec.nnodes} workers, or wrong ranks"
            )
        if {len(row.rails) for row in table.rows} != {len(self._join.rails)}:
            raise InvalidMessageError("the table has another number of rails than this worker")

    def _check_paths(self) -> None:
        preflight = self._cancel_preflight()
        # On loopback the file is the machine's and already names 127.0.0.1.
        if not self._spec.loopback:
            private = etc_hosts.is_private()
            self._wrote_hosts = private and etc_hosts.add_peers(self._table, self._spec.run_id)
            # Once for the job: rank 0's store looks up each connection, and its hosts are usually alike.
            once = self._attempt == 0 and self._spec.node_rank == 0 and self._spec.nnodes > 1
            if once and not self._wrote_hosts and not name_lookup.are_fast(name_lookup.asked(self._table)):
                self._notice("warning", etc_hosts.unchanged(self._table, private=private))
        own = self._spec.node_rank
        peers = probe_plan.peers(own, self._spec.nnodes, self._spec.preflight)
        number = self._round

        def done(problems: list[str]) -> None:
            problems = problems or self._check_rdma()
            self._phase_timer.own()
            self._phase_timer.done("preflight")
            paths = 0 if problems else preflight.proven
            host = os.environ.get(constants.HOST_VARIABLE, "")
            view = preflight.view(host) if problems else PathView(host)
            self._send(messages.PreflightResult(number, tuple(problems[:_SENT_PROBLEMS]), paths, view))

        def notice(text: str) -> None:
            if own == 0:  # one warning for the job: its hosts are usually alike
                self._notice("warning", text)

        preflight.check(self._table, own, peers, done, notice, lambda text: self._notice("warning", text))

    def _check_rdma(self) -> list[str]:
        """Return what rules out RDMA over the backend, and show what may."""
        if self._spec.loopback:
            return []
        rails = [(rail.interface, rail.address) for rail in self._join.rails]
        problems, warnings = rdma_check.check(self._spec, rails)
        for text in warnings if self._attempt == 0 else ():
            self._notice("warning", text)
        return problems

    def _cancel_preflight(self) -> Preflight:
        """Cancel the check of an earlier table, and return the preflight."""
        preflight = self._join.preflight
        assert preflight is not None
        preflight.cancel()
        return preflight

    def _start(self, port: int) -> None:
        self._phase_timer.waited()
        self._state.enter(WorkerState.RUNNING)
        self._join.close()
        self._refused_addresses()  # those of an attempt before this one
        try:
            self._training.start(self._table, self._join.rails, port, self._attempt)
            if problem := announce_start(self._spec.state):
                self._notice("warning", problem)
        except OSError as error:
            self._fail(failures.command_not_executable(self._spec.name, self._spec.command[0], error))
        self._phase_timer.own()
        self._phase_timer.done("spawn")
        self._phase_timer.total()
        self._loop.later(_LOAD_SECONDS, _load_rest)

    def _stop(self, failure: Failure, *, restart: bool) -> None:
        self._failure = None if restart else failure
        self._state.enter(WorkerState.STOPPING)
        self._join.cancel()
        if restart:
            self._training.pause_monitor()
        number = stop_signal(failure, self._spec.runtime)
        self._processes.stop(self._renew_addresses if restart else self._report_stopped, number)

    def _renew_addresses(self) -> None:
        """Get the restart's addresses. If that fails, the coordinator stops all workers again."""
        self._training.pause_account()
        self._join.renew(self._report_stopped, self._fail)

    def _report_stopped(self, row: PeerRow | None = None) -> None:
        self._send(messages.ProcessesStopped(row))
        if not self._connected:
            self._close_account()
            self._finish(self._failure.code if self._failure else 70)

    # -- local events ------------------------------------------------------------------------------------------------

    def _handle_end(self, process: Process) -> None:
        """Handle a process that ended by itself."""
        if self.state is not WorkerState.RUNNING:
            return
        if process.code:
            memory = self._training.out_of_memory() if process.signal == 9 else ""
            if where := self._refused_addresses():
                self._reporter.send({"event": "refused", "node": self._spec.node_rank, "addresses": where})
            from torchnet.agent.failure_cause import explain_end  # no start needs it

            rank0 = self._processes.processes.get(0)
            self._fail(explain_end(process, self._spec, memory, rank0.ended if rank0 else None))
        elif not self._processes.running and not any(self._processes.codes().values()):
            self._state.enter(WorkerState.ENDED)
            self._reporter.send(
                {"event": "ranks_ended", "node": self._spec.node_rank, "attempt": self._attempt}
            )
            self._send(messages.RanksEnded(self._attempt))
            # Leftover processes end before the account is closed.
            self._processes.finish(lambda: self._send(messages.ProcessesEnded(self._attempt)))

    def _refused_addresses(self) -> list[str]:
        """Return the loopback addresses where connections were refused since the last call, in a local node."""
        if self._spec.runtime != "local":
            return []
        from torchnet.linux import refused_connections

        return refused_connections.addresses()

    def _fail(self, failure: Failure) -> None:
        """Report a failure to the coordinator, or stop without one."""
        if self._connected:
            self._send(messages.WorkerFailed(failure))
        else:
            self._stop_alone(failure)

    def _handle_lost_rail(self, rail: Rail, text: str) -> None:
        failure = failures.rail_lost(self._spec.name, text)
        if rail.index == 0 and self._frontend is None:
            self._stop_alone(failure)  # the coordinator is behind this link
        else:
            self._fail(failure)

    def _stop_alone(self, failure: Failure) -> None:
        """Stop without the coordinator: the others learn it from the runtime, or notice the silence."""
        if self._failure is not None or self.state is WorkerState.OVER:
            return
        self._reporter.send(failure.event())
        if self._connection is not None:
            self._connection.close()
        self._stop(failure, restart=False)

    def _lose_connection(self, problem: str) -> None:
        """Handle the end of the connection to rank 0's agent, or a violation of the protocol (``problem``)."""
        if self.state is WorkerState.OVER:
            return
        if self._failure is not None:  # already known: only the last message is missing
            self._processes.stop(self._report_stopped)
        elif self._may_rejoin and not problem:
            self._rejoin()
        else:
            self._stop_alone(failures.rank0_left(self._rank0_name(), self._spec.name, problem))

    def _rank0_name(self) -> str:
        return self._table.rows[0].name if self._table.rows else "rank 0"

    def interrupt(self, failure: Failure) -> bool:
        """Stop the job from here, after a signal or at the runtime's request.

        If all ranks of the job have succeeded, only what they left behind is stopped; the coordinator knows.

        Returns:
            Whether processes of the job stop, as far as that is known.
        """
        if self.state is WorkerState.ENDED and self._connected:
            self._send(messages.Interrupted(failure))
            return False
        if self._begun and self._processes.end_leftovers():
            return False
        # A pod that is evicted before the start is replaced: the others wait for the new one instead of stopping.
        if self._spec.replaced is not None and self._waits_for_start:
            self._end_for_replacement(failure)
            return True
        may_come_again = self._spec.phase == "work" and not self._begun
        if self.state is WorkerState.JOINING or may_come_again or not self._connected:
            self._stop_alone(failure)
        else:
            self._reporter.send({**failure.event(), "event": "stopping"})
            self._send(messages.WorkerFailed(failure))
            # No effect if the coordinator has stopped it by then.
            self._loop.later(_ALONE_SECONDS, lambda: self._stop_alone(failure))
        return self._begun

    def end_leftovers(self) -> None:
        """End what this worker's ranks have left behind, if it waits for it."""
        if self._begun:
            self._processes.end_leftovers()

    def kill(self) -> None:
        """End the processes of all workers at once, without what is left of their grace period."""
        if self._begun:
            self._processes.kill()
        self._send(messages.Kill())

    def freeze(self, frozen: bool) -> None:
        self._frozen = frozen
        self._processes.freeze() if frozen else self._processes.thaw()
        self._exchange_heartbeats()

    def _exchange_heartbeats(self) -> None:
        """Send a heartbeat, and check how long rank 0 has been silent."""
        if self.state is WorkerState.RUNNING:
            self._send(self._training.heartbeat(frozen=self._frozen))
        else:
            ended = self.state is WorkerState.ENDED
            blocked = self._processes.blocked() if ended else ""
            self._send(messages.Heartbeat(frozen=self._frozen, blocked=blocked))
        silence = self._loop.time() - self._last_message_at
        if (
            self._connection is None
            or self._connection.closed
            or not self._spec.node_rank
            or silence <= silence_seconds(self._spec.link_grace, self._spec.nnodes)
            or self.state in (WorkerState.STOPPING, WorkerState.OVER)
        ):
            return
        self._connection.close()
        if self._may_rejoin:
            self._rejoin()
            return
        address = self._frontend or self._table.rows[0].rails[0].address
        rank0 = f"{self._rank0_name()} ({address})"
        interface = "the frontend" if self._frontend else self._join.rails[0].interface
        self._stop_alone(failures.rank0_silent(self._spec.name, rank0, interface, silence))

    def _send_stacks(self, dumping: list[Process]) -> None:
        stacks = {
            str(process.rank): "" for process in self._processes.processes.values() if not process.ended
        }
        stacks |= {str(process.rank): process.read_stacks() for process in dumping if not process.ended}
        self._send(messages.Stacks(stacks, tuple(self._training.stuck(self._table))))

    # -- the end -----------------------------------------------------------------------------------------------------

    def _close_account(self) -> None:
        from torchnet.agent import receipt  # no start needs it

        whole = self._training.receipt(self._table, self._join.rails)
        summary = receipt.summary(self._spec, whole)
        event = whole if self._spec.full_receipt else summary
        self._reporter.send({"event": "worker_receipt", "receipt": event})
        self._send(messages.WorkerReceipt(summary))

    def _finish(self, code: int) -> None:
        # A script may end with any code, and its pod must not be replaced.
        replaced = self._spec.replaced is not None and code == constants.REPLACE_CODE
        self._exit(_FAILED_CODE if replaced else code)

    def _exit(self, code: int) -> None:
        self._state.enter(WorkerState.OVER)
        self.code = code
        self._reporter.send({"event": "end", "node": self._spec.node_rank, "code": code})
        self._loop.stop()

    def close(self) -> None:
        """Release all resources."""
        self._training.close()
        if self._wrote_hosts:
            etc_hosts.remove_peers(self._spec.run_id)
        self._join.close()

    def _send(self, message: messages.WorkerMessage) -> None:
        if self._connection is not None:
            self._connection.send(message)

    def _notice(self, level: str, text: str) -> None:
        self._reporter.send({"event": "notice", "node": self._spec.node_rank, "level": level, "text": text})


def _load_rest() -> None:
    """Import what no start needs: at the end of a long training, a later version may have been installed."""
    from torchnet.agent import failure_cause, receipt  # noqa: F401
