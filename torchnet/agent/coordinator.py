"""Rank 0's second role: it gathers the workers, says when to start, and settles how the job ended.

    gathering ─ table ─> checking ─┬─ start ─> running ─ stop ─> stopping ─┬─ table ─> checking   (a restart)
                                   │               └─ all ended ──────────┴─ receipts ─> leaving ─> over
                                   └─ save ──> saving ─┬─ all saved ─> leaving ─> over       (rank 0 prepares)
                                                       └─> gathering                         (rank 0 works already)

Every state waits for one message from each worker that is still there.  A worker whose connection ends, or from which
nothing is heard for long, is lost; the first failure is the job's, and is what everybody is told.  When all is said,
rank 0's own agent is told last, after the others have gone: with its pod its unsent words would go as well.

In a pod, workers come twice: to prepare, and to work.  All are in one phase as a rule.  A pod that is replaced between
the two makes them meet in different ones; then all are checked together, those that prepare save what they know and
come again to work, and so does everybody when it is rank 0 that prepares.  Until the start a worker that goes away is
waited for, as it or another in its place may come again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torchnet.agent.admission import store_port
from torchnet.agent.door import unpack_row
from torchnet.agent.ending import first_of, is_echo
from torchnet.agent.frames import Message
from torchnet.agent.gathering import Gathering, Report
from torchnet.agent.loop import Loop
from torchnet.agent.report import Failure
from torchnet.agent.roll import Member
from torchnet.agent.silence import (
    RENEW_SECONDS,
    SILENT_SECONDS,
    cut_off,
    lost,
    overdue,
    silence_seconds,
    silent,
    went,
)
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stall import StallWatch
from torchnet.errors import NetworkError
from torchnet.network.select import Rail

# Failures that arrive this close together are ordered by when they happened: a process that died takes its peers'
# connections with it, and their errors may be heard of first.
_SETTLE_SECONDS = 0.25
_ECHO_SECONDS = (
    1.0  # how long the cause of what looks like an echo is waited for: busy machines are slow to tell
)
_STOP_SECONDS = 5.0  # beyond the grace
_RECEIPT_SECONDS = 5.0


class Coordinator(Gathering):
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
        """An answer counts in the state that asked for it."""
        now = message.get("round") == self._round
        if op == "checked" and self._state == "checking" and now:
            self._checked(member, message)
        elif op == "saved" and self._state == "saving" and now:
            if self._members.answered(member):
                self._saved()
        elif op == "ended" and self._state == "running":
            member.codes = message["codes"]
            self._stall.gone(member.row.node_rank)
            # A failure that is about to be settled goes before a good end.
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
        if self._state == "stopping":  # it was told to, and went without a last word
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
        """Nobody waits for the last words of a worker that a broken network keeps from being heard."""
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
        """Take note of a failure; the first to have happened stops the job, a moment later."""
        if self._restart and failure.kind != "script":
            self._halt(failure, restart=False)  # it would end what was to be restarted
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
        # Of a restart's addresses the last question may be asked at the end of their time.
        seconds = self._spec.grace + _STOP_SECONDS + 2 * RENEW_SECONDS * restart
        self._deadline(seconds, lambda: self._overdue(seconds))

    def _overdue(self, seconds: float) -> None:
        """What has not stopped would end the processes of a restart."""
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
