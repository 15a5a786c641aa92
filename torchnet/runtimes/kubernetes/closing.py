"""The console's end: who reads slowly is waited for, but not against a signal."""

from __future__ import annotations

import select

from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.ui.console import Console

_STOPPED_SECONDS = 2.0  # for a reader who does not read, where the job or its launcher was to end
_LOOK_MILLISECONDS = 50  # between two looks for signals


def close(console: Console, signals: Signals, *, stopped: bool = False) -> None:
    """Close it when all is read. After a signal, be it before or meanwhile, and if ``stopped``, after two seconds."""
    console.finish()
    while console.pending and not signals.came and not stopped:
        ready = select.poll()
        for descriptor in console.waiting():
            ready.register(descriptor, select.POLLOUT)
        ready.poll(_LOOK_MILLISECONDS)
        console.push()
    console.close(_STOPPED_SECONDS if signals.came or stopped else None)
