"""Messages between the launcher and the supervisor's processes.

The launcher sends the input (`torchnet.local.supervisor_input`), preceded by its length. The supervisor's processes
send one JSON object per line:

    unshared: true                    the supervisor has a user namespace: write its ID maps, then send b"mapped\\n"
    init: PID                         of the process that holds the namespaces, as seen by the launcher
    ready: true                       all nodes exist
    node: RANK, status: CODE          a node has ended
    refused: [STEP, ERRNO, TEXT]      the machine refuses a step of the set-up
    broken: TEXT                      the set-up failed for another reason
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, NoReturn

LENGTH = struct.Struct("!I")


def send(control: socket.socket, message: dict[str, Any]) -> None:
    """Send a message; do nothing if the launcher has ended."""
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(message).encode() + b"\n")


def guarded(control: socket.socket, action: Callable[[], NoReturn]) -> NoReturn:
    """Run a forked child's part; never return into the code of the process that forked it."""
    try:
        action()
    except BaseException as error:  # the launcher raises it
        send(control, {"broken": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(70)
