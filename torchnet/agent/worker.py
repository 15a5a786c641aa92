"""A worker's way through a job: it does what the coordinator says, and looks after its own when nobody is there to say.

Phases 2 to 6 of a launch, as seen from one worker: join, preflight, environment, run, receipt.
"""

from __future__ import annotations

import base64
import socket
import time
from dataclasses import asdict
from typing import Any

from torchnet import names
from torchnet.agent import hosts, receipt
from torchnet.agent.account import Account
from torchnet.agent.coordinator import BEAT_SECONDS, Coordinator, silence_seconds
from torchnet.agent.discover import discover, own_row
from torchnet.agent.door import pack_row
from torchnet.agent.ending import explain_end
from torchnet.agent.environment import Environment
from torchnet.agent.frames import Frames, Message
from torchnet.agent.gang import Gang
from torchnet.agent.handshake import probe_key
from torchnet.agent.knock import Knock
from torchnet.agent.loop import Loop
from torchnet.agent.preflight import Preflight
from torchnet.agent.process import Process
from torchnet.agent.rdma import port_bytes
from torchnet.agent.report import Failure, Reporter
from torchnet.agent.spec import AgentSpec
from torchnet.agent.watch import RailWatch
from torchnet.errors import NetworkError, TorchnetError
from torchnet.network import plan
from torchnet.network.select import Rail
from torchnet.network.sources import AddressSource
from torchnet.network.table import Table, decode, encode

_STACKS_SECONDS = 0.5  # until processes have written their stacks down
_ALONE_SECONDS = 3.0  # how long a worker that must stop waits for the coordinator's word


class Worker:
    """One worker.  :meth:`begin` starts it; ``code`` is its exit code once the loop has ended."""

    def __init__(self, loop: Loop, spec: AgentSpec, source: AddressSource, reporter: Reporter) -> None:
        self.code = 70
        self._loop = loop
        self._spec = spec
        self._source = source
        self._reporter = reporter
        self._channel: Frames | None = None
        self._coordinator: Coordinator | None = None
        self._preflight: Preflight | None = None
        self._knock: Knock | None = None
        self._watch: RailWatch | None = None
        self._account: Account | None = None
        self._rails: tuple[Rail, ...] = ()
        self._table = Table(())
        self._attempt = 0
        self._heard = time.monotonic()
        self._failure: Failure | None = None
        self._state = "joining"
        self._frozen = False
        self._named = False
        self._rdma = port_bytes()
        self._gang = Gang(loop, spec, reporter, self._ended)

    # -- joining -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Discover and join; everything else follows from messages."""
        if self._state != "joining":
            return  # told to stop before it began
        try:
            self._rails = discover(self._spec, self._source)
            self._row = row = own_row(self._spec, self._rails)
            self._reporter.send({"event": "row", "node": self._spec.node_rank, "row": pack_row(row)})
            for text in {note for rail in self._rails for note in rail.notes}:
                self._notice("info", text)
            self._preflight = Preflight(
                self._loop, probe_key(self._spec.token), self._rails, loopback=self._spec.loopback
            )
            if self._spec.node_rank == 0:
                self._coordinator = Coordinator(
                    self._loop, self._spec, self._rails, self._reporter.send, receipt.job
                )
                ours, theirs = socket.socketpair()
                self._coordinator.add(theirs, row, run=self._spec.run_id, size=self._spec.nnodes)
                self._connected(ours)
            else:
                self._look_for_rank0()
        except TorchnetError as error:
            self._alone(Failure("network", str(error), error.exit_code, node=self._spec.name, at=time.time()))
        except OSError as error:
            text = f"{self._spec.name}: the join's port {names.JOIN_PORT} cannot be opened: {error.strerror}"
            self._alone(Failure("network", text, 4, node=self._spec.name, at=time.time()))
        self._loop.every(BEAT_SECONDS, self._beat)

    def _look_for_rank0(self) -> None:
        self._knock = Knock(
            self._loop,
            self._spec,
            self._source,
            self._rails[0],
            self._row,
            entered=self._connected,
            failed=self._alone,
            notice=lambda text: self._notice("warning", text),
        )

    def _rank0_went(self) -> None:
        """Before the start nothing is lost with rank 0: whoever takes its place is joined, for a table of its own."""
        self._notice("warning", "rank 0 went away before the start: looking for it again")
        assert self._preflight is not None
        self._preflight.forget()
        self._state = "joining"
        self._table = Table(())
        self._look_for_rank0()

    def _connected(self, sock: socket.socket) -> None:
        self._heard = time.monotonic()
        self._channel = Frames(self._loop, sock, self._message, self._cut)

    # -- messages ------------------------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        self._heard = time.monotonic()
        op = message.get("op")
        if op == "table":
            self._state = "preflight"
            self._attempt = message["attempt"]
            self._table = decode(base64.b64decode(message["table"]))
            self._check()
        elif op == "start":
            self._start(message["port"])
        elif op == "stop" and message.get("final"):
            self._alone(
                Failure.read(message["failure"])
            )  # not let in: nobody waits for this worker's last words
        elif op == "stop":
            self._stop(Failure.read(message["failure"]), restart=bool(message.get("restart")))
        elif op == "stacks":
            asked = [process for process in self._gang.processes.values() if process.ask_stacks()]
            self._loop.later(_STACKS_SECONDS, lambda: self._stacks(asked))
        elif op == "receipt":
            self._close_account()
        elif op == "over":
            self._finish(int(message["code"]))

    def _check(self) -> None:
        assert self._preflight is not None
        if not self._spec.loopback:  # there the file is the machine's, and 127.0.0.1 has its name
            self._named = hosts.add_peers(self._table)
            if not self._named and self._attempt == 0:
                text = f"{hosts.PATH} is not writable: the store's reverse look-ups may take long"
                self._notice("warning", text)
        own = self._spec.node_rank
        peers = plan.peers(own, self._spec.nnodes, self._spec.preflight)

        def done(problems: list[str]) -> None:
            paths = len(peers) * len(self._rails) if not problems else 0
            self._send({"op": "checked", "attempt": self._attempt, "problems": problems, "paths": paths})

        self._preflight.check(self._table, own, peers, done)

    def _start(self, port: int) -> None:
        environment = Environment(self._spec, self._table, self._rails, port, self._attempt)
        if self._attempt == 0:
            for warning in environment.warnings():
                self._notice("warning", warning)
        if self._account is None:
            self._account = Account(self._table, self._spec.node_rank, names.JOIN_PORT)
            self._loop.watch(self._account.closed, self._account.poll)
            if not self._spec.loopback:
                self._watch = RailWatch(
                    self._loop,
                    self._rails,
                    self._spec.link_grace,
                    lambda text: self._notice("warning", text),
                    self._rail_lost,
                )
        else:
            self._account.learn(self._table)
        self._state = "running"
        try:
            environment.table = self._gang.keep(f"table-{self._attempt}", encode(self._table))
            self._gang.start(self._attempt, environment.of)
        except OSError as error:
            text = f"{self._spec.command[0]} cannot be run on {self._spec.name}: {error.strerror}"
            self._failed(Failure("usage", text, 2, node=self._spec.name, at=time.time()))

    def _stop(self, failure: Failure, *, restart: bool) -> None:
        if self._state == "over":
            return
        self._failure = None if restart else failure
        self._state = "stopping"
        self._gang.stop(lambda: self._stopped(restart))

    def _stopped(self, restart: bool) -> None:
        message: Message = {"op": "stopped", "attempt": self._attempt, "codes": self._gang.codes()}
        if restart:
            try:
                self._rails = discover(self._spec, self._source)
                message["row"] = pack_row(own_row(self._spec, self._rails))
            except NetworkError as error:
                self._failed(Failure("network", str(error), 4, node=self._spec.name, at=time.time()))
        self._send(message)
        if self._channel is None or self._channel.closed:
            self._close_account()
            self._finish(self._failure.code if self._failure else 70)

    # -- what happens here ---------------------------------------------------------------------------------------

    def _ended(self, process: Process) -> None:
        """A process has ended by itself."""
        if self._state != "running":
            return
        if process.code:
            self._failed(explain_end(process, self._spec))
        elif not self._gang.running and not any(self._gang.codes().values()):
            # What the processes left behind is ended before the account is closed.
            self._state = "ended"
            self._gang.stop(
                lambda: self._send({"op": "ended", "attempt": self._attempt, "codes": self._gang.codes()})
            )

    def _failed(self, failure: Failure) -> None:
        """Tell the coordinator, or act alone where there is none."""
        if self._channel is None or self._channel.closed:
            self._alone(failure)
        else:
            self._send({"op": "failed", "failure": asdict(failure)})

    def _rail_lost(self, rail: Rail, text: str) -> None:
        failure = Failure("network", f"{self._spec.name}: {text}", 4, node=self._spec.name, at=time.time())
        if rail.index == 0:
            self._alone(failure)  # the coordinator is behind that very link
        else:
            self._failed(failure)

    def _alone(self, failure: Failure) -> None:
        """Stop without the others: they are told by the runtime, or notice the silence."""
        if self._failure is not None or self._state == "over":
            return
        self._reporter.send(failure.event())
        if self._knock is not None:
            self._knock.cancel()
        if self._channel is not None:
            self._channel.close()
        self._stop(failure, restart=False)

    def _cut(self) -> None:
        """The connection to rank 0's agent has ended."""
        if self._state == "over":
            return
        if self._failure is not None:  # known already: only the coordinator's last word is missing
            self._gang.stop(lambda: self._stopped(False))
            return
        if self._spec.node_rank and self._account is None:
            self._rank0_went()
            return
        rank0 = self._table.rows[0].name if self._table.rows else "rank 0"
        text = f"lost {rank0} (node rank 0): its agent's connection to {self._spec.name} ended"
        self._alone(Failure("lost", text, 70, node=rank0, at=time.time()))

    def interrupt(self, failure: Failure) -> None:
        """Stop the job from here: a signal, or the runtime's word."""
        if self._state == "joining" or self._channel is None or self._channel.closed:
            self._alone(failure)
        else:
            self._send({"op": "failed", "failure": asdict(failure)})
            waiting = ("running", "ended")
            self._loop.later(_ALONE_SECONDS, lambda: self._alone(failure) if self._state in waiting else None)

    def freeze(self, frozen: bool) -> None:
        self._frozen = frozen
        self._gang.freeze() if frozen else self._gang.thaw()
        self._beat()

    def _beat(self) -> None:
        moved = self._account.read().peer_bytes() if self._account and self._state == "running" else 0
        self._send({"op": "beat", "bytes": moved, "frozen": self._frozen})
        silence = time.monotonic() - self._heard
        if (
            self._channel is not None
            and not self._channel.closed
            and self._spec.node_rank
            and silence > silence_seconds(self._spec.link_grace)
            and self._state in ("joining", "running", "ended", "preflight")
        ):
            if self._account is None:
                self._channel.close()
                self._rank0_went()
                return
            rank0 = self._table.rows[0] if self._table.rows else None
            where = f"{rank0.name} ({rank0.rails[0].address})" if rank0 else "rank 0"
            text = f"{self._spec.name}: nothing heard from {where} over {self._rails[0].interface} for {silence:.0f} s"
            self._alone(Failure("network", text, 4, node=self._spec.name, at=time.time() - silence))

    def _stacks(self, asked: list[Process]) -> None:
        stacks = {str(process.rank): "" for process in self._gang.processes.values() if not process.ended}
        stacks |= {str(process.rank): process.read_stacks() for process in asked if not process.ended}
        self._send({"op": "stacks", "stacks": stacks, "stuck": self._stuck()})

    def _stuck(self) -> list[str]:
        """Connections whose bytes the other end does not acknowledge."""
        return self._account.stuck(self._table, self._spec.name) if self._account else []

    # -- the end -------------------------------------------------------------------------------------------------

    def _close_account(self) -> None:
        if self._state == "over":
            return
        traffic = self._account.settle() if self._account else None
        flaps = self._watch.flaps if self._watch else []
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        rdma = {name: count - self._rdma.get(name, 0) for name, count in port_bytes().items()}
        made = receipt.worker(
            self._spec,
            self._table,
            self._rails,
            traffic,
            self._gang.codes(),
            flaps,
            {name: count for name, count in rdma.items() if count},
        )
        self._reporter.send({"event": "worker_receipt", "receipt": made})
        self._send({"op": "receipt", "receipt": made})

    def _finish(self, code: int) -> None:
        self._state = "over"
        self.code = code
        self._reporter.send({"event": "end", "node": self._spec.node_rank, "code": code})
        # Rank 0's agent has to pass the last word on before it goes.
        self._loop.later(
            0.05 if self._spec.node_rank == 0 and self._spec.nnodes > 1 else 0.0, self._loop.stop
        )

    def close(self) -> None:
        """Give everything back."""
        self._gang.close()
        if self._named:
            hosts.remove_peers()
        for part in (self._preflight, self._watch, self._account):
            if part is not None:
                part.close()

    def _send(self, message: dict[str, Any]) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _notice(self, level: str, text: str) -> None:
        self._reporter.send({"event": "notice", "node": self._spec.node_rank, "level": level, "text": text})
