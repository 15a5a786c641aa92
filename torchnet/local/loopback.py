"""``--network loopback``: the same agents on addresses of 127.0.0.0/8, without namespaces.

Such a run proves nothing about a network, and the launcher says so.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from torchnet import constants
from torchnet.agent import process_tree
from torchnet.errors import RefusedError
from torchnet.launcher.loopback_source import address
from torchnet.linux import namespaces
from torchnet.local.control_messages import send
from torchnet.local.launcher_watch import LauncherWatch


def supervise(
    control: socket.socket, launcher: int, count: int, main: Callable[[int], int], node_files: Sequence[int]
) -> NoReturn:
    """Run ``main(rank)`` for each of ``count`` nodes, and end everything that they leave behind.

    Args:
        control: the socket to the launcher (see `torchnet.local.control_messages`).
        launcher: the launcher's process ID.
        node_files: descriptors for the nodes only.
    """
    watch = LauncherWatch(control, launcher)
    namespaces.adopt_orphans()  # there is no PID namespace to collect them
    supervisor = os.getpid()
    nodes = []
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            _run(rank, supervisor, main)
        nodes.append(pid)
    for descriptor in node_files:
        os.close(descriptor)
    send(control, {"ready": True})
    watch.wait(nodes)
    process_tree.kill_all()
    os._exit(0)


def _run(rank: int, supervisor: int, main: Callable[[int], int]) -> NoReturn:
    code = 70
    try:
        os.setsid()
        # Not SIGKILL: the agent must first end the processes that it started.
        namespaces.die_with_parent(signal.SIGTERM, supervisor)
        code = main(rank)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code & 0xFF)


def reserve_block() -> tuple[int, socket.socket]:
    """Reserve a block for a job: jobs on one machine all use the same port.

    Returns:
        The block, and a socket which reserves it in this network namespace until it is closed: two launchers that look
        at the same time cannot choose the same block, although no node listens yet.

    Raises:
        RefusedError: no block is free.
    """
    why: str | None = None
    for block in random.sample(range(1, 255), 254):
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0torchnet-loopback-{block}")  # abstract (unix(7)): ends with the process
            with socket.socket(type=socket.SOCK_DGRAM) as probe:
                probe.bind((address(0, block), constants.JOIN_PORT))
        except OSError as error:
            reservation.close()
            why = error.strerror
            continue
        return block, reservation
    raise RefusedError(
        f"no address of 127.0.0.0/8 is free for the join at port {constants.JOIN_PORT}: {why}", fix="ss -uln"
    )
