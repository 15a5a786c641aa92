"""The coordinator on rank 0: gathers the workers, starts the job and determines its result.

gathering ─ table ─> checking ─┬─ start ─> running ─ stop ─> stopping ─┬─ table ─> checking (a restart)
                               │                                       └─ all ended ─ receipts ─> leaving ─> over
                               └─ save ──> saving ─┬─ all saved ─> leaving ─> over  (rank 0 in phase prepare)
                                                   └─> gathering  (rank 0 in phase work)

Each state waits for one message from every remaining worker. A worker whose connection ends or that is silent for
too long is lost. The first failure becomes the job's, and every worker receives it. Rank 0's own agent is notified
last, after the others have left, because unsent messages would be lost with its pod.

In pods, workers join twice, in phase prepare and in phase work, and usually all are in the same phase. If a pod is
replaced in between, workers of both phases meet and are checked together. Those in phase prepare save their state
and join again in phase work; if rank 0 is in phase prepare, every worker joins again. Until the start, the
coordinator waits for a worker that leaves: it, or a replacement, may join again.
"""

from __future__ import annotations

import abc
import base64
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torchnet import constants, rlimits
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.failure_cause import first_of, is_echo
from torchnet.agent.framed_socket import FramedSocket, Message
from torchnet.agent.heartbeat import (
    BEAT_SECONDS,
    RENEW_SECONDS,
    SILENT_SECONDS,
    cut_off,
    lost,
    missing,
    overdue,
    silence_seconds,
    silent,
    went,
)
from torchnet.agent.membership import Member, Membership
from torchnet.agent.preflight import wrong_route
from torchnet.agent.rendezvous import STRANGERS, JoinRequest, RendezvousServer, unpack_row
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stall import StallWatch
from torchnet.agent.store_port import store_port
from torchnet.errors import NetworkError
from torchnet.linux import sock_diag
from torchnet.network import probe_plan
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerTable, check, encode, fingerprint, refusal

Report = Callable[[dict[str, Any]], None]
_OWN_FILES, _PROCESS_FILES = 64, 8  # descriptors: the agent's own; per process: pipes, stacks and a log
_LEAVE_SECONDS = 2.0  # for the others to receive the final message


class Gathering(abc.ABC):
    """The states gathering, checking, saving and leaving."""

    def __init__(self, loop: EventLoop, spec: AgentSpec, rails: tuple[Rail, ...], report: Report) -> None:
        self._loop = loop
        self._spec = spec
        self._rails = rails
        self._report = report
        self._members = Membership()
        self._state = "gathering"
        self._attempt = 0
        self._last: Message = {}
        self._paths = 0
        self._round = 0  # answers to an earlier table do not count
        self._table = PeerTable(())
        self._probing = True
        _raise_open_files(spec)
        self._door = RendezvousServer(loop, spec.token, rails[0].address, constants.JOIN_PORT, self._welcome)
        self._start_timer = loop.later(spec.start_timeout, self._late)
        self._beat = loop.every(BEAT_SECONDS, self._beats)

    @abc.abstractmethod
    def _beats(self) -> None:
        """Run once a second until the final message."""

    @abc.abstractmethod
    def _heard(self, member: Member, message: Message) -> None:
        """Handle a message from a worker."""

    @abc.abstractmethod
    def _lost(self, member: Member) -> None:
        """Handle the end of a worker's connection."""

    @abc.abstractmethod
    def _start(self) -> None:
        """Start the job: all workers have joined, and all paths work."""

    @abc.abstractmethod
    def _fail(self, failure: Failure) -> None:
        """Stop the job because of a failure."""

    @abc.abstractmethod
    def _enter(self, state: str) -> None:
        """Enter a state that waits for an answer from each worker."""

    # -- gathering -----------------------------------------------------------------------------------------------

    def _welcome(self, sock: socket.socket, message: dict[str, Any], rest: bytes) -> None:
        try:
            hello = JoinRequest.read(message)
        except (KeyError, TypeError, ValueError, OverflowError, NetworkError) as error:
            what = str(error) if isinstance(error, NetworkError) else f"its introduction is none ({error!r})"
            try:
                name = f"the worker at {sock.getpeername()[0]}"
            except OSError:  # disconnected
                name = "a worker"
            self._turn_away(sock, name, what)
            return
        self.add(sock, hello, rest)

    def _turn_away(self, sock: socket.socket, name: str, why: str, rank: int | None = None) -> None:
        text = f"{name} was not let in: {why}"
        failure = Failure("network", text, 4, node=None if rank is None else name, at=time.time())
        frames = FramedSocket(self._loop, sock, lambda _message: None, lambda: None)
        frames.send({"op": "stop", "failure": asdict(failure), "final": True})
        self._loop.later(2.0, frames.close)
        self._report({"event": "notice", "node": rank, "level": "warning", "text": text})

    def add(self, sock: socket.socket, hello: JoinRequest, rest: bytes = b"") -> None:
        """Admit or reject a worker whose connection has proved the token (or is rank 0's own)."""
        row, rank = hello.row, hello.row.node_rank
        present = self._members.get(rank)
        if present and self._spec.phase != "all" and time.monotonic() - present.heard > SILENT_SECONDS:
            present = None  # its node died; this pod replaces it
        late = self._state not in ("gathering", *self.repeatable)
        wrong = hello.objection(self._spec, present.row if present else None, late=late)
        if wrong:
            self._turn_away(sock, row.name, wrong, rank)
            return
        member = Member(row, None, hello.phase, hello.known)  # type: ignore[arg-type]
        member.frames = FramedSocket(
            self._loop, sock, lambda m: self._heard(member, m), lambda: self._lost(member), received=rest
        )
        if self._state != "gathering":
            self._gather()
        if rank in self._members:  # the same worker after a broken connection, or its replacement
            self._members.pop(rank).frames.close()
        self._members[rank] = member
        member.frames.send({"op": "beat"})  # confirms the admission
        self._phase("join", f"{len(self._members)}/{self._spec.nnodes} joined")
        if len(self._members) == self._spec.nnodes:
            self._start_timer.cancel()
            self._send_table()

    @property
    def repeatable(self) -> tuple[str, ...]:
        """States that may return to gathering, as nothing has started. Only pods are replaced, not local nodes."""
        first = self._spec.phase != "all" and self._attempt == 0
        return ("checking", "saving") if first else ()

    def _gather(self) -> None:
        """Wait for all workers again."""
        self._round += 1
        self._enter("gathering")
        self._start_timer.cancel()
        self._start_timer = self._loop.later(self._spec.start_timeout, self._late)

    def _late(self) -> None:
        wrong = f"; {self._door.refused} connections had a wrong token" if self._door.refused else ""
        text = (
            f"{len(self._members)}/{self._spec.nnodes} workers joined within {self._spec.start_timeout:g} s; "
            f"missing: {missing(self._members, self._spec.nnodes)}{wrong}"
        )
        if self._spec.phase == "work":  # all completed phase prepare
            self._fail(Failure("lost", f"after the preparation {text}", 70, at=time.time()))
        else:
            self._fail(Failure("timeout", text, 124, at=time.time()))

    # -- checking ------------------------------------------------------------------------------------------------

    def _send_table(self) -> None:
        table = self._members.table()
        problems = check(table)
        if problems:
            error = refusal(problems)
            self._fail(
                Failure("network", str(error), 4, node=problems[0].nodes[0] if problems[0].nodes else None)
            )
            return
        self._table = table
        self._paths = 0
        self._round += 1
        self._enter("checking")
        data = base64.b64encode(encode(table)).decode()
        # Workers that verified this same table in phase prepare have already probed its paths.
        known = {member.known for member in self._members.values()} == {fingerprint(table)}
        self._probing = not known or self._attempt > 0
        message = {"attempt": self._attempt, "round": self._round, "probe": self._probing, "table": data}
        self._members.tell({"op": "table", **message})

    def _checked(self, member: Member, message: Message) -> None:
        problems = message.get("problems") or []
        if problems:
            text = "preflight: " + "\n".join(str(p) for p in problems[:4])
            if len(problems) > 4:
                text += f"\n… and {len(problems) - 4} more paths from {member.row.name}"
            self._fail(Failure("network", text, 4, node=member.row.name, at=time.time()))
            return
        self._paths += int(message.get("paths", 0))
        if self._members.answered(member):
            mtu = self._members[0].row.rails[0].mtu if self._members[0].row.rails else 0
            wanted = probe_plan.paths(self._spec.nnodes, self._spec.preflight) * len(member.row.rails)
            if self._probing:
                self._phase("preflight", f"{self._paths}/{wanted} paths at {mtu} bytes")
            else:  # as "preflight" it would replace the preparation's result on the console
                self._phase("paths", "the same as in the preparation")
            if any(member.phase == "prepare" for member in self._members.values()):
                self._enter("saving")
                self._members.tell({"op": "save"})
            else:
                self._start()

    def _saved(self) -> None:
        """End phase prepare, for the whole job or for the late workers: all have saved the state."""
        if self._spec.phase == "prepare":
            for member in [member for member in self._members.values() if member.phase == "work"]:
                self._members.drop(member)  # it joins rank 0 again, then in phase work too
            self._leave({"op": "over", "code": 0, "reason": "prepared"})
            return
        for rank, member in list(self._members.items()):
            if member.phase == "prepare":
                member.frames.send({"op": "over", "code": 0, "reason": "prepared"})
                del self._members[rank]  # it joins again
            else:
                member.known = fingerprint(self._table)
        self._gather()

    # -- leaving -------------------------------------------------------------------------------------------------

    def _leave(self, last: Message) -> None:
        """Send the final message to the other workers, and to rank 0's own once they have left."""
        self._door.close()
        self._beat.cancel()
        self._start_timer.cancel()
        self._last = last
        self._enter("leaving")
        self._members.tell(last, but=self._spec.node_rank)
        self._deadline(_LEAVE_SECONDS, self._gone)
        self._left()

    def _left(self) -> None:
        if set(self._members) <= {self._spec.node_rank}:
            self._gone()

    def _gone(self) -> None:
        if self._state == "leaving":
            self._state = "over"
            self._members.tell(self._last)

    # -- helpers -------------------------------------------------------------------------------------------------

    def _deadline(self, seconds: float, function: Callable[[], None]) -> None:
        state, attempt = self._state, self._attempt
        self._loop.later(
            seconds, lambda: function() if (self._state, self._attempt) == (state, attempt) else None
        )

    def _unanswered(self) -> None:
        """Check the routes to workers that connect but do not receive our reply."""
        for address in () if self._spec.loopback else sock_diag.half_open(constants.JOIN_PORT):
            problem = wrong_route(self._spec.name, "a worker that wants to join", self._rails[0], address)
            if problem:
                self._fail(Failure("network", problem, 4, node=self._spec.name, at=time.time()))
                return

    def _phase(self, phase: str, text: str) -> None:
        self._report({"event": "phase", "node": self._spec.node_rank, "phase": phase, "text": text})


# Failures that arrive within this time are ordered by when they happened: a process that dies closes its peers'
# connections, and their errors may arrive first.
_SETTLE_SECONDS = 0.25
_ECHO_SECONDS = 1.0  # to wait for the cause of an apparent echo: busy machines report late
_STOP_SECONDS = 5.0  # beyond the grace period
_RECEIPT_SECONDS = 5.0


class Coordinator(Gathering):
    """Runs in rank 0's agent, next to its worker.

    Args:
        report: receives events for the user.
        assemble: builds the job's receipt from the workers' receipts and the failure.
    """

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        rails: tuple[Rail, ...],
        report: Report,
        assemble: Callable[..., dict[str, Any]],
    ) -> None:
        super().__init__(loop, spec, rails, report)
        self._assemble = assemble
        self._failure: Failure | None = None
        self._candidates: list[Failure] = []
        self._began = time.time()
        self._restart = False
        self._stall = StallWatch(spec, self._ask_stacks, self._stalled)

    # -- running -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            port = store_port(self._spec, self._attempt)
        except NetworkError as error:
            self._fail(Failure("network", str(error), 4, node=self._spec.name, at=time.time()))
            return
        self._enter("running")
        self._stall.begin(len(self._members))
        self._members.tell({"op": "start", "attempt": self._attempt, "port": port})

    def _heard(self, member: Member, message: Message) -> None:
        member.heard = time.monotonic()
        op = message.get("op")
        if op == "beat":
            self._stall.beat(member.row.node_rank, message)
        elif op == "failed":
            self._fail(Failure.read(message["failure"]))
        elif op == "stacks":
            self._stall.stacks(member.row.node_rank, message)
        else:
            self._answered(member, op, message)

    def _answered(self, member: Member, op: Any, message: Message) -> None:
        """Handle an answer, which counts only in the state that requested it."""
        now = message.get("round") == self._round
        if op == "checked" and self._state == "checking" and now:
            self._checked(member, message)
        elif op == "saved" and self._state == "saving" and now:
            if self._members.answered(member):
                self._saved()
        elif op == "ended" and self._state == "running":
            member.codes = message["codes"]
            self._stall.gone(member.row.node_rank)
            # A pending failure takes precedence over success.
            if self._members.answered(member) and not self._candidates:
                self._finish()
        elif op == "stopped" and self._state == "stopping":
            member.codes = message["codes"]
            if message.get("row"):
                member.row = unpack_row(message["row"])
            if self._members.answered(member):
                self._after_stop()
        elif op == "receipt" and self._state == "receipts":
            member.receipt = message["receipt"]
            if self._members.answered(member):
                self._over()

    def _lost(self, member: Member) -> None:
        if not self._members.holds(member):
            return
        if self._state in ("receipts", "over"):
            member.waiting = False
            if self._state == "receipts" and self._members.complete():
                self._over()
            return
        if self._state == "leaving":
            del self._members[member.row.node_rank]
            self._left()
            return
        if self._state in self.repeatable and not self._candidates:
            self._gather()
        del self._members[member.row.node_rank]
        if self._state == "stopping":  # it left without confirming the stop
            self._fail(went(member))
            if self._members.complete():
                self._after_stop()
            return
        if self._state == "gathering" and self._candidates:
            return
        if self._state == "gathering":
            self._phase(
                "join", f"{len(self._members)}/{self._spec.nnodes} joined ({member.row.name} went away)"
            )
            return
        self._fail(went(member))

    def _beats(self) -> None:
        self._members.tell({"op": "beat"})
        limit = silence_seconds(self._spec.link_grace)
        if self._state in ("stopping", "receipts"):
            broken = self._failure is not None and self._failure.kind in ("network", "timeout")
            self._drop_silent(SILENT_SECONDS if broken else limit)
        gone = silent(self._members, self._spec.node_rank, limit)
        if len(gone) > 1 and len(gone) == len(self._members) - 1 and self._state in ("checking", "running"):
            self._fail(cut_off(self._members[self._spec.node_rank], len(gone), limit))
            return
        for member in gone:
            if self._state in self.repeatable:
                member.frames.close()
                self._lost(member)
            elif self._state in ("checking", "running", "stopping"):
                self._members.drop(member)
                self._fail(lost(member, limit))
        if self._state == "running":
            self._stall.tick()
        elif self._state == "gathering":
            self._unanswered()

    def _drop_silent(self, limit: float) -> None:
        """Stop waiting for silent workers, which a broken network may have cut off."""
        unheard = [member for member in silent(self._members, -1, limit) if member.waiting]
        for member in unheard:
            self._members.drop(member)
            self._fail(lost(member, limit))
        if unheard and self._members.complete():
            self._after_stop() if self._state == "stopping" else self._over()

    def _ask_stacks(self) -> None:
        self._members.tell({"op": "stacks"})

    def _stalled(self, text: str, begun: bool) -> None:
        self._report({"event": "stall", "text": text})
        if self._spec.stall_action == "stop" and begun:
            first = text.splitlines()[0]
            self._fail(Failure("timeout", first, 124, at=time.time()))

    # -- the end -------------------------------------------------------------------------------------------------

    def _fail(self, failure: Failure) -> None:
        """Record a failure. After a short delay, the one that happened first stops the job."""
        if self._restart and failure.kind != "script":
            self._halt(failure, restart=False)  # it rules the restart out
            return
        if self._failure is not None or self._state in ("receipts", "leaving", "over"):
            return
        self._candidates.append(failure)
        settle = _SETTLE_SECONDS if failure.kind in ("script", "lost") else 0.0
        self._loop.later(_ECHO_SECONDS if is_echo(failure) else settle, self._stop)

    def _stop(self) -> None:
        if self._failure is not None or not self._candidates:
            return
        failure = first_of(self._candidates)
        restart = (
            self._state == "running"
            and failure.kind == "script"
            and self._attempt < self._spec.max_restarts
            and len(self._members) == self._spec.nnodes
        )
        others = [candidate for candidate in self._candidates if candidate.kind != "script"]
        if restart and others:
            failure, restart = others[0], False
        self._halt(failure, restart=restart)

    def _halt(self, failure: Failure, *, restart: bool) -> None:
        self._failure, self._restart = failure, restart
        self._report(failure.event() | {"restart": restart})
        self._start_timer.cancel()
        self._enter("stopping")
        self._members.tell({"op": "stop", "failure": asdict(failure), "restart": restart})
        # Twice: a restart's last request for its addresses may begin when RENEW_SECONDS have passed.
        seconds = self._spec.grace + _STOP_SECONDS + 2 * RENEW_SECONDS * restart
        self._deadline(seconds, lambda: self._overdue(seconds))

    def _overdue(self, seconds: float) -> None:
        """End the stop, without a restart if workers have not stopped: they would end its processes."""
        late = [member for member in self._members.values() if member.waiting]
        if self._restart and late:
            self._fail(overdue(late, seconds))
        self._after_stop()

    def _after_stop(self) -> None:
        if self._state != "stopping":
            return
        if self._restart:
            self._restart = False
            self._attempt += 1
            assert self._failure is not None
            text = f"restart {self._attempt} of {self._spec.max_restarts}, because {self._failure.text}"
            self._report({"event": "notice", "node": None, "level": "warning", "text": text})
            self._failure = None
            self._candidates = []
            self._send_table()
        else:
            self._finish()

    def _finish(self) -> None:
        self._enter("receipts")
        self._members.tell({"op": "receipt"})
        self._deadline(_RECEIPT_SECONDS, self._over)

    def _over(self) -> None:
        if self._state != "receipts":
            return
        receipt = self._assemble(
            spec=self._spec,
            receipts=[m.receipt for m in self._members.values() if m.receipt],
            failure=self._failure,
            began=self._began,
            restarts=self._attempt,
        )
        self._report({"event": "receipt", "receipt": receipt})
        self._leave({"op": "over", "code": receipt["exit_code"], "reason": receipt["reason"]})

    # -- helpers -------------------------------------------------------------------------------------------------

    def _enter(self, state: str) -> None:
        self._state = state
        self._members.wait()
        if not self._members and state in ("stopping", "receipts"):
            self._loop.later(0, self._after_stop if state == "stopping" else self._over)


def _raise_open_files(spec: AgentSpec) -> None:
    """Raise the limit of open files, usually 1,024, to fit all workers and unauthenticated clients.

    Raises:
        NetworkError: the hard limit is too low for the workers.
    """
    least = spec.nnodes + _OWN_FILES + _PROCESS_FILES * spec.nproc_per_node
    allowed = rlimits.raise_open_files(least + STRANGERS)
    if allowed < least:
        raise NetworkError(
            f"{spec.name} may open {allowed} files, and rank 0 of {spec.nnodes} workers needs {least}",
            fix="ulimit -Hn (in a pod, the container runtime's LimitNOFILE)",
        )
