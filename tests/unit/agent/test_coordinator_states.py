"""Whatever workers send, in whatever order, cut or duplicated: every run ends in exactly one verdict.

The coordinator and its server are the real ones, over socket pairs; only the clock is the test's.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.agents import made, spec
from torchnet.agent import coordinator, handshake, messages, receipt, state_machine, worker
from torchnet.agent.coordinator import Coordinator, CoordinatorState
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.framed_socket import LENGTH, pack
from torchnet.agent.message_socket import pack_message
from torchnet.agent.rendezvous import Endpoint
from torchnet.errors import TorchnetError
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow

NNODES = 3
RAILS = (Rail(0, None, "lo", "127.0.0.1", 4, 8, 65536),)
RANKS = st.integers(0, NNODES - 1)
PEERS = st.integers(0, 7)  # the number of a connection, modulo those that exist
POSITIONS = st.floats(0, 1)  # in the bytes of a message
GARBAGE = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from([pack_message(messages.Start(1)), pack_message(messages.Over(0))]),
    st.sampled_from(["PreflightResult", "ProcessesStopped", "Invented"]).map(
        lambda name: pack({"type": name, "round": -1, "row": 5})
    ),
)


class Peer:
    """A worker's end of a connection, byte by byte."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.sock, self.server_end = socket.socketpair()
        self.sock.setblocking(False)
        self.buffer = b""
        self.received: list[messages.CoordinatorMessage] = []
        self.answered = 0  # requests
        self.silent = False
        self.closed = False

    def read(self) -> None:
        """Read what has arrived; the handshake has been read already."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self.sock.recv(1 << 16):
                self.buffer += data
        while len(self.buffer) >= LENGTH.size:
            length = LENGTH.size + LENGTH.unpack_from(self.buffer)[0]
            if len(self.buffer) < length:
                break
            message = messages.decode_from_coordinator(json.loads(self.buffer[LENGTH.size : length]))
            self.buffer = self.buffer[length:]
            assert message is not None
            self.received.append(message)

    def requests(self) -> list[messages.CoordinatorMessage]:
        ignored = (messages.Heartbeat, messages.StacksRequest, messages.EndLeftovers)
        return [message for message in self.received if not isinstance(message, ignored)]

    def last(self, kind: type[Any]) -> Any:
        return next((message for message in reversed(self.received) if isinstance(message, kind)), None)

    def write(self, data: bytes) -> None:
        if not self.closed:
            with contextlib.suppress(OSError):
                self.sock.sendall(data)

    def close(self) -> None:
        self.closed = True
        self.sock.close()


class Runs(RuleBasedStateMachine):
    """One job of three workers."""

    @initialize(
        phase=st.sampled_from(["all", "work"]),
        restarts=st.integers(0, 2),
        joined=st.sampled_from([True, True, False]),
        silent_end=st.booleans(),
    )
    def begin(self, phase: str, restarts: int, joined: bool, silent_end: bool) -> None:
        self.silent_end = silent_end
        self.now = 1000.0
        self.loop = EventLoop(lambda: self.now)
        self.events: list[dict[str, Any]] = []
        self.peers: list[Peer] = []
        self.spec = spec(
            0, NNODES, 1, loopback=True, phase=phase, max_restarts=restarts, grace=2.0, start_timeout=30.0
        )
        self.coordinator = Coordinator(
            self.loop, self.spec, RAILS, self.events.append, receipt.job, Endpoint("127.0.0.1", 0)
        )
        self.good: dict[int, set[int]] = {}  # ranks with good paths, by round
        self.ended: dict[int, set[int]] = {}  # ranks whose processes ended well, by attempt
        if joined:
            for rank in range(NNODES):
                self.join(rank, "good", 1.0)

    def turn(self) -> None:
        for _ in range(2):
            self.loop.later(0, self.loop.stop)
            self.loop.run()
        for peer in self.peers:
            if not peer.closed:
                peer.read()

    def send(
        self, peer: Peer, message: messages.WorkerMessage, at: float = 1.0, *, twice: bool = False
    ) -> None:
        """Send in two parts; the model notes it first, as the coordinator may act on it."""
        if isinstance(message, messages.PreflightResult) and not message.problems:
            self.good.setdefault(message.round, set()).add(peer.rank)
        if isinstance(message, messages.ProcessesEnded):
            self.ended.setdefault(message.attempt, set()).add(peer.rank)
        data = pack_message(message) * (1 + twice)
        self.write_in_parts(peer, data, at)

    def write_in_parts(self, peer: Peer, data: bytes, at: float) -> None:
        first = int(len(data) * at)
        peer.write(data[:first])
        self.turn()
        peer.write(data[first:])
        self.turn()

    def pick(self, number: int) -> Peer | None:
        alive = [peer for peer in self.peers if not peer.closed]
        return alive[number % len(alive)] if alive else None

    # -- joining -----------------------------------------------------------------------------------------------------

    @precondition(
        lambda self: self.coordinator.state not in (CoordinatorState.LEAVING, CoordinatorState.OVER)
    )  # it listens
    @rule(
        rank=RANKS,
        how=st.sampled_from(["good", "good", "good", "token", "uid", "run", "malformed", "cut", "twice"]),
        at=POSITIONS,
    )
    def join(self, rank: int, how: str, at: float) -> None:
        peer = Peer(rank)
        self.coordinator.server.challenge(peer.server_end)
        challenge = peer.sock.recv(handshake.CHALLENGE_BYTES)
        rails = (PeerRail("lo", f"127.0.0.{rank + 1}", 65536),)
        uid = "another" if how == "uid" else f"u{rank}"
        run = "another" if how == "run" else self.spec.run_id
        request = messages.JoinRequest(PeerRow(rank, f"node-{rank}", uid, rails), run, NNODES)
        data = messages.encode(request) | ({"nnodes": "x"} if how == "malformed" else {})
        token = "another" if how == "token" else self.spec.token
        signed, proof = handshake.answer_challenge(token, challenge, data)
        frame = pack(signed) * (2 if how == "twice" else 1)
        if how == "cut":
            peer.write(frame[: int(len(frame) * at)])
            peer.close()
            self.turn()
            return
        self.write_in_parts(peer, frame, at)  # self.peers does not have it yet, so the proof is read here
        received = b""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            received = peer.sock.recv(handshake.PROOF_BYTES)
        if received == proof:
            self.peers.append(peer)
        else:
            peer.close()
        self.turn()

    # -- messages ----------------------------------------------------------------------------------------------------

    def answer(self, peer: Peer, at: float = 1.0, *, good: bool = True, twice: bool = False) -> bool:
        """Answer the oldest open request; False if no request is open."""
        requests = peer.requests()
        if peer.closed or peer.answered >= len(requests):
            return False
        request = requests[peer.answered]
        peer.answered += 1
        failure = Failure("script", f"rank {peer.rank} failed", 7, rank=peer.rank, node=f"node-{peer.rank}")
        answer: messages.WorkerMessage | None = None
        if isinstance(request, messages.Table):
            answer = messages.PreflightResult(request.round, () if good else ("no path",), 2)
        elif isinstance(request, messages.Start):
            attempt = peer.last(messages.Table).attempt
            answer = messages.ProcessesEnded(attempt) if good else messages.WorkerFailed(failure)
        elif isinstance(request, messages.Stop):
            row = PeerRow(peer.rank, "other", f"u{peer.rank}", (PeerRail("lo", "127.0.0.9", 1500),))
            answer = messages.ProcessesStopped(None if good else row)  # of an MTU that no other has
        elif isinstance(request, messages.ReceiptRequest):
            answer = messages.WorkerReceipt(made(peer.rank, {}))
        elif isinstance(request, (messages.Over, messages.Rejection)):
            peer.close()
        if answer is not None:
            self.send(peer, answer, at, twice=twice)
        self.turn()
        return True

    @precondition(lambda self: self.peers)
    @rule(number=PEERS, good=st.sampled_from([True, True, True, False]), twice=st.booleans(), at=POSITIONS)
    def one_answers(self, number: int, good: bool, twice: bool, at: float) -> None:
        if peer := self.pick(number):
            self.answer(peer, at, good=good, twice=twice)

    @precondition(lambda self: self.peers)
    @rule(rounds=st.integers(1, 3))
    def all_answer(self, rounds: int) -> None:
        for _ in range(rounds):
            for peer in list(self.peers):
                self.answer(peer)

    @precondition(lambda self: self.peers)
    @rule(
        number=PEERS,
        message=st.one_of(
            st.builds(messages.Heartbeat, st.integers(0, 1 << 40), st.booleans()),
            st.builds(messages.PreflightResult, st.integers(0, 9), st.sampled_from([(), ("no path",)])),
            st.builds(messages.ProcessesEnded, st.integers(0, 2)),
            st.just(messages.ProcessesStopped()),
            st.just(messages.Kill()),
            st.builds(messages.RanksEnded, st.integers(0, 2)),
            st.just(messages.Interrupted(Failure("interrupted", "stopped by SIGINT", 130))),
            st.just(messages.Stacks({"0": ""})),
            st.builds(lambda rank: messages.WorkerReceipt(made(rank, {})), RANKS),
            st.builds(
                lambda kind, at: messages.WorkerFailed(Failure(kind, "connection reset by peer", 9, at=at)),
                st.sampled_from(["script", "network", "lost", "interrupted", "internal"]),
                st.floats(0, 1e10),
            ),
        ),
        twice=st.booleans(),
        at=POSITIONS,
    )
    def one_sends_anything(
        self, number: int, message: messages.WorkerMessage, twice: bool, at: float
    ) -> None:
        if peer := self.pick(number):
            self.send(peer, message, at, twice=twice)

    @precondition(lambda self: self.peers)
    @rule(number=PEERS, how=st.sampled_from(["silent", "garbage", "cut"]), data=GARBAGE, at=POSITIONS)
    def one_misbehaves(self, number: int, how: str, data: bytes, at: float) -> None:
        peer = self.pick(number)
        if peer is None:
            return
        if how == "silent":
            peer.silent = True
        elif how == "garbage":
            peer.write(data)
        else:
            frame = pack_message(messages.WorkerReceipt(made(peer.rank, {})))
            peer.write(frame[: int((len(frame) - 1) * at)])
            peer.close()
        self.turn()

    # -- time --------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 4.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            for peer in self.peers:
                if not peer.silent:
                    peer.write(pack_message(messages.Heartbeat()))
            self.turn()

    # -- what holds --------------------------------------------------------------------------------------------------

    def verdicts(self) -> list[int]:
        """The exit codes that have been decided."""
        return [event["receipt"]["exit_code"] for event in self.events if event["event"] == "receipt"]

    @invariant()
    def no_verdict_is_early_or_unfounded(self) -> None:
        verdicts = self.verdicts()
        assert len(verdicts) == (self.coordinator.state in (CoordinatorState.LEAVING, CoordinatorState.OVER))
        everybody = set(range(NNODES))
        for peer in self.peers:
            over = [message.code for message in peer.received if isinstance(message, messages.Over)]
            assert len(over) <= 1
            assert all(code in verdicts for code in over)
            table = None
            for message in peer.received:  # a restart's table may have come after the last start
                table = message if isinstance(message, messages.Table) else table
                if isinstance(message, messages.Start):
                    assert table is not None
                    assert self.good[table.round] == everybody
        for event in self.events:
            if event["event"] == "receipt" and verdicts == [0]:
                assert self.ended[event["receipt"]["restarts"]] == everybody

    def teardown(self) -> None:
        for peer in self.peers:
            if peer.rank == 0 or not self.silent_end:
                peer.close()
        for _ in range(30):  # longer than all timers together
            self.now += 3.0
            self.turn()
        assert self.coordinator.state is CoordinatorState.OVER
        assert len(self.verdicts()) == 1
        for peer in self.peers:
            peer.close()
        self.turn()
        self.loop.close()


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("states", "transitions"),
    [(CoordinatorState, coordinator.TRANSITIONS), (worker.WorkerState, worker.TRANSITIONS)],
)
def test_every_state_is_reachable_and_leads_to_the_end(states: Any, transitions: Any) -> None:
    assert set(transitions) == set(states)

    def reachable(state: Any) -> set[Any]:
        found, queue = {state}, [state]
        while queue:
            new = transitions[queue.pop()] - found
            found |= new
            queue += new
        return found

    assert reachable(next(iter(states))) == set(states)
    assert all(states.OVER in reachable(state) for state in states)


def test_an_illegal_transition_is_an_internal_error() -> None:
    state = state_machine.StateMachine("coordinator", coordinator.TRANSITIONS)
    with pytest.raises(TorchnetError, match="from state gathering to running") as caught:
        state.enter(CoordinatorState.RUNNING)
    assert caught.value.exit_code == 70
    assert state.current is CoordinatorState.GATHERING
