"""The coordinator on rank 0: gathers the workers, starts the job and determines its result.

GATHERING ─ Table ─> CHECKING ─ Start ─> RUNNING ─ Stop ─> STOPPING ─┬─ Table ─> CHECKING (a restart)
   └─ a worker left (in pods) ─┘            └─ all ended ──┐         └─ all stopped ─┐
                                                           └──────> COLLECTING <─────┘  (receipts)
                                                                        └─> LEAVING ─> OVER

Each state waits for one message from every remaining worker. A worker whose connection ends or that is silent for
too long is lost. The first failure becomes the job's, and every worker receives it. Rank 0's own agent is notified
last, after the others have left, because unsent messages would be lost with its pod.

Pods may be replaced until the start. The coordinator therefore waits for a worker that leaves before: it, or the
worker in its replacement, may join. If rank 0's pod is replaced, the others join the new one.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from torchnet import constants
from torchnet.agent import admission, failures, messages
from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.agent.events import Failure
from torchnet.agent.framed_socket import pack
from torchnet.agent.heartbeat import RENEW_SECONDS, heartbeat_seconds, idle_silence_seconds, silence_seconds
from torchnet.agent.host_registration import HostRegister, HostRequest, Registration
from torchnet.agent.membership import Member, Membership
from torchnet.agent.message_socket import MessageSocket
from torchnet.agent.path_results import PathResults
from torchnet.agent.preflight import ReplyRoutes
from torchnet.agent.rendezvous import Endpoint, RendezvousServer, peer_host, raise_open_files
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stall import StallWatch
from torchnet.agent.state_machine import StateMachine
from torchnet.agent.store_port import store_port
from torchnet.errors import NetworkError
from torchnet.linux import sock_diag
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import check, refusal

Report = Callable[[dict[str, Any]], None]


class CoordinatorState(Enum):
    GATHERING = "gathering"
    CHECKING = "checking"
    RUNNING = "running"
    STOPPING = "stopping"
    COLLECTING = "collecting"
    LEAVING = "leaving"
    OVER = "over"


TRANSITIONS: dict[CoordinatorState, frozenset[CoordinatorState]] = {
    CoordinatorState.GATHERING: frozenset({CoordinatorState.CHECKING, CoordinatorState.STOPPING}),
    CoordinatorState.CHECKING: frozenset(
        {
            CoordinatorState.GATHERING,
            CoordinatorState.RUNNING,
            CoordinatorState.STOPPING,
        }
    ),
    CoordinatorState.RUNNING: frozenset({CoordinatorState.COLLECTING, CoordinatorState.STOPPING}),
    # Again into STOPPING: for good after for a restart, or because the restart's table is faulty.
    CoordinatorState.STOPPING: frozenset(
        {CoordinatorState.STOPPING, CoordinatorState.CHECKING, CoordinatorState.COLLECTING}
    ),
    CoordinatorState.COLLECTING: frozenset({CoordinatorState.LEAVING}),
    CoordinatorState.LEAVING: frozenset({CoordinatorState.OVER}),
    CoordinatorState.OVER: frozenset(),
}

_REJECTION_SECONDS = 2.0  # for a rejected worker to read why
# Failures that arrive within this time are ordered by when they happened: a process that dies closes its peers'
# connections, and their errors may arrive first.
_SETTLE_SECONDS = 0.25
_ECHO_SECONDS = 1.0  # to wait for the cause of an apparent echo: busy machines report late
_STOP_SECONDS = 5.0  # beyond the grace period
_RECEIPT_SECONDS = 5.0
_VIEWS_SECONDS = 2.0  # for the other ends' views of a path that does not work
_LEAVE_SECONDS = 2.0  # for the others to receive the last message


class Coordinator:
    """Runs in rank 0's agent, next to its worker.

    Args:
        report: receives events for the user.
        assemble: builds the job's receipt from the workers' receipts and the failure.
        frontend: where the rendezvous listens; None: on rank 0's first rail.
    """

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        rails: tuple[Rail, ...],
        report: Report,
        assemble: Callable[..., dict[str, Any]],
        frontend: Endpoint | None = None,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._rails = rails
        self._report = report
        self._assemble = assemble
        self._frontend = frontend
        self._state = StateMachine("coordinator", TRANSITIONS)
        self._members = Membership()
        self._attempt = 0
        self._round = 0  # answers to an earlier table do not count
        self._paths = PathResults(spec)
        self._candidates: list[Failure] = []
        self._ended: dict[int, int] = {}  # by worker, the last attempt whose ranks all ended with exit code 0
        self._failure: Failure | None = None  # why the job stops
        self._restart = False  # after the stop
        self._receipts: list[messages.Receipt] = []
        self._last_message = messages.Over(0)
        self._began = time.time()
        self._reply_routes = ReplyRoutes(spec.name, rails[0])
        self._stall = StallWatch(
            spec,
            lambda: self._members.broadcast(messages.StacksRequest()),
            self._report_stall,
            self._warn,
            loop.time,
        )
        self._hosts = HostRegister(spec, loop.time, rails)
        raise_open_files(spec)
        endpoint = frontend or Endpoint(rails[0].address)
        self.server = RendezvousServer(loop, spec.token, endpoint, self._receive_join_request)
        self._heartbeat = loop.every(heartbeat_seconds(spec.nnodes), self._check_heartbeats)
        self._state_timer: Timer = loop.later(spec.start_timeout, self._end_gathering)

    @property
    def state(self) -> CoordinatorState:
        return self._state.current

    # -- gathering ---------------------------------------------------------------------------------------------------

    def _receive_join_request(self, sock: socket.socket, data: dict[str, Any], received: bytes) -> None:
        if self._register_host(sock, data):
            return
        try:
            request = messages.decode_join_request(data)
        except messages.InvalidMessageError as error:
            try:
                name = f"the worker at {sock.getpeername()[0]}"
            except (OSError, IndexError):  # disconnected
                name = "a worker"
            self._reject(sock, name, f"malformed join request: {error}")
        else:
            self.admit(sock, request, received)

    def _register_host(self, sock: socket.socket, data: dict[str, Any]) -> bool:
        """Answer a host that asks for its node rank; return False if the message is not such a request."""
        try:
            request = HostRequest.read(data)
        except ValueError as error:
            request, answer = None, Registration(refused=f"malformed request of a host: {error}")
        else:
            if request is None:
                return False
            late = self.state is not CoordinatorState.GATHERING
            answer = self._hosts.answer(request, self._members, late=late)
            if request.problem and not late:
                self._fail(failures.network(request.name, request.problem))
        if answer.refused:
            self._warn(answer.refused)
        with contextlib.suppress(OSError):
            sock.send(pack(answer.message()))  # it fits the buffer of a new connection
        self._loop.later(_REJECTION_SECONDS, sock.close)
        return True

    def _reject(self, sock: socket.socket, name: str, reason: str, rank: int | None = None) -> None:
        failure = failures.rejected(name, reason, None if rank is None else name)
        connection = MessageSocket(
            self._loop, sock, messages.decode_from_worker, lambda _message: None, lambda _problem: None
        )
        connection.send(messages.Rejection(failure))
        self._loop.later(_REJECTION_SECONDS, connection.close)
        self._report({"event": "notice", "node": rank, "level": "warning", "text": failure.text})

    def admit(self, sock: socket.socket, request: messages.JoinRequest, received: bytes = b"") -> None:
        """Admit or reject a worker whose connection has proved the token (or is rank 0's own)."""
        row, rank = request.row, request.row.node_rank
        present = self._members.get(rank)
        if (
            present
            and self._spec.phase == "work"
            and self._silence(present) > idle_silence_seconds(self._spec.nnodes)
        ):
            present = None  # its node died; this pod replaces it
        late = self.state is not CoordinatorState.GATHERING and not self._repeatable
        row_present, claimed = present.row if present else None, self._frontend is not None
        reason = admission.rejection(request, self._spec, row_present, late=late, claimed=claimed)
        if reason:
            self._reject(sock, row.name, reason, rank)
            return
        address = peer_host(sock) or row.rails[0].address
        member = Member(row, address, self._loop.time())
        member.connection = MessageSocket(
            self._loop,
            sock,
            messages.decode_from_worker,
            lambda message: self._receive(member, message),
            lambda problem: self._lose(member, problem),
            received=received,
        )
        if self.state is not CoordinatorState.GATHERING:
            self._gather()
        if rank in self._members:  # the same worker after a broken connection, or its replacement
            self._members.drop(self._members[rank])
        self._members[rank] = member
        member.connection.send(messages.Heartbeat())  # confirms the admission
        self._report_phase("join", f"{len(self._members)}/{self._spec.nnodes} joined")
        if len(self._members) == self._spec.nnodes:
            self._send_table()

    @property
    def _repeatable(self) -> bool:
        """Whether to return to GATHERING if a worker leaves. Only pods are replaced, not local nodes."""
        checking = self.state is CoordinatorState.CHECKING
        return checking and self._spec.phase == "work" and self._attempt == 0

    def _gather(self) -> None:
        """Wait for all workers again."""
        self._round += 1
        self._enter(CoordinatorState.GATHERING, self._spec.start_timeout, self._end_gathering)

    def _end_gathering(self) -> None:
        """Handle the start timeout."""
        names, hosts = self._hosts.missing({rank: one.row.name for rank, one in self._members.items()})
        self._fail(
            failures.start_timeout(
                list(self._members),
                self._spec.nnodes,
                self._spec.start_timeout,
                self.server.wrong_tokens,
                names=names,
                hosts=hosts,
            )
        )

    # -- checking ----------------------------------------------------------------------------------------------------

    def _send_table(self) -> None:
        table = self._members.table()
        problems = check(table)
        if problems:
            nodes = problems[0].nodes
            self._fail(
                Failure(
                    "network", str(refusal(problems)), 4, node=nodes[0] if nodes else None, at=time.time()
                )
            )
            return
        self._paths = PathResults(self._spec, table)
        self._round += 1
        self._enter(CoordinatorState.CHECKING)
        self._members.broadcast(messages.Table(self._attempt, self._round, table))

    def _receive_preflight_result(self, member: Member, result: messages.PreflightResult) -> None:
        first = not self._paths.faulty
        self._paths.add(member.row.node_rank, result)
        number = self._round
        if self._paths.complete:
            self._end_checking(number)
            return
        if first and self._paths.faulty:
            self._loop.later(_VIEWS_SECONDS, lambda: self._end_checking(number))
        if not self._count_answer(member):
            return
        if self._paths.faulty:
            self._end_checking(number)
            return
        self._report_phase("preflight", self._paths.summary())
        self._start()

    def _end_checking(self, number: int) -> None:
        """Fail because of the faulty paths, once both ends' views are there or for the reason of one end alone."""
        if self._round == number and self.state is CoordinatorState.CHECKING:
            self._fail(self._paths.failure())

    # -- running -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            port = store_port(self._spec, self._attempt)
        except NetworkError as error:
            self._fail(failures.own_error(self._spec.name, error))
            return
        self._enter(CoordinatorState.RUNNING)
        self.server.close()  # nobody may join any more: a restart uses the same connections
        self._stall.begin(len(self._members))
        self._members.broadcast(messages.Start(port))

    def _receive(self, member: Member, message: messages.WorkerMessage) -> None:
        member.last_message_at = self._loop.time()
        rank = member.row.node_rank
        if isinstance(message, messages.Heartbeat):
            self._stall.receive_heartbeat(rank, message)
        elif isinstance(message, messages.WorkerFailed):
            self._fail(message.failure)
        elif isinstance(message, messages.RanksEnded):
            self._ended[rank] = message.attempt
        elif isinstance(message, messages.Interrupted):
            if all(self._ended.get(rank) == self._attempt for rank in range(self._spec.nnodes)):
                self._members.broadcast(messages.EndLeftovers())
            else:
                self._fail(message.failure)
        elif isinstance(message, messages.Kill):
            self._stop_because_of_first()  # the failure may have come just before
            if self.state is CoordinatorState.STOPPING and self._failure is not None:
                self._members.broadcast(messages.Stop(self._failure, self._restart, at_once=True))
        elif isinstance(message, messages.Stacks):
            self._stall.receive_stacks(rank, message)
        elif self._members.waits_for(member):
            self._receive_answer(member, message)

    def _receive_answer(self, member: Member, message: messages.WorkerMessage) -> None:
        """Handle an answer, which counts once, and only in the state and round that requested it."""
        state, current = self.state, getattr(message, "round", self._round) == self._round
        rank = member.row.node_rank
        if isinstance(message, messages.PreflightResult) and state is CoordinatorState.CHECKING and current:
            self._receive_preflight_result(member, message)
        elif isinstance(message, messages.ProcessesEnded) and state is CoordinatorState.RUNNING:
            self._stall.forget(rank)
            if message.attempt == self._attempt and self._count_answer(member):
                self._collect()
        elif isinstance(message, messages.ProcessesStopped) and state is CoordinatorState.STOPPING:
            if message.row is not None and message.row.node_rank != rank:
                raise messages.InvalidMessageError(
                    f"its row is node rank {message.row.node_rank}'s, not {rank}'s"
                )
            member.row = message.row or member.row
            if self._count_answer(member):
                self._end_stop()
        elif isinstance(message, messages.WorkerReceipt) and state is CoordinatorState.COLLECTING:
            self._receipts.append(message.receipt)
            if self._count_answer(member):
                self._conclude()

    def _count_answer(self, member: Member) -> bool:
        """Record an answer; return whether all have answered. A pending failure takes precedence over progress."""
        self._members.answered(member)
        return self._members.all_answered and (not self._candidates or self._failure is not None)

    def _lose(self, member: Member, problem: str = "") -> None:
        """Handle the end of a worker's connection, or a violation of the protocol (``problem``)."""
        if not self._members.holds(member):
            return
        if self._repeatable and not self._candidates:
            self._gather()
        self._members.drop(member)
        self._hosts.release(member.row.node_rank)
        state = self.state
        if state is CoordinatorState.COLLECTING:
            if self._members.all_answered:
                self._conclude()
        elif state is CoordinatorState.LEAVING:
            self._end_leaving_if_alone()
        elif state is CoordinatorState.GATHERING:
            reason = f"invalid message: {problem}" if problem else "its connection ended"
            text = f"{len(self._members)}/{self._spec.nnodes} joined ({member.row.name} left: {reason})"
            if not self._candidates:
                self._report_phase("join", text)
        elif state is not CoordinatorState.OVER:
            self._fail(failures.worker_left(member.row, problem))
            if state is CoordinatorState.STOPPING and self._members.all_answered:
                self._end_stop()

    def _silence(self, member: Member) -> float:
        return self._loop.time() - member.last_message_at

    def _check_heartbeats(self) -> None:
        """Send heartbeats, and look for silent workers; until the last message."""
        self._members.broadcast(messages.Heartbeat())
        limit = silence_seconds(self._spec.link_grace, self._spec.nnodes)
        own_rank, repeatable = self._spec.node_rank, self._repeatable
        if self.state in (CoordinatorState.STOPPING, CoordinatorState.COLLECTING):
            # A broken network may have cut workers off: do not wait long for them.
            broken = self._failure is not None and self._failure.kind in ("network", "timeout")
            self._drop_silent(idle_silence_seconds(self._spec.nnodes) if broken else limit)
        silent = [m for m in self._members.silent(self._loop.time() - limit) if m.row.node_rank != own_rank]
        own = self._members.get(own_rank)
        if (
            self.state in (CoordinatorState.CHECKING, CoordinatorState.RUNNING)
            and own
            and 1 < len(silent) == len(self._members) - 1
        ):
            over = str(self._frontend) if self._frontend else own.row.rails[0].interface
            self._fail(failures.rank0_isolated(own.row, over, len(silent), limit))
            return
        for member in silent:
            if repeatable:
                self._lose(member)
            elif self.state in (
                CoordinatorState.CHECKING,
                CoordinatorState.RUNNING,
                CoordinatorState.STOPPING,
            ):
                self._lose_silent(member, limit)
        if self.state is CoordinatorState.RUNNING:
            self._stall.tick()
        elif self.state is CoordinatorState.GATHERING:
            self._check_half_open()

    def _lose_silent(self, member: Member, limit: float) -> None:
        self._members.drop(member)
        self._fail(failures.worker_silent(member.row, member.address, self._silence(member), limit))

    def _drop_silent(self, limit: float) -> None:
        """Stop waiting for silent workers."""
        silent = [
            member
            for member in self._members.silent(self._loop.time() - limit)
            if self._members.waits_for(member)
        ]
        for member in silent:
            self._lose_silent(member, limit)
        if silent and self._members.all_answered:
            self._end_stop() if self.state is CoordinatorState.STOPPING else self._conclude()

    def _check_half_open(self) -> None:
        """Check the routes to workers that connect over the backend but do not receive the reply."""
        if self._spec.loopback or self._frontend:
            return
        problem = self._reply_routes.problem(sock_diag.half_open(constants.JOIN_PORT))
        if problem:
            self._fail(failures.network(self._spec.name, problem))

    def _report_stall(self, text: str, begun: bool) -> None:
        self._report({"event": "stall", "text": text})
        if self._spec.stall_action == "stop" and begun:
            self._fail(failures.stalled(text))

    # -- stopping ----------------------------------------------------------------------------------------------------

    def _fail(self, failure: Failure) -> None:
        """Record a failure. After a short delay, the one that happened first stops the job."""
        from torchnet.agent.failure_cause import is_echo  # no start needs it

        if self._restart and failure.kind != "script":
            self._stop(failure, restart=False)  # it rules the restart out
        elif self._failure is None and self.state not in (
            CoordinatorState.COLLECTING,
            CoordinatorState.LEAVING,
            CoordinatorState.OVER,
        ):
            self._candidates.append(failure)
            settle = _SETTLE_SECONDS if failure.kind in ("script", "lost") else 0.0
            self._loop.later(_ECHO_SECONDS if is_echo(failure) else settle, self._stop_because_of_first)

    def _stop_because_of_first(self) -> None:
        from torchnet.agent.failure_cause import stop_reason  # no start needs it

        if self._failure is None and self._candidates:
            restartable = (
                self.state is CoordinatorState.RUNNING
                and self._attempt < self._spec.max_restarts
                and len(self._members) == self._spec.nnodes
            )
            failure, restart = stop_reason(self._candidates, restartable=restartable)
            self._stop(failure, restart=restart)

    def _stop(self, failure: Failure, *, restart: bool) -> None:
        self._failure, self._restart = failure, restart
        self._report(failure.event() | {"restart": restart})
        # Twice: a restart's last request for its addresses may begin when RENEW_SECONDS have passed.
        seconds = self._spec.grace + _STOP_SECONDS + 2 * RENEW_SECONDS * restart
        self._enter(CoordinatorState.STOPPING, seconds, lambda: self._end_stop_late(seconds))
        self._members.broadcast(messages.Stop(failure, restart))

    def _end_stop_late(self, seconds: float) -> None:
        """End the stop, without a restart if workers have not stopped: they would end its processes."""
        late = [member.row for member in self._members.values() if self._members.waits_for(member)]
        if self._restart and late:
            self._fail(failures.workers_not_stopped(late, seconds))
        self._end_stop()

    def _end_stop(self) -> None:
        if self._failure is None:
            return  # a restart's table is faulty, and the stop for that reason follows
        if not self._restart:
            self._collect()
            return
        self._attempt += 1
        self._warn(f"restart {self._attempt} of {self._spec.max_restarts}, because {self._failure.text}")
        self._failure, self._restart, self._candidates = None, False, []
        self._send_table()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Collect the receipts."""
        self._enter(CoordinatorState.COLLECTING, _RECEIPT_SECONDS, self._conclude)
        self._members.broadcast(messages.ReceiptRequest())

    def _conclude(self) -> None:
        """Determine the result: the one place that does."""
        receipt = self._assemble(
            spec=self._spec,
            receipts=self._receipts,
            attachments=[rail.attachment for rail in self._rails],
            failure=self._failure,
            began=self._began,
            restarts=self._attempt,
        )
        one_network = {"one_network": True} if self._hosts.all_have_one_network else {}
        self._report({"event": "receipt", "receipt": receipt, **one_network})
        self._leave(messages.Over(receipt["exit_code"]))

    def _leave(self, last: messages.Over) -> None:
        """Send the last message to the other workers, and to rank 0's own once they have left."""
        self.server.close()
        self._heartbeat.cancel()
        self._last_message = last
        self._enter(CoordinatorState.LEAVING, _LEAVE_SECONDS, self._end)
        self._members.broadcast(last, except_rank=self._spec.node_rank)
        self._end_leaving_if_alone()

    def _end_leaving_if_alone(self) -> None:
        if len(self._members) == (self._spec.node_rank in self._members):
            self._end()

    def _end(self) -> None:
        self._enter(CoordinatorState.OVER)
        own = self._members.get(self._spec.node_rank)
        if own is not None:
            own.connection.send(self._last_message)

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _enter(
        self,
        state: CoordinatorState,
        seconds: float | None = None,
        on_timeout: Callable[[], None] | None = None,
    ) -> None:
        """Enter a state that waits for an answer of each member, for at most ``seconds``."""
        self._state.enter(state)
        self._members.expect_answers()
        self._state_timer.cancel()
        if seconds is not None and on_timeout is not None:
            alone = not self._members and state is not CoordinatorState.GATHERING
            self._state_timer = self._loop.later(0.0 if alone else seconds, on_timeout)

    def _warn(self, text: str) -> None:
        self._report({"event": "notice", "node": None, "level": "warning", "text": text})

    def _report_phase(self, phase: str, text: str) -> None:
        self._report({"event": "phase", "node": self._spec.node_rank, "phase": phase, "text": text})
