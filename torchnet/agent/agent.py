"""The agent: runs one worker, from address discovery to its receipt.

    discover ── join ── preflight ── environment ── run ── receipt
    └───────── prepare ─────────┘    └────────── work ───────────┘   (in a pod, a container each)

The same code runs in a local node and in a pod; only the address source and the destination of events differ.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator

import torchnet.agent
import torchnet.linux
import torchnet.network
from torchnet.agent.bytecode_cache import compile_modules
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Reporter
from torchnet.agent.failures import interrupted
from torchnet.agent.rendezvous import Endpoint
from torchnet.agent.spec import AgentSpec
from torchnet.agent.worker import Worker
from torchnet.network.address_sources import AddressSource
from torchnet.network.peer_table import PeerTable

_STEP_SECONDS = 0.001  # lets the loop handle what has arrived

# All that torchelastic's agent handles: as PID 1 of a container, a process ignores those that it does not handle. Some
# images stop their containers by SIGQUIT.
_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGQUIT: 131}


def run(
    spec: AgentSpec,
    source: AddressSource,
    reporter: Callable[[EventLoop, Callable[[], Worker]], Reporter],
    verified: PeerTable | None = None,
    frontend: Endpoint | None = None,
) -> int:
    """Run one worker to completion.

    Args:
        reporter: creates the reporter from the loop and a function that returns the worker, for commands to it.
        verified: in phase work, the table that the prepare container verified.
        frontend: where the rendezvous listens; None: on rank 0's first rail.

    Returns:
        The worker's exit code; docs/exit-codes.md lists the codes.
    """
    loop = EventLoop()
    holder: list[Worker] = []
    events = reporter(loop, lambda: holder[0])
    worker = Worker(loop, spec, source, events, verified, frontend)
    holder.append(worker)
    for number, code in _SIGNALS.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            continue  # as nohup requests
        loop.on_signal(number, lambda number=number, code=code: worker.interrupt(interrupted(number, code)))  # type: ignore[misc]
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    loop.later(0, worker.begin)
    if spec.phase == "prepare":
        # While it waits for the others: the training container starts sooner.
        packages = torchnet.agent, torchnet.network, torchnet.linux
        steps = itertools.chain(*map(compile_modules, packages))
        loop.later(_STEP_SECONDS, lambda: _step(loop, steps))
    try:
        loop.run()
    finally:
        try:
            worker.close()
        finally:
            events.flush()
    return worker.code


def _step(loop: EventLoop, steps: Iterator[None]) -> None:
    """Take one step, and the others one by one in later rounds of the loop."""
    for _ in steps:
        loop.later(_STEP_SECONDS, lambda: _step(loop, steps))
        break
