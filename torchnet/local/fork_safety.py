"""Protection from forks of the caller's other threads during a launch.

A forked process would keep copies of descriptors, and so hide the end of a node, of the launcher or of an exec from
whatever reads the other end.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref

lock = threading.RLock()
"""While a thread holds it, no other thread of Python forks."""
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def socketpair() -> tuple[socket.socket, socket.socket]:
    """Return a pair as of `socket.socketpair`, of which forked processes close their copies."""
    with lock:
        pair = socket.socketpair()
        _sockets.update(pair)
        return pair


def _close_copies() -> None:
    for sock in list(_sockets):
        sock.close()
    lock.release()


os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=_close_copies)
