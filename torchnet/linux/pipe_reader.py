"""A process that reads what others go on writing."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Sequence

_READ = 64 << 10
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def read_on(pipes: Sequence[int]) -> None:
    """Read what is written to ``pipes`` until nobody has them open for writing, and forget it, in a process of its own.

    The descriptors are closed in this one. The other has nothing else open: whoever reads torchnet's output sees its
    end, and torchnet's connections close.
    """
    if not pipes:
        return
    if os.fork():
        for pipe in pipes:
            os.close(pipe)
        return
    try:
        os.setsid()  # it gets no Ctrl-C
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nothing, standard)
        for file in map(int, os.listdir("/proc/self/fd")):
            if file > 2 and file not in pipes:
                with contextlib.suppress(OSError):  # that of the folder
                    os.close(file)
        poll = select.poll()
        for pipe in pipes:
            poll.register(pipe, select.POLLIN)
        left = set(pipes)
        while left:
            for pipe, _ in poll.poll():
                if not os.read(pipe, _READ):
                    poll.unregister(pipe)
                    left.discard(pipe)
    finally:
        os._exit(0)
