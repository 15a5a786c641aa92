"""Messages over a stream: whatever arrives, nothing crashes and nothing grows without bound."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.framed_socket import LENGTH, LIMIT, FramedSocket, pack
from torchnet.agent.membership import Member, Membership
from torchnet.agent.message_socket import MessageSocket, pack_message
from torchnet.agent.messages import Heartbeat, StacksRequest, Stop, decode_from_worker
from torchnet.network.peer_table import PeerRail, PeerRow

quick = settings(deadline=None, max_examples=100)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
MESSAGES = st.dictionaries(st.text(), JSON, max_size=5)


class End:
    """One end of a connection, and what it heard."""

    def __init__(self, loop: EventLoop, sock: socket.socket, **options: Any) -> None:
        self.heard: list[dict[str, Any]] = []
        self.closed = 0
        self.frames = FramedSocket(loop, sock, self.heard.append, self._gone, **options)

    def _gone(self) -> None:
        self.closed += 1


@contextmanager
def ends(**options: Any) -> Iterator[tuple[EventLoop, End, socket.socket]]:
    loop = EventLoop()
    ours, theirs = socket.socketpair()
    end = End(loop, ours, **options)
    try:
        yield loop, end, theirs
    finally:
        end.frames.close()
        theirs.close()
        loop.close()


def serve(loop: EventLoop, seconds: float = 0.0) -> None:
    loop.later(seconds, loop.stop)
    loop.run()


def feed(loop: EventLoop, theirs: socket.socket, data: bytes) -> None:
    try:
        theirs.sendall(data)
    except OSError:
        return  # it has closed, and rightly so
    serve(loop)


@quick
@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(0, 2000), max_size=5))
def test_messages_arrive_as_they_were_sent_however_they_are_cut(
    messages: list[dict[str, Any]], cuts: list[int]
) -> None:
    data = b"".join(map(pack, messages))
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    with ends() as (loop, end, theirs):
        for start, stop in itertools.pairwise(places):
            feed(loop, theirs, data[start:stop])
        serve(loop)
        assert end.heard == messages
        assert end.closed == 0


@quick
@given(st.binary(max_size=500))
@example(LENGTH.pack(2) + b"[]")
@example(LENGTH.pack(4) + b"null")
@example(LENGTH.pack(3) + b"\xff\xff\xff")
@example(LENGTH.pack(LIMIT + 1))
@example(LENGTH.pack(0))
@example(LENGTH.pack(100_000) + b"[" * 100_000)
@example(LENGTH.pack(5000) + b"1" * 5000)
def test_any_bytes_are_messages_or_the_end(data: bytes) -> None:
    with ends() as (loop, end, theirs):
        feed(loop, theirs, data)
        theirs.close()
        serve(loop, 0.005)
        assert all(isinstance(message, dict) for message in end.heard)
        assert end.closed == 1
        assert end.frames.closed
        assert end.frames.socket.fileno() == -1


def test_a_length_beyond_the_limit_ends_it_before_anything_is_kept() -> None:
    with ends() as (loop, end, theirs):
        feed(loop, theirs, LENGTH.pack(LIMIT + 1) + b"x" * 1000)
        assert (end.heard, end.closed) == ([], 1)
    with ends() as (loop, end, theirs):
        feed(loop, theirs, LENGTH.pack(LIMIT) + b"x" * 1000)
        assert (end.heard, end.closed) == ([], 0)


def test_a_sender_that_never_stops_costs_bounded_memory() -> None:
    with ends() as (loop, end, theirs):
        tracemalloc.start()
        theirs.setblocking(False)
        rest = LENGTH.pack(LIMIT) + b'"' + b"x" * (LIMIT + 100_000)
        sent = 0
        deadline = time.monotonic() + 30
        while sent < len(rest) and not end.closed and time.monotonic() < deadline:
            try:
                sent += theirs.send(rest[sent : sent + (1 << 18)])
            except (BlockingIOError, ConnectionError):
                pass
            serve(loop)
        serve(loop, 0.2)  # what is still in the kernel
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert end.closed == 1
        assert end.heard == []
        assert peak < 6 * LIMIT  # with the test's own copy


def test_what_came_before_is_delivered_from_the_loop() -> None:
    """The door hands on what it read too much of."""
    first, second = pack({"a": 1}), pack({"b": 2})
    with ends(received=first + second[:3]) as (loop, end, theirs):
        assert end.heard == []
        feed(loop, theirs, second[3:])
        assert end.heard == [{"a": 1}, {"b": 2}]


def test_writing_never_blocks_and_is_told_when_drained() -> None:
    drained: list[int] = []
    with ends(on_drain=lambda: drained.append(1)) as (loop, end, theirs):
        message = {"data": "x" * 100_000}
        for _ in range(50):
            end.frames.send(message)
        assert end.frames.pending > 1_000_000
        drained.clear()  # the first ones fitted into the kernel's buffer
        serve(loop, 0.05)
        assert drained == []
        got = b""
        theirs.settimeout(0)
        while len(got) < 50 * len(pack(message)):
            try:
                got += theirs.recv(1 << 20)
            except BlockingIOError:
                serve(loop, 0.001)
        serve(loop)
        assert end.frames.pending == 0
        assert drained == [1]
        assert json.loads(got[LENGTH.size : len(pack(message))]) == message


def test_a_broadcast_to_many_that_do_not_read_is_kept_once() -> None:
    """Rank 0's table: each worker reads it in its own time."""
    loop = EventLoop()
    pairs = [socket.socketpair() for _ in range(200)]
    members = Membership()
    for rank, (ours, _) in enumerate(pairs):
        row = PeerRow(rank, f"node-{rank}", "", (PeerRail("net1", f"fd00::{rank + 1:x}", 9000),))
        members[rank] = Member(row, "", 0.0)
        members[rank].connection = MessageSocket(loop, ours, decode_from_worker, print, print)
    failure = Failure("internal", "x" * (4 << 20), 70)
    tracemalloc.start()
    try:
        members.broadcast(Heartbeat())
        members.broadcast(Stop(failure))
        members.broadcast(StacksRequest())
        assert tracemalloc.get_traced_memory()[1] < 6 * (4 << 20)
    finally:
        tracemalloc.stop()
    assert all(member.connection.pending > 3 << 20 for member in members.values())
    got = b""
    pairs[7][1].settimeout(0)
    whole = b"".join(pack_message(message) for message in (Heartbeat(), Stop(failure), StacksRequest()))
    while len(got) < len(whole):
        try:
            got += pairs[7][1].recv(1 << 20)
        except BlockingIOError:
            serve(loop)
    assert got == whole
    assert members[7].connection.pending == 0
    for member, (_, theirs) in zip(members.values(), pairs, strict=True):
        member.connection.close()
        theirs.close()
    loop.close()


def test_a_flush_writes_what_a_slow_reader_has_not_taken() -> None:
    messages = [{"n": n, "data": "x" * (10_000 if n else 1_000_000)} for n in range(300)]
    with ends() as (_loop, end, theirs):
        for message in messages:
            end.frames.send(message)
        assert end.frames._sent > 0, "a part of the first"
        got = bytearray()

        def read() -> None:
            while part := theirs.recv(9_999):
                got.extend(part)

        reader = threading.Thread(target=read)
        reader.start()
        end.frames.flush()
        assert end.frames.pending == 0
        end.frames.socket.shutdown(socket.SHUT_WR)
        reader.join(30)
        assert bytes(got) == b"".join(map(pack, messages))


def test_after_the_close_nothing_is_sent_or_called() -> None:
    with ends() as (loop, end, theirs):
        end.frames.close()
        end.frames.close()
        end.frames.send({"late": True})
        assert theirs.recv(100) == b""
        serve(loop, 0.01)
        assert (end.closed, end.heard) == (0, [])


def test_an_other_end_that_is_gone_is_noticed_by_reading_what_it_said_last() -> None:
    with ends() as (loop, end, theirs):
        theirs.sendall(pack({"last": "word"}))
        theirs.close()
        end.frames.send({"to": "nobody"})
        serve(loop, 0.01)
        assert end.heard == [{"last": "word"}]
        assert end.closed == 1


def test_a_message_may_close_the_connection_it_came_by() -> None:
    loop = EventLoop()
    ours, theirs = socket.socketpair()
    heard: list[dict[str, Any]] = []

    def on_message(message: dict[str, Any]) -> None:
        heard.append(message)
        frames.close()

    frames = FramedSocket(loop, ours, on_message, lambda: heard.append({"closed": True}))
    theirs.sendall(pack({"n": 1}) + pack({"n": 2}))
    serve(loop, 0.01)
    assert heard == [{"n": 1}]
    theirs.close()
    loop.close()
