"""Rank 0's second role: it gathers the workers, says when to start, and settles how the job ended.

    gathering ─ table ─> checking ─ start ─> running ─ stop ─> stopping ─┬─ table ─> checking   (a restart)
                                        └─ all ended ──────────────────┴─ receipts ─> over

Every state waits for one message from each worker that is still there.  A worker whose connection ends, or from which
nothing is heard for long, is lost; the first failure is the job's, and is what everybody is told.
"""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from torchnet import names
from torchnet.agent.admission import make_room, objection, store_port
from torchnet.agent.door import Door, unpack_row
from torchnet.agent.ending import is_echo
from torchnet.agent.frames import Frames, Message, pack
from torchnet.agent.loop import Loop
from torchnet.agent.preflight import wrong_route
from torchnet.agent.report import Failure
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stall import StallWatch
from torchnet.errors import NetworkError
from torchnet.kernel import sockets
from torchnet.network import plan
from torchnet.network.select import Rail
from torchnet.network.table import Row, Table, check, encode, refusal

BEAT_SECONDS = 1.0
# Failures that arrive this close together are ordered by when they happened: a process that died takes its peers'
# connections with it, and their errors may be heard of first.
_SETTLE_SECONDS = 0.25
_ECHO_SECONDS = (
    1.0  # how long the cause of what looks like an echo is waited for: busy machines are slow to tell
)
_RECEIPT_SECONDS = 5.0
_SILENT_SECONDS = 3.5  # beats come once a second


def silence_seconds(link_grace: float) -> float:
    """After how long without a word a worker is lost: a flap of ``link_grace`` and TCP's retransmission fit in."""
    return 2 * link_grace + 3.0


@dataclass
class Member:
    """A worker, as the coordinator knows it."""

    row: Row
    frames: Frames
    heard: float = field(default_factory=time.monotonic)
    waiting: bool = False  # for its next answer in the present state
    receipt: dict[str, Any] | None = None
    codes: dict[str, int] = field(default_factory=dict)


Report = Callable[[dict[str, Any]], None]


class Coordinator:
    """Runs in rank 0's agent, beside its worker.

    Args:
        report: where events for people go.
        assemble: makes the job's receipt of the workers' and of how it ended.
    """

    def __init__(
        self,
        loop: Loop,
        spec: AgentSpec,
        rails: tuple[Rail, ...],
        report: Report,
        assemble: Callable[..., dict[str, Any]],
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._rails = rails
        self._report = report
        self._assemble = assemble
        self._members: dict[int, Member] = {}
        self._state = "gathering"
        self._attempt = 0
        self._failure: Failure | None = None
        self._candidates: list[Failure] = []
        self._began = time.time()
        self._paths = 0
        self._restart = False
        make_room(spec)
        self._door = Door(loop, spec.token, rails[0].address, names.JOIN_PORT, self._welcome)
        self._start_timer = loop.later(spec.start_timeout, self._late)
        self._beat = loop.every(BEAT_SECONDS, self._beats)
        self._stall = StallWatch(spec, self._ask_stacks, self._stalled)

    # -- gathering -----------------------------------------------------------------------------------------------

    def _welcome(self, sock: socket.socket, message: dict[str, Any], rest: bytes) -> None:
        try:
            row = unpack_row(message["row"])
            run, size = message["run"], message["nnodes"]
        except (KeyError, TypeError, ValueError, NetworkError):
            sock.close()
            return
        self.add(sock, row, rest, run=run, size=size)

    def add(self, sock: socket.socket, row: Row, rest: bytes = b"", *, run: str, size: int) -> None:
        """Let a worker in whose connection has proved the token (or is rank 0's own)."""
        rank = row.node_rank
        member = Member(row, None)  # type: ignore[arg-type]
        member.frames = Frames(
            self._loop, sock, lambda m: self._heard(member, m), lambda: self._lost(member), received=rest
        )
        present = self._members.get(rank)
        late = self._state != "gathering"
        wrong = objection(self._spec, present.row if present else None, row, run, size, late=late)
        if wrong:
            failure = Failure(
                "network", f"{row.name} was not let in: {wrong}", 4, node=row.name, at=time.time()
            )
            member.frames.send({"op": "stop", "failure": asdict(failure), "final": True})
            self._loop.later(2.0, member.frames.close)
            self._report({"event": "notice", "node": rank, "level": "warning", "text": failure.text})
            return
        if rank in self._members:  # the same worker again, after a connection that broke
            self._members.pop(rank).frames.close()
        self._members[rank] = member
        self._phase("join", f"{len(self._members)}/{self._spec.nnodes} joined")
        if len(self._members) == self._spec.nnodes:
            self._start_timer.cancel()
            self._send_table()

    def _late(self) -> None:
        missing = [str(rank) for rank in range(self._spec.nnodes) if rank not in self._members]
        wrong = f"; {self._door.refused} connections had a wrong token" if self._door.refused else ""
        text = (
            f"{len(self._members)}/{self._spec.nnodes} workers joined within {self._spec.start_timeout:g} s; "
            f"missing: node rank {', '.join(missing[:8])}{' …' if len(missing) > 8 else ''}{wrong}"
        )
        self._fail(Failure("timeout", text, 124, at=time.time()))

    # -- checking ------------------------------------------------------------------------------------------------

    def _send_table(self) -> None:
        table = Table(tuple(self._members[rank].row for rank in sorted(self._members)))
        problems = check(table)
        if problems:
            error = refusal(problems)
            self._fail(
                Failure("network", str(error), 4, node=problems[0].nodes[0] if problems[0].nodes else None)
            )
            return
        self._paths = 0
        self._enter("checking")
        data = base64.b64encode(encode(table)).decode()
        self._broadcast({"op": "table", "attempt": self._attempt, "table": data})

    def _checked(self, member: Member, message: Message) -> None:
        problems = message.get("problems") or []
        if problems:
            text = "preflight: " + "\n".join(str(p) for p in problems[:4])
            if len(problems) > 4:
                text += f"\n… and {len(problems) - 4} more paths from {member.row.name}"
            self._fail(Failure("network", text, 4, node=member.row.name, at=time.time()))
            return
        self._paths += int(message.get("paths", 0))
        if self._all_answered(member):
            mtu = self._members[0].row.rails[0].mtu if self._members[0].row.rails else 0
            wanted = plan.paths(self._spec.nnodes, self._spec.preflight) * len(member.row.rails)
            self._phase("preflight", f"{self._paths}/{wanted} paths at {mtu} bytes")
            self._start()

    def _start(self) -> None:
        try:
            port = store_port(self._spec, self._attempt)
        except NetworkError as error:
            self._fail(Failure("network", str(error), 4, node=self._spec.name, at=time.time()))
            return
        self._enter("running")
        self._stall.begin(len(self._members))
        self._broadcast({"op": "start", "attempt": self._attempt, "port": port})

    # -- running -------------------------------------------------------------------------------------------------

    def _heard(self, member: Member, message: Message) -> None:
        member.heard = time.monotonic()
        op = message.get("op")
        if op == "beat":
            self._stall.beat(member.row.node_rank, message)
        elif op == "checked" and self._state == "checking":
            self._checked(member, message)
        elif op == "failed":
            self._fail(Failure.read(message["failure"]))
        elif op == "ended" and self._state == "running":
            member.codes = message["codes"]
            self._stall.gone(member.row.node_rank)
            # A failure that is about to be settled goes before a good end.
            if self._all_answered(member) and not self._candidates:
                self._finish()
        elif op == "stopped" and self._state == "stopping":
            member.codes = message["codes"]
            if message.get("row"):
                member.row = unpack_row(message["row"])
            if self._all_answered(member):
                self._after_stop()
        elif op == "stacks":
            self._stall.stacks(member.row.node_rank, message)
        elif op == "receipt" and self._state == "receipts":
            member.receipt = message["receipt"]
            if self._all_answered(member):
                self._over()

    def _lost(self, member: Member) -> None:
        if self._members.get(member.row.node_rank) is not member:
            return
        if self._state in ("receipts", "over"):
            member.waiting = False
            if self._state == "receipts" and not any(m.waiting for m in self._members.values()):
                self._over()
            return
        del self._members[member.row.node_rank]
        if self._state == "stopping":  # it was told to, and went without a last word
            if not any(m.waiting for m in self._members.values()):
                self._after_stop()
            return
        if self._state == "gathering" and self._candidates:
            return
        if self._state == "gathering":
            self._phase(
                "join", f"{len(self._members)}/{self._spec.nnodes} joined ({member.row.name} went away)"
            )
            return
        text = f"lost {member.row.name} (node rank {member.row.node_rank}): its agent's connection ended"
        self._fail(Failure("lost", text, 70, node=member.row.name, at=time.time()))

    def _beats(self) -> None:
        now = time.monotonic()
        self._broadcast({"op": "beat"})
        silence = silence_seconds(self._spec.link_grace)
        if self._state in ("stopping", "receipts"):
            broken = self._failure is not None and self._failure.kind in ("network", "timeout")
            self._drop_silent(now, _SILENT_SECONDS if broken else silence)
        others = [member for member in self._members.values() if member.row.node_rank != self._spec.node_rank]
        gone = [member for member in others if now - member.heard > silence]
        if len(gone) > 1 and len(gone) == len(others) and self._state in ("checking", "running"):
            own = self._members[self._spec.node_rank].row
            text = (
                f"{own.name} (node rank {own.node_rank}) hears nothing from any of the {len(gone)} other workers over "
                f"{own.rails[0].interface}: it is the one that is cut off"
            )
            self._fail(Failure("network", text, 4, node=own.name, at=time.time() - silence))
            return
        for member in gone:
            if self._state in ("checking", "running", "stopping"):
                address = member.row.rails[0].address if member.row.rails else "?"
                text = (
                    f"lost {member.row.name} (node rank {member.row.node_rank}): nothing heard from it over "
                    f"{address} for {now - member.heard:.0f} s"
                )
                del self._members[member.row.node_rank]
                member.frames.close()
                self._fail(Failure("network", text, 4, node=member.row.name, at=time.time() - silence))
        if self._state == "running":
            self._stall.tick()
        elif self._state == "gathering":
            self._unanswered()

    def _drop_silent(self, now: float, limit: float) -> None:
        """Nobody waits for the last words of a worker that a broken network keeps from being heard."""
        silent = [m for m in self._members.values() if m.waiting and now - m.heard > limit]
        for member in silent:
            del self._members[member.row.node_rank]
            member.frames.close()
        if silent and not any(member.waiting for member in self._members.values()):
            self._after_stop() if self._state == "stopping" else self._over()

    def _unanswered(self) -> None:
        """Workers that knock and do not hear our answer: is it our route to them that is wrong?"""
        for address in () if self._spec.loopback else sockets.half_open(names.JOIN_PORT):
            problem = wrong_route(self._spec.name, "a worker that wants to join", self._rails[0], address)
            if problem:
                self._fail(Failure("network", problem, 4, node=self._spec.name, at=time.time()))
                return

    def _ask_stacks(self) -> None:
        self._broadcast({"op": "stacks"})

    def _stalled(self, text: str, begun: bool) -> None:
        self._report({"event": "stall", "text": text})
        if self._spec.stall_action == "stop" and begun:
            first = text.splitlines()[0]
            self._fail(Failure("timeout", first, 124, at=time.time()))

    # -- the end -------------------------------------------------------------------------------------------------

    def _fail(self, failure: Failure) -> None:
        """Take note of a failure; the first to have happened stops the job, a moment later."""
        if self._failure is not None or self._state in ("receipts", "over"):
            return
        self._candidates.append(failure)
        settle = _SETTLE_SECONDS if failure.kind in ("script", "lost") else 0.0
        self._loop.later(_ECHO_SECONDS if is_echo(failure) else settle, self._stop)

    def _stop(self) -> None:
        if self._failure is not None or not self._candidates:
            return
        order = {"interrupted": 0, "script": 1, "lost": 2}
        started = self._state == "running"
        failure = min(self._candidates, key=lambda f: (is_echo(f), f.at, order.get(f.kind, 3)))
        lost = next((f for f in self._candidates if f.kind == "lost"), None)
        if lost is not None and failure.kind == "script":
            failure = (
                lost  # the processes fail because their peers' worker went away, not the other way round
            )
        self._failure = failure
        self._restart = restart = (
            started
            and failure.kind in ("script",)
            and self._attempt < self._spec.max_restarts
            and len(self._members) == self._spec.nnodes
        )
        self._report(failure.event() | {"restart": restart})
        self._start_timer.cancel()
        self._enter("stopping")
        self._broadcast({"op": "stop", "failure": asdict(failure), "restart": restart})
        self._deadline(self._spec.grace + 5.0, self._after_stop)

    def _after_stop(self) -> None:
        if self._state != "stopping":
            return
        if self._restart and len(self._members) == self._spec.nnodes:
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
        self._broadcast({"op": "receipt"})
        self._deadline(_RECEIPT_SECONDS, self._over)

    def _over(self) -> None:
        if self._state != "receipts":
            return
        self._enter("over")
        receipt = self._assemble(
            spec=self._spec,
            receipts=[m.receipt for m in self._members.values() if m.receipt],
            failure=self._failure,
            began=self._began,
            restarts=self._attempt,
        )
        self._report({"event": "receipt", "receipt": receipt})
        final = {"op": "over", "code": receipt["exit_code"], "reason": receipt["reason"]}
        self._broadcast(final)
        self._door.close()
        self._beat.cancel()

    # -- helpers -------------------------------------------------------------------------------------------------

    def _enter(self, state: str) -> None:
        self._state = state
        for member in self._members.values():
            member.waiting = True
        if not self._members and state in ("stopping", "receipts"):
            self._loop.later(0, self._after_stop if state == "stopping" else self._over)

    def _deadline(self, seconds: float, function: Callable[[], None]) -> None:
        state, attempt = self._state, self._attempt
        self._loop.later(
            seconds, lambda: function() if (self._state, self._attempt) == (state, attempt) else None
        )

    def _all_answered(self, member: Member) -> bool:
        member.waiting = False
        return not any(m.waiting for m in self._members.values())

    def _broadcast(self, message: Message) -> None:
        packed = pack(message)  # once: the table is the same for all
        for member in list(self._members.values()):
            member.frames.send_packed(packed)

    def _phase(self, phase: str, text: str) -> None:
        self._report({"event": "phase", "node": self._spec.node_rank, "phase": phase, "text": text})
