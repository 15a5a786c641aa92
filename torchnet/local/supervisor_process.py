"""The launcher's side of the supervisor: start it, answer its requests, and end it with all nodes.

The supervisor is executed, not forked: the caller of `torchnet.launch` may have threads, locks and CUDA in use.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from torchnet.errors import TorchnetError, UsageError
from torchnet.local import fork_safety, namespace_errors
from torchnet.local.control_messages import LENGTH, send_sockets

# Not a path: torchnet may be in a zip archive. The user's paths follow the standard library.
_PROGRAM = """
import sys
sys.path += sys.argv[2:]
from torchnet.local import supervisor
supervisor.run(int(sys.argv[1]))
"""
_ROOT = str(Path(__file__).parents[2])
_KILL_SECONDS = 10.0
_INTERPRETER = "set sys.executable to the path of a Python interpreter"
_FIXES = {
    errno.ENOENT: _INTERPRETER,
    errno.EACCES: _INTERPRETER,
    errno.E2BIG: "unset large environment variables: env | wc -c",
}


class ChildProcess(Protocol):
    """The part of `subprocess.Popen` that the launcher needs."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...


class Supervisor:
    """The running supervisor, seen from the launcher; with it end all nodes.

    Args:
        process: The supervisor's process.
        control: The socket to it, on which it reports, one JSON line each.
    """

    def __init__(self, process: ChildProcess, control: socket.socket) -> None:
        self.process = process
        self.control = control
        self.init_pid = 0
        """Of the process that holds the namespaces; 0 on loopback."""
        self._unread = b""

    def messages(self, *, wait: bool = True) -> Iterator[dict[str, Any]]:
        """Yield its messages as they arrive; without ``wait``, only those that have arrived.

        Raises:
            RefusedError: the machine refused a step of the set-up.
            TorchnetError: the set-up failed for another reason.
        """
        while True:
            while b"\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\n")
                message = json.loads(line)
                if "refused" in message:
                    step, code, text = message["refused"]
                    raise namespace_errors.explain(step, OSError(code, text))
                if "broken" in message:
                    raise TorchnetError(f"the local networks could not be built: {message['broken']}")
                yield message
            try:
                data = self.control.recv(64 << 10, 0 if wait else socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                return
            if not data:
                return
            self._unread += data

    def kill(self) -> None:
        """Kill all nodes; return when the kernel has removed them."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.control.close()

    def complaint(self) -> TorchnetError | None:
        """Return why a node could not be set up or why the supervisor was killed; None otherwise."""
        try:
            for _ in self.messages(wait=False):
                pass
        except TorchnetError as error:
            return error
        code = self.process.poll()
        return _ended_by(code) if code is not None else None


@contextlib.contextmanager
def spawned_early(wanted: bool) -> Iterator[Supervisor | None]:
    """Execute the supervisor, so that it loads its modules beside the caller's work, and end it with the context.

    None if not ``wanted``, and if it cannot be executed: `spawn` then says why, if the job needs it.
    """
    early = None
    if wanted:
        with contextlib.suppress(UsageError):
            early = spawn()
    try:
        yield early
    finally:
        if early is not None:
            early.kill()


def spawn() -> Supervisor:
    """Execute the supervisor, which then waits for its input.

    Raises:
        UsageError: The interpreter cannot be executed.
    """
    # Isolated (-I) and with the standard library first on the path, so that no file of the user's folders (json.py) is
    # imported instead of a module of the same name. The environment stays as it is: the script gets it.
    paths = dict.fromkeys([_ROOT, *(os.path.abspath(path) for path in sys.path if path)])
    flags = ["-I", "-S", f"-Xutf8={sys.flags.utf8_mode}", *(["-B"] if sys.dont_write_bytecode else [])]
    ours, theirs = fork_safety.socketpair()
    with theirs, fork_safety.lock:  # until the exec, which Popen detects by the end of a pipe
        try:
            process = subprocess.Popen(
                [sys.executable or "", *flags, "-c", _PROGRAM, str(theirs.fileno()), *paths],
                pass_fds=[theirs.fileno()],
                # Ctrl-C and a closed terminal only signal torchnet, which then stops the job in order.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            text = f"cannot start Python, which is {sys.executable!r} here: {error.strerror}"
            raise UsageError(text, fix=_FIXES.get(error.errno or 0, "ulimit -a")) from None
    return Supervisor(process, ours)


def start(
    supervisor: Supervisor, document: bytes, sockets: Sequence[socket.socket], *, sandbox: bool
) -> None:
    """Have the supervisor start the nodes; return once they exist.

    Args:
        document: Its input, from `SupervisorInput.dumps`.
        sockets: The agents' ends of their channels, in node order.
        sandbox: Whether it creates namespaces.

    Raises:
        RefusedError: the kernel, or a policy, refuses namespaces; names the mechanism and a fix.
    """
    with contextlib.suppress(OSError):  # it has ended: set_up() raises
        # It needs as many open files as the launcher, which may have raised its limit since.
        resource.prlimit(
            supervisor.process.pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)
        )
        supervisor.control.sendall(LENGTH.pack(len(document)) + document)
        send_sockets(supervisor.control, sockets)
    set_up(supervisor, sandbox=sandbox)


def set_up(supervisor: Supervisor, *, sandbox: bool = True) -> None:
    """Answer the supervisor's requests until all nodes exist.

    Raises:
        RefusedError: see :func:`start`.
        TorchnetError: the supervisor was killed.
        UsageError: it could not run, for example because ``sys.executable`` is a program that embeds Python.
    """
    missing = {"init", "ready"} if sandbox else {"ready"}
    for message in supervisor.messages():
        if "unshared" in message:
            try:
                write_id_maps(supervisor.process.pid)
            except OSError as error:
                raise namespace_errors.explain("uid_map", error) from error
            with contextlib.suppress(OSError):  # it has ended
                supervisor.control.sendall(b"mapped\n")
        elif "init" in message:
            supervisor.init_pid = message["init"]
        missing -= message.keys()
        if not missing:
            return
    code = supervisor.process.wait(_KILL_SECONDS)
    text = f"{sys.executable!r} exited with code {code} before the nodes were ready"
    raise _ended_by(code) or UsageError(text, fix=_INTERPRETER)


def write_id_maps(pid: int) -> None:
    """Write the ID maps of process ``pid``'s new user namespace.

    Root maps every ID that exists here onto itself, so that files keep their owners. Any other user may map
    only its own ID: its files stay its own, and those of others appear as nobody's.

    Raises:
        OSError: the kernel refused, e.g. because a policy removed this process's capabilities.
    """
    if os.geteuid() == 0:
        try:
            _write(pid, "uid_map", _whole("uid_map"))
            _write(pid, "gid_map", _whole("gid_map"))
            return
        except PermissionError:
            pass  # without CAP_SETUID root is like any other user, and its own ID needs CAP_SETFCAP
    _write(pid, "setgroups", "deny")
    _write(pid, "uid_map", f"{os.geteuid()} {os.geteuid()} 1")
    _write(pid, "gid_map", f"{os.getegid()} {os.getegid()} 1")


def _whole(name: str) -> str:
    with open(f"/proc/self/{name}") as file:
        lines = [line.split() for line in file]
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in lines)


def _write(pid: int, name: str, text: str) -> None:
    # The kernel accepts a map only in a single write.
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _ended_by(code: int) -> TorchnetError | None:
    number = code - 128 if code > 128 else -code
    if number <= 0:
        return None  # a normal end, after all nodes
    return TorchnetError(
        f"the supervisor, and with it all nodes, was killed by {signal.Signals(number).name}; "
        "the kernel does that when memory runs out",
        fix="dmesg | tail",
    )
