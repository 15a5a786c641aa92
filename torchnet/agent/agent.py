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
from torchnet.agent.rendezvous import Endpoint
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stop_signals import handled, interrupted, second_interrupt
from torchnet.agent.worker import Worker
from torchnet.network.address_sources import AddressSource
from torchnet.network.peer_table import PeerTable

_STEP_SECONDS = 0.001  # lets the loop handle what has arrived


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
    received: list[int] = []

    def notice(text: str) -> None:
        events.send({"event": "notice", "node": spec.node_rank, "level": "warning", "text": text})

    def stop(number: int) -> None:
        received.append(number)
        if received.count(signal.SIGINT) > 1:
            worker.kill()
        elif worker.interrupt(interrupted(number)) and number == signal.SIGINT:
            notice(second_interrupt(spec.grace))

    for number in handled(spec.signals):
        loop.on_signal(number, lambda number=number: stop(number))  # type: ignore[misc]
    if spec.own_console and spec.runtime == "agent" and spec.nnodes > 1:
        text = "Ctrl-Z has no effect on a job of several hosts: the others would take this one for lost"
        loop.on_signal(signal.SIGTSTP, lambda: notice(text))
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
