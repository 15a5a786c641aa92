"""One worker: discovery, rendezvous, preflight, and training or the handover to the training container."""

from __future__ import annotations

import base64
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchnet.agent import etc_hosts
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure, Reporter
from torchnet.agent.failure_cause import explain_end
from torchnet.agent.framed_socket import FramedSocket, Message
from torchnet.agent.handover import Handover
from torchnet.agent.heartbeat import BEAT_SECONDS, silence_seconds
from torchnet.agent.join import Join
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.preflight import Preflight
from torchnet.agent.rank_process import Process
from torchnet.agent.rendezvous import pack_row
from torchnet.agent.spec import AgentSpec
from torchnet.agent.training_phase import TrainingPhase
from torchnet.network import probe_plan
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Rail
from torchnet.network.network_status import StatusEntry
from torchnet.network.peer_table import PeerRow, PeerTable, decode, fingerprint

HOSTS_COPY = "hosts"  # to be mounted at /etc/hosts


def leave(spec: AgentSpec, row: PeerRow, attachments: tuple[StatusEntry, ...], table: PeerTable) -> None:
    """Write the state, and a hosts file with the peers' names.

    Raises:
        OSError: a file cannot be read or written.
    """
    rank0 = tuple(rail.address for rail in table.rows[0].rails)
    etc_hosts.write_copy(table, spec.run_id, Path(spec.state) / HOSTS_COPY)
    state = Handover(spec.run_id, spec.node_rank, spec.nnodes, row.uid, spec.start, attachments, rank0, table)
    state.write(spec.state)


_STACKS_SECONDS = 0.5  # until processes have written their stacks
_ALONE_SECONDS = 3.0  # how long an interrupted worker waits for the coordinator to stop it


class Worker:
    """One worker. :meth:`begin` starts it; ``code`` is its exit code once the loop has ended.

    Args:
        verified: in phase work, the table that the prepare container verified.
    """

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        source: AddressSource,
        reporter: Reporter,
        verified: PeerTable | None = None,
    ) -> None:
        self.code = 70
        self._loop = loop
        self._spec = spec
        self._reporter = reporter
        self._known = fingerprint(verified) if verified else ""
        self._channel: FramedSocket | None = None
        self._table = PeerTable(())
        self._attempt = self._round = 0
        self._heard = time.monotonic()
        self._failure: Failure | None = None
        self._state = "joining"
        self._frozen = self._welcome = False  # welcome: rank 0 has sent something on this connection
        self._named = False
        self._clock = PhaseTimer(reporter.send)
        self._entry = Join(
            loop,
            spec,
            source,
            reporter,
            self._clock,
            entered=self._connected,
            failed=self._alone,
            taken=self._replaced,
        )
        self._work = TrainingPhase(
            loop,
            spec,
            reporter,
            ended=self._ended,
            lost=self._rail_lost,
            notice=lambda text: self._notice("warning", text),
        )
        self._gang = self._work.gang

    # -- joining -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Discover and join; messages trigger everything else."""
        if self._state != "joining":
            return  # stopped before it began
        self._clock.own()
        self._clock.done("start")
        self._entry.begin(self._known)
        self._loop.every(BEAT_SECONDS, self._beat)

    def _replaced(self, failure: Failure) -> None:
        """End this pod, which cannot take part. It has not joined, and its replacement joins instead."""
        self._reporter.send({**failure.event(), "event": "replaced"})
        self._finish(failure.code)

    def _rank0_went(self) -> None:
        """Join rank 0's replacement, which sends a new table. Before the start, nothing is lost with rank 0."""
        if not self._welcome:
            self._entry.cut()
            return
        self._notice("warning", "rank 0 went away before the start: looking for it again")
        self._forget_paths()
        self._state = "joining"
        self._table = PeerTable(())
        self._entry.again(self._known)

    def _connected(self, sock: socket.socket) -> None:
        self._heard = time.monotonic()
        self._welcome = False
        self._channel = FramedSocket(self._loop, sock, self._message, self._cut)

    # -- messages ------------------------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        self._heard = time.monotonic()
        self._welcome = True
        op = message.get("op")
        if op == "table":
            self._clock.waited()
            if self._state in ("joining", "saved"):
                self._clock.done("join")
            self._state = "preflight"
            self._attempt, self._round = message["attempt"], message["round"]
            self._table = decode(base64.b64decode(message["table"]))
            self._check(probe=message["probe"])
        elif op == "save":
            self._save()
        elif op == "start":
            self._start(message["port"])
        elif op == "stop" and message.get("final"):
            self._alone(Failure.read(message["failure"]))  # rejected: rank 0 expects no further messages
        elif op == "stop":
            failure = Failure.read(message["failure"])
            if not message.get("restart"):
                self._reporter.send({**failure.event(), "event": "told"})
            self._stop(failure, restart=bool(message.get("restart")))
        elif op == "stacks":
            asked = [process for process in self._gang.processes.values() if process.ask_stacks()]
            self._loop.later(_STACKS_SECONDS, lambda: self._stacks(asked))
        elif op == "receipt":
            self._close_account()
        elif op == "over":
            if self._state == "saved":
                self._clock.waited()
                self._clock.total()
            self._finish(int(message["code"]))

    def _check(self, *, probe: bool) -> None:
        preflight = self._forget_paths()
        # On loopback the file is the machine's and already names 127.0.0.1; a prepare container writes a copy.
        if not self._spec.loopback and self._spec.phase != "prepare":
            self._named = etc_hosts.add_peers(self._table, self._spec.run_id)
            if not self._named and self._attempt == 0:
                text = f"{etc_hosts.PATH} is not writable: the store's reverse look-ups may take long"
                self._notice("warning", text)
        own = self._spec.node_rank
        peers = probe_plan.peers(own, self._spec.nnodes, self._spec.preflight) if probe else ()
        number = self._round

        def done(problems: list[str]) -> None:
            self._clock.own()
            self._clock.done("preflight")
            paths = len(peers) * len(self._entry.rails) if not problems else 0
            self._send({"op": "checked", "round": number, "problems": problems, "paths": paths})

        preflight.check(self._table, own, peers, done)

    def _forget_paths(self) -> Preflight:
        """Cancel the check of an earlier table, and return the preflight."""
        preflight = self._entry.preflight
        assert preflight is not None
        preflight.forget()
        return preflight

    def _save(self) -> None:
        """Save the verified table: to a file for the next container, or in memory in phase work."""
        self._clock.waited()
        self._known = fingerprint(self._table)
        self._state = "saved"
        if self._spec.phase == "prepare":
            try:
                leave(self._spec, self._entry.row, self._entry.verified(), self._table)
            except OSError as error:
                text = (
                    f"{self._spec.name}: the state cannot be written to {self._spec.state}: {error.strerror}"
                )
                self._failed(self._own_failure("internal", text, 70))
                return
        self._clock.own()
        self._clock.done("save")
        self._send({"op": "saved", "round": self._round})

    def _start(self, port: int) -> None:
        self._clock.waited()
        self._state = "running"
        try:
            self._work.start(self._table, self._entry.rails, port, self._attempt)
        except OSError as error:
            text = f"{self._spec.command[0]} cannot be run on {self._spec.name}: {error.strerror}"
            self._failed(self._own_failure("usage", text, 2))
        self._clock.own()
        self._clock.done("spawn")
        self._clock.total()

    def _stop(self, failure: Failure, *, restart: bool) -> None:
        if self._state == "over":
            return
        self._failure = None if restart else failure
        self._state = "stopping"
        self._entry.cancel()
        if restart:
            self._work.rest()
        self._gang.stop(self._renew if restart else self._stopped)

    def _renew(self) -> None:
        """Get the restart's addresses. If that fails, the coordinator stops all workers again."""
        self._entry.renew(
            lambda row: self._stopped(row=pack_row(row)),
            lambda text, code: self._failed(self._own_failure("network", text, code)),
        )

    def _stopped(self, **row: str) -> None:
        self._send({"op": "stopped", "attempt": self._attempt, "codes": self._gang.codes(), **row})
        if self._channel is None or self._channel.closed:
            self._close_account()
            self._finish(self._failure.code if self._failure else 70)

    # -- what happens here ---------------------------------------------------------------------------------------

    def _ended(self, process: Process) -> None:
        """Handle a process that ended by itself."""
        if self._state != "running":
            return
        if process.code:
            memory = self._work.out_of_memory() if process.signal == 9 else ""
            self._failed(explain_end(process, self._spec, memory))
        elif not self._gang.running and not any(self._gang.codes().values()):
            # End leftover processes before the account is closed.
            self._state = "ended"
            self._gang.stop(
                lambda: self._send({"op": "ended", "attempt": self._attempt, "codes": self._gang.codes()})
            )

    def _failed(self, failure: Failure) -> None:
        """Report to the coordinator, or stop alone without one."""
        if self._channel is None or self._channel.closed:
            self._alone(failure)
        else:
            self._send({"op": "failed", "failure": asdict(failure)})

    def _rail_lost(self, rail: Rail, text: str) -> None:
        failure = self._own_failure("network", f"{self._spec.name}: {text}", 4)
        if rail.index == 0:
            self._alone(failure)  # the coordinator is behind this link
        else:
            self._failed(failure)

    def _alone(self, failure: Failure) -> None:
        """Stop without the coordinator: the others learn it from the runtime, or notice the silence."""
        if self._failure is not None or self._state == "over":
            return
        self._reporter.send(failure.event())
        if self._channel is not None:
            self._channel.close()
        self._stop(failure, restart=False)

    def _cut(self) -> None:
        """Handle the end of the connection to rank 0's agent."""
        if self._state == "over":
            return
        if self._failure is not None:  # already known: only the final message is missing
            self._gang.stop(self._stopped)
            return
        if self._spec.node_rank and not self._work.begun:
            self._rank0_went()
            return
        rank0 = self._table.rows[0].name if self._table.rows else "rank 0"
        text = f"lost {rank0} (node rank 0): its agent's connection to {self._spec.name} ended"
        self._alone(Failure("lost", text, 70, node=rank0, at=time.time()))

    def interrupt(self, failure: Failure) -> None:
        """Stop the job from here, after a signal or at the runtime's request."""
        # A pod that is evicted before the start is replaced: the others wait for the new one instead of stopping.
        replaced = self._spec.phase != "all" and not self._work.begun
        if self._state == "joining" or replaced or self._channel is None or self._channel.closed:
            self._alone(failure)
        else:
            self._reporter.send({**failure.event(), "event": "told"})
            self._send({"op": "failed", "failure": asdict(failure)})
            # No effect if the coordinator has stopped it by then.
            self._loop.later(_ALONE_SECONDS, lambda: self._alone(failure))

    def freeze(self, frozen: bool) -> None:
        self._frozen = frozen
        self._gang.freeze() if frozen else self._gang.thaw()
        self._beat()

    def _beat(self) -> None:
        moved = self._work.moved() if self._state == "running" else 0
        self._send({"op": "beat", "bytes": moved, "frozen": self._frozen})
        silence = time.monotonic() - self._heard
        if (
            self._channel is not None
            and not self._channel.closed
            and self._spec.node_rank
            and silence > silence_seconds(self._spec.link_grace)
            and self._state in ("joining", "running", "ended", "preflight", "saved")
        ):
            if not self._work.begun:
                self._channel.close()
                self._rank0_went()
                return
            rank0 = self._table.rows[0] if self._table.rows else None
            where = f"{rank0.name} ({rank0.rails[0].address})" if rank0 else "rank 0"
            over = self._entry.rails[0].interface
            text = f"{self._spec.name}: nothing heard from {where} over {over} for {silence:.0f} s"
            self._alone(Failure("network", text, 4, node=self._spec.name, at=time.time() - silence))

    def _stacks(self, asked: list[Process]) -> None:
        stacks = {str(process.rank): "" for process in self._gang.processes.values() if not process.ended}
        stacks |= {str(process.rank): process.read_stacks() for process in asked if not process.ended}
        self._send({"op": "stacks", "stacks": stacks, "stuck": self._work.stuck(self._table)})

    # -- the end -------------------------------------------------------------------------------------------------

    def _close_account(self) -> None:
        if self._state == "over":
            return
        made = self._work.receipt(self._table, self._entry.rails)
        self._reporter.send({"event": "worker_receipt", "receipt": made})
        self._send({"op": "receipt", "receipt": made})

    def _finish(self, code: int) -> None:
        self._state = "over"
        self.code = code
        self._reporter.send({"event": "end", "node": self._spec.node_rank, "code": code})
        self._loop.stop()

    def close(self) -> None:
        """Release all resources."""
        self._work.close()
        if self._named:
            etc_hosts.remove_peers(self._spec.run_id)
        self._entry.close()

    def _send(self, message: dict[str, Any]) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _notice(self, level: str, text: str) -> None:
        self._reporter.send({"event": "notice", "node": self._spec.node_rank, "level": level, "text": text})

    def _own_failure(self, kind: Any, text: str, code: int) -> Failure:
        return Failure(kind, text, code, node=self._spec.name, at=time.time())
