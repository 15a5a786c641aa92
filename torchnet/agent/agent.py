"""The agent: runs one worker, from address discovery to its receipt.

    discover ── join ── preflight ── environment ── run ── receipt
    └───────── prepare ─────────┘    └────────── work ───────────┘   (in a pod, a container each)

The same code runs in a local node and in a pod; only the address source and the destination of events differ.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure, Reporter
from torchnet.agent.spec import AgentSpec
from torchnet.agent.worker import Worker
from torchnet.network.address_sources import AddressSource
from torchnet.network.peer_table import PeerTable

_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def run(
    spec: AgentSpec,
    source: AddressSource,
    reporter: Callable[[EventLoop, Callable[[], Worker]], Reporter],
    verified: PeerTable | None = None,
) -> int:
    """Run one worker to completion.

    Args:
        reporter: creates the reporter from the loop and a function that returns the worker, for commands to it.
        verified: in phase work, the table that the prepare container verified.

    Returns:
        The worker's exit code; the README lists the codes.
    """
    loop = EventLoop()
    holder: list[Worker] = []
    told = reporter(loop, lambda: holder[0])
    worker = Worker(loop, spec, source, told, verified)
    holder.append(worker)
    for number, code in _SIGNALS.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            continue  # as nohup requests
        loop.on_signal(number, lambda number=number, code=code: worker.interrupt(by_signal(number, code)))  # type: ignore[misc]
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    loop.later(0, worker.begin)
    try:
        loop.run()
    finally:
        worker.close()
    told.flush()
    return worker.code


def by_signal(number: int, code: int) -> Failure:
    """Return the failure for a signal that stops torchnet."""
    return Failure("interrupted", f"stopped by {signal.Signals(number).name}", code, at=time.time())
