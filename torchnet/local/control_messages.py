"""Messages between the launcher and the supervisor's processes.

The launcher sends the input (`torchnet.local.supervisor_input`), preceded by its length, and then the agents' ends of
their channels. The supervisor's processes send one JSON object per line:

    unshared: true                    the supervisor has a user namespace: write its ID maps, then send b"mapped\\n"
    init: PID                         of the process that holds the namespaces, as seen by the launcher
    ready: true                       all nodes exist
    node: RANK, status: CODE          a node has ended
    refused: [STEP, ERRNO, TEXT]      the machine refuses a step of the set-up
    broken: TEXT                      the set-up failed for another reason
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

LENGTH = struct.Struct("!I")
_MOST_FILES = 253  # per message: SCM_MAX_FD in linux/include/net/scm.h


def send(control: socket.socket, message: dict[str, Any]) -> None:
    """Send a message; do nothing if the launcher has ended."""
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(message).encode() + b"\n")


def send_sockets(control: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Send the sockets' descriptors, which stay open here."""
    for first in range(0, len(sockets), _MOST_FILES):
        socket.send_fds(control, [b"s"], [sock.fileno() for sock in sockets[first : first + _MOST_FILES]])


def receive_sockets(control: socket.socket, count: int) -> list[int]:
    """Receive ``count`` sockets' descriptors, which no executed program inherits.

    Raises:
        EOFError: The launcher has ended.
        OSError: This process may not open so many files.
    """
    found: list[int] = []
    while len(found) < count:
        data, descriptors, flags, _ = socket.recv_fds(control, 1, _MOST_FILES)
        if not data:
            raise EOFError("the launcher has ended")
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        found += descriptors
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return found


def guarded(control: socket.socket, action: Callable[[], NoReturn]) -> NoReturn:
    """Run a forked child's part; never return into the code of the process that forked it."""
    try:
        action()
    except BaseException as error:  # the launcher raises it
        send(control, {"broken": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(70)
