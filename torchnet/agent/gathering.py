"""Rank 0's second role up to the start (who is there, are all paths good, who has to come again), and the last word.

The first half of the states that torchnet.agent.coordinator draws; it has the second.
"""

from __future__ import annotations

import abc
import base64
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torchnet import names
from torchnet.agent.admission import make_room
from torchnet.agent.door import Door
from torchnet.agent.frames import Frames, Message
from torchnet.agent.hello import Hello
from torchnet.agent.loop import Loop
from torchnet.agent.preflight import wrong_route
from torchnet.agent.report import Failure
from torchnet.agent.roll import Member, Roll
from torchnet.agent.silence import BEAT_SECONDS, SILENT_SECONDS, missing
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError
from torchnet.kernel import sockets
from torchnet.network import plan
from torchnet.network.select import Rail
from torchnet.network.table import Table, check, encode, fingerprint, refusal

Report = Callable[[dict[str, Any]], None]
_LEAVE_SECONDS = 2.0  # for the others to hear the last word


class Gathering(abc.ABC):
    """The states gathering, checking, saving and leaving."""

    def __init__(self, loop: Loop, spec: AgentSpec, rails: tuple[Rail, ...], report: Report) -> None:
        self._loop = loop
        self._spec = spec
        self._rails = rails
        self._report = report
        self._members = Roll()
        self._state = "gathering"
        self._attempt = 0
        self._last: Message = {}
        self._paths = 0
        self._round = 0  # of checking; answers to an earlier table do not count
        self._table = Table(())
        self._probing = True
        make_room(spec)
        self._door = Door(loop, spec.token, rails[0].address, names.JOIN_PORT, self._welcome)
        self._start_timer = loop.later(spec.start_timeout, self._late)
        self._beat = loop.every(BEAT_SECONDS, self._beats)

    @abc.abstractmethod
    def _beats(self) -> None:
        """Once a second, until the last word."""

    @abc.abstractmethod
    def _heard(self, member: Member, message: Message) -> None:
        """A worker has said something."""

    @abc.abstractmethod
    def _lost(self, member: Member) -> None:
        """A worker's connection has ended."""

    @abc.abstractmethod
    def _start(self) -> None:
        """All are there, and all paths are good."""

    @abc.abstractmethod
    def _fail(self, failure: Failure) -> None:
        """The job must not start."""

    @abc.abstractmethod
    def _enter(self, state: str) -> None:
        """Go into a state, in which an answer of each worker is waited for."""

    # -- gathering -----------------------------------------------------------------------------------------------

    def _welcome(self, sock: socket.socket, message: dict[str, Any], rest: bytes) -> None:
        try:
            hello = Hello.read(message)
        except (KeyError, TypeError, ValueError, OverflowError, NetworkError) as error:
            what = str(error) if isinstance(error, NetworkError) else f"its introduction is none ({error!r})"
            try:
                name = f"the worker at {sock.getpeername()[0]}"
            except OSError:  # it has gone
                name = "a worker"
            self._turn_away(sock, name, what)
            return
        self.add(sock, hello, rest)

    def _turn_away(self, sock: socket.socket, name: str, why: str, rank: int | None = None) -> None:
        text = f"{name} was not let in: {why}"
        failure = Failure("network", text, 4, node=None if rank is None else name, at=time.time())
        frames = Frames(self._loop, sock, lambda _message: None, lambda: None)
        frames.send({"op": "stop", "failure": asdict(failure), "final": True})
        self._loop.later(2.0, frames.close)
        self._report({"event": "notice", "node": rank, "level": "warning", "text": text})

    def add(self, sock: socket.socket, hello: Hello, rest: bytes = b"") -> None:
        """Let a worker in whose connection has proved the token (or is rank 0's own)."""
        row, rank = hello.row, hello.row.node_rank
        present = self._members.get(rank)
        if present and self._spec.phase != "all" and time.monotonic() - present.heard > SILENT_SECONDS:
            present = None  # its node died without a word, and this pod is in its place
        late = self._state not in ("gathering", *self.repeatable)
        wrong = hello.objection(self._spec, present.row if present else None, late=late)
        if wrong:
            self._turn_away(sock, row.name, wrong, rank)
            return
        member = Member(row, None, hello.phase, hello.known)  # type: ignore[arg-type]
        member.frames = Frames(
            self._loop, sock, lambda m: self._heard(member, m), lambda: self._lost(member), received=rest
        )
        if self._state != "gathering":
            self._gather()
        if rank in self._members:  # the same worker again, after a connection that broke
            self._members.pop(rank).frames.close()
        self._members[rank] = member
        member.frames.send({"op": "beat"})  # it is let in
        self._phase("join", f"{len(self._members)}/{self._spec.nnodes} joined")
        if len(self._members) == self._spec.nnodes:
            self._start_timer.cancel()
            self._send_table()

    @property
    def repeatable(self) -> tuple[str, ...]:
        """States from which the gathering may begin again, as nothing has started: pods are replaced, nodes are not."""
        first = self._spec.phase != "all" and self._attempt == 0
        return ("checking", "saving") if first else ()

    def _gather(self) -> None:
        """Wait for all workers once more."""
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
        if self._spec.phase == "work":  # all were in the preparation
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
        # Who was in the preparation has probed these very addresses.
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
            wanted = plan.paths(self._spec.nnodes, self._spec.preflight) * len(member.row.rails)
            if self._probing:
                self._phase("preflight", f"{self._paths}/{wanted} paths at {mtu} bytes")
            else:  # not the preflight's own: the console keeps each phase's last word
                self._phase("paths", "the same as in the preparation")
            if any(member.phase == "prepare" for member in self._members.values()):
                self._enter("saving")
                self._members.tell({"op": "save"})
            else:
                self._start()

    def _saved(self) -> None:
        """All have written down what was verified: the preparation has ended, here or for those that were late."""
        if self._spec.phase == "prepare":
            for member in [member for member in self._members.values() if member.phase == "work"]:
                self._members.drop(member)  # it looks for this worker again, which will work, too
            self._leave({"op": "over", "code": 0, "reason": "prepared"})
            return
        for rank, member in list(self._members.items()):
            if member.phase == "prepare":
                member.frames.send({"op": "over", "code": 0, "reason": "prepared"})
                del self._members[rank]  # it comes again
            else:
                member.known = fingerprint(self._table)
        self._gather()

    # -- leaving -------------------------------------------------------------------------------------------------

    def _leave(self, last: Message) -> None:
        """Tell the others the last word, and this worker when they have gone."""
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
        """Workers that knock and do not hear our answer: is it our route to them that is wrong?"""
        for address in () if self._spec.loopback else sockets.half_open(names.JOIN_PORT):
            problem = wrong_route(self._spec.name, "a worker that wants to join", self._rails[0], address)
            if problem:
                self._fail(Failure("network", problem, 4, node=self._spec.name, at=time.time()))
                return

    def _phase(self, phase: str, text: str) -> None:
        self._report({"event": "phase", "node": self._spec.node_rank, "phase": phase, "text": text})
