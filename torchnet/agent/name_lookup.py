"""How fast this host names its peers' addresses: PyTorch's store looks up the address of each connection."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

from torchnet.network.peer_table import PeerTable

_SECONDS = 0.3
_POLL_SECONDS = 0.005
_MOST = 16  # addresses; the others are of the same networks


def asked(table: PeerTable) -> list[str]:
    """Return addresses as the store looks them up: IPv4 ones mapped, since it listens on a socket of both families."""
    addresses = [rail.address for row in table.rows for rail in row.rails[:1]]
    return [one if ":" in one else f"::ffff:{one}" for one in addresses[:_MOST]]


def are_fast(addresses: Sequence[str], seconds: float = _SECONDS) -> bool:
    """Return whether look-ups of these addresses end soon, found or not. They run in a process that can be killed."""
    child = os.fork()
    if child == 0:
        try:
            signal.set_wakeup_fd(-1)
            for address in addresses:
                socket.getnameinfo((address, 0), 0)
        finally:
            os._exit(0)
    deadline = time.monotonic() + seconds
    while not _has_ended(child, os.WNOHANG):
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            _has_ended(child, 0)
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _has_ended(child: int, flags: int) -> bool:
    try:
        return os.waitpid(child, flags)[0] != 0
    except ChildProcessError:  # the agent waits for all of its children as soon as they end
        return True
