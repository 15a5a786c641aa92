"""The program that holds a local job's nodes.

`torchnet.local.supervisor_process` executes it, and sends its input over an inherited socket.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from torchnet.local.control_messages import LENGTH, guarded, receive_sockets


def run(descriptor: int) -> NoReturn:
    """Run the supervisor; ``descriptor`` is its end of the socket to the launcher."""
    # The launcher's thread may block signals or ignore SIGCHLD; both are inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    guarded(control, lambda: _run(control))


def _run(control: socket.socket) -> NoReturn:
    # Imported here, so that the launcher receives what an import raises.
    from torchnet.agent import agent
    from torchnet.launcher.loopback_source import LoopbackSource
    from torchnet.local import loopback, sandbox, topology
    from torchnet.local.channel_reporter import ChannelReporter
    from torchnet.local.faults import InjectedFaults
    from torchnet.local.supervisor_input import SupervisorInput
    from torchnet.network.address_sources import AddressSource, MultusStatus

    (size,) = LENGTH.unpack(_receive(control, LENGTH.size))
    given = SupervisorInput.loads(_receive(control, size))
    specs, shape = given.specs, given.shape
    sockets = receive_sockets(control, len(specs))
    rails, ipv4 = len(specs[0].attachments), specs[0].family == "ipv4"
    planned = [topology.node(spec.node_rank, rails, ipv4=ipv4) for spec in specs] if shape else []
    nodes = InjectedFaults(shape.faults).with_addresses(planned) if shape else []

    def source(rank: int) -> AddressSource:
        """Return the node's address source: what Multus would write for its pod, and for rank 0's."""
        if shape is None:
            return LoopbackSource(rank, given.loopback_block)
        own, rank0 = (topology.network_status_annotation(node) for node in (nodes[rank], nodes[0]))
        return MultusStatus(own, rank0, specs[rank].attachments)

    def run_node(rank: int) -> int:
        control.close()
        for descriptor in sockets:
            if descriptor != sockets[rank]:
                os.close(descriptor)
        own = socket.socket(fileno=sockets[rank])
        return agent.run(specs[rank], source(rank), lambda loop, worker: ChannelReporter(loop, own, worker))

    if shape is None:
        loopback.supervise(control, given.launcher, len(specs), run_node, sockets)
    sandbox.supervise(control, given.launcher, nodes, run_node, shape, sockets)


def _receive(control: socket.socket, size: int) -> bytes:
    """Receive exactly ``size`` bytes; exit if the launcher has ended."""
    data = bytearray()
    while len(data) < size:
        part = control.recv(min(size - len(data), 1 << 20))
        if not part:
            os._exit(1)
        data += part
    return bytes(data)
