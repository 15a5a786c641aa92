"""The agent: runs one worker, from address discovery to its receipt.

    discover ── join ── preflight ── environment ── run ── receipt

The same code runs in a local node and in a pod; only the address source and the destination of events differ. A pod's
init container has discovered before (torchnet.agent.preparation), and the training container does it again.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Reporter
from torchnet.agent.rendezvous import Endpoint
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stop_signals import handled, interrupted, second_interrupt
from torchnet.agent.worker import Worker
from torchnet.network.address_sources import AddressSource


def run(
    spec: AgentSpec,
    source: AddressSource,
    reporter: Callable[[EventLoop, Callable[[], Worker]], Reporter],
    frontend: Endpoint | None = None,
) -> int:
    """Run one worker to completion.

    Args:
        reporter: creates the reporter from the loop and a function that returns the worker, for commands to it.
        frontend: where the rendezvous listens; None: on rank 0's first rail.

    Returns:
        The worker's exit code; docs/exit-codes.md lists the codes.
    """
    loop = EventLoop()
    holder: list[Worker] = []
    events = reporter(loop, lambda: holder[0])
    worker = Worker(loop, spec, source, events, frontend)
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
    try:
        loop.run()
    finally:
        try:
            worker.close()
        finally:
            events.flush()
    return worker.code
