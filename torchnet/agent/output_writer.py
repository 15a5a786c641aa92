"""Write output in a child process: a slow reader or a hanging file system never blocks the agent.

Rejected:

- Non-blocking descriptors. O_NONBLOCK belongs to the open file description, which other processes share; to reopen
  /proc/self/fd/1 fails for sockets and for pipes of another user; and regular files ignore the flag.
- Threads. A thread that waits for a file system (NFS, FUSE) cannot be killed. Until it returns, its process keeps all
  descriptors, including the connection to the launcher, and is not reaped. Besides, the ranks are forked.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.framed_socket import FramedSocket, pack
from torchnet.linux import namespaces

_HEADER = struct.Struct("!II")  # number of the destination, and length
_READ = 256 << 10
_WRITE = 16 << 10  # acknowledged one by one, so that a slow reader is distinguished from one that has stopped
_BATCH = 4096  # headers and data
_CHANNEL = 3  # the child's descriptor
_ORPHAN_SECONDS = 5  # for a child to end after the agent
_STREAM_SECONDS = 30.0  # at the end, for a reader that accepts nothing

pids: set[int] = set()
"""The child processes of all writers, which do not belong to the job."""


class OutputWriter:
    """Writes to several destinations in one child process, which has no other descriptors.

    Args:
        destinations: paths, which the child opens, and descriptors.
        failed: called with a destination's number, and why it cannot be opened (True) or written any more (False).
        late: numbers of the paths that are opened, and thereby created, only when there is data for them.
    """

    def __init__(
        self,
        loop: EventLoop,
        destinations: Sequence[str | int],
        failed: Callable[[int, str, bool], None],
        late: Collection[int] = (),
    ) -> None:
        self._destinations = destinations
        self._failed = failed
        self._loop = loop
        self._batch: list[bytes] = []
        self._unwritten = 0
        self._opened = self._closing = False
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        # The child must not call the agent's signal handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _run(theirs, destinations, late, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        pids.add(self._pid)
        self._frames = FramedSocket(loop, ours, self._receive, self._end)

    @property
    def pending(self) -> int:
        """Bytes that the destinations have not accepted yet."""
        return self._unwritten

    def write(self, number: int, data: bytes) -> None:
        """Queue data for a destination; discard it if the child has ended."""
        if self._frames.closed:
            return
        self._unwritten += len(data)
        # Lines that one call of the loop writes are sent together: a system call for each took 70 % more CPU time.
        if not self._batch:
            self._loop.later(0, self._send_batch)
        self._batch += (_HEADER.pack(number, len(data)), data)
        if len(self._batch) >= _BATCH:
            self._send_batch()

    def _send_batch(self) -> None:
        if self._batch:
            data = b"".join(self._batch)
            self._batch.clear()
            self._frames.send_packed(data)

    def wait_until_opened(self, seconds: float) -> None:
        """Block until all destinations are open, for at most ``seconds``."""
        while not self._opened and not self._frames.closed and self._frames.exchange(seconds):
            pass

    def drain(self, seconds: float) -> bool:
        """Block until all is written; return False if no data is accepted for ``seconds``."""
        self._send_batch()
        while self._unwritten:
            if not self._frames.exchange(seconds):
                return False
        return True

    def close(self) -> None:
        """End the child as soon as all is written, without blocking."""
        self._closing = True
        if not self._unwritten and not self._frames.closed:
            self._frames.close()
            pids.discard(self._pid)

    def _receive(self, message: dict[str, Any]) -> None:
        self._opened = self._opened or "opened" in message
        self._unwritten -= message.get("written", 0)
        if "error" in message:
            self._failed(message["number"], message["error"], not self._opened)
        if self._closing:
            self.close()

    def _end(self) -> None:
        """Handle the end of the child, which something has killed."""
        self._unwritten = 0
        pids.discard(self._pid)
        for number in range(len(self._destinations)):
            self._failed(number, "its writer was killed", False)


class StandardStreams:
    """Standard output and standard error, each written by a process of its own unless both are the same file."""

    def __init__(self, loop: EventLoop) -> None:
        self._broken: set[str] = set()
        groups = [["stdout", "stderr"]] if _same(1, 2) else [["stdout"], ["stderr"]]
        self._writers: dict[str, tuple[OutputWriter, int]] = {}
        for group in groups:
            writer = OutputWriter(
                loop,
                [{"stdout": 1, "stderr": 2}[name] for name in group],
                lambda number, _why, _opening, group=group: self._broken.add(group[number]),  # type: ignore[misc]
            )
            self._writers.update({name: (writer, number) for number, name in enumerate(group)})

    @property
    def pending(self) -> int:
        return max(writer.pending for writer, _ in self._writers.values())

    def write(self, stream: str, text: str) -> None:
        """Write to a stream in its encoding; without a reader, the text is lost and the job continues."""
        if stream not in self._broken:
            writer, number = self._writers[stream]
            encoding = getattr(getattr(sys, f"__{stream}__"), "encoding", None) or "utf-8"
            writer.write(number, text.encode(encoding, "backslashreplace"))

    def write_bytes(self, stream: str, data: bytes) -> None:
        """Write to a stream, as `write` does, but unchanged."""
        if stream not in self._broken:
            writer, number = self._writers[stream]
            writer.write(number, data)

    def flush(self) -> None:
        """Block until all is written, or nothing is accepted for a while; for the end of the process."""
        out, err = (self._writers[name][0] for name in ("stdout", "stderr"))
        if not out.drain(_STREAM_SECONDS):
            text = f"standard output accepts no data: {out.pending:,} bytes are lost"
            self.write("stderr", f"torchnet: {text}\n")
        if err is not out:
            err.drain(_STREAM_SECONDS)


def _same(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:  # closed
        return False


# -- in the child ----------------------------------------------------------------------------------------------------


def _run(
    channel: socket.socket, destinations: Sequence[str | int], late: Collection[int], parent: int
) -> NoReturn:
    try:
        gc.disable()  # it would close the agent's files, whose descriptors have other uses here
        signal.set_wakeup_fd(-1)
        # After the agent's end, write what has been sent, but do not wait for a reader for ever.
        signal.signal(signal.SIGUSR1, lambda *_: signal.alarm(_ORPHAN_SECONDS))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        if not namespaces.signal_with_parent(signal.SIGUSR1, parent):
            signal.alarm(_ORPHAN_SECONDS)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        _close_others(channel.fileno(), {one for one in destinations if isinstance(one, int)})
        _serve(destinations, late)
    except BaseException:  # the agent notices the end
        os._exit(1)
    os._exit(0)


def _close_others(channel: int, kept: set[int]) -> None:
    """Keep only the channel, as descriptor ``_CHANNEL``, and ``kept``, which are standard streams."""
    if channel != _CHANNEL:
        os.dup2(channel, _CHANNEL)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in {0, 1, 2} - kept:
        os.dup2(null, stream)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _CHANNEL:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(int(name))


def _serve(destinations: Sequence[str | int], late: Collection[int]) -> None:
    targets: dict[int, int] = {}
    waiting = set(late)

    def open_target(number: int) -> None:
        destination = destinations[number]
        try:
            targets[number] = destination if isinstance(destination, int) else _open(destination)
        except OSError as error:
            _send({"number": number, "error": error.strerror})

    for number in range(len(destinations)):
        if number not in waiting:
            open_target(number)
    _send({"opened": True})
    received = bytearray()
    while data := _receive():
        received += data
        for number, part in _cut(received):
            discarded = len(part)
            if number in waiting:
                waiting.remove(number)
                open_target(number)
            if number in targets:
                try:
                    _write(targets[number], part)
                    continue
                except _WriteError as error:
                    discarded = error.unwritten
                    del targets[number]
                    _send({"number": number, "error": error.why})
            _send({"written": discarded})


class _WriteError(Exception):
    def __init__(self, why: str, unwritten: int) -> None:
        self.why = why
        self.unwritten = unwritten


def _open(path: str) -> int:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)


def _cut(received: bytearray) -> list[tuple[int, bytearray]]:
    """Remove complete frames, and return their data; adjacent frames of one destination are joined."""
    found: list[tuple[int, bytearray]] = []
    start = 0
    while len(received) - start >= _HEADER.size:
        number, length = _HEADER.unpack_from(received, start)
        end = start + _HEADER.size + length
        if end > len(received):
            break
        part = received[start + _HEADER.size : end]
        if found and found[-1][0] == number:
            found[-1][1].extend(part)
        else:
            found.append((number, part))
        start = end
    del received[:start]
    return found


def _write(descriptor: int, data: bytearray) -> None:
    rest = memoryview(data)
    while rest:
        try:
            count = os.write(descriptor, rest[:_WRITE])
        except BlockingIOError:  # another process has set O_NONBLOCK on the shared description
            select.select([], [descriptor], [])
            continue
        except OSError as error:
            raise _WriteError(error.strerror or str(error), len(rest)) from None
        rest = rest[count:]
        _send({"written": count})


def _receive() -> bytes:
    try:
        return os.read(_CHANNEL, _READ)
    except ConnectionResetError:  # the agent was killed before it read the last acknowledgement
        return b""


def _send(message: dict[str, Any]) -> None:
    rest = pack(message)
    with contextlib.suppress(OSError):  # the agent has been killed: write what it has sent
        while rest:
            rest = rest[os.write(_CHANNEL, rest) :]
