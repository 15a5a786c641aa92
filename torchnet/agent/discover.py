"""Phase 1: this worker's own rails, from the address source and from the kernel, which must agree."""

from __future__ import annotations

import os
import socket
import time

from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError
from torchnet.kernel import links
from torchnet.network.select import Rail, TentativeError, select_rail
from torchnet.network.sources import AddressSource
from torchnet.network.table import RailRow, Row

# Duplicate address detection takes 1.8 s on a fresh macvlan; a kernel that is asked for more probes takes longer.
DETECTION_SECONDS = 6.0
_POLL_SECONDS = 0.05
_OTHER_ADDRESSES = 32  # link-local ones included; a bound for hosts with very many


def discover(spec: AgentSpec, source: AddressSource) -> tuple[Rail, ...]:
    """The rails of this worker, in order; waits for duplicate address detection where the kernel runs it.

    Raises:
        NetworkError: a rail is missing or cannot be used; all that are wrong, each with its fix.
    """
    if spec.loopback:
        return _on_loopback(source)
    deadline = time.monotonic() + DETECTION_SECONDS
    while True:
        entries = source.attachments()
        present = links.interfaces()
        rails: list[Rail] = []
        errors: list[NetworkError] = []
        for number, entry in enumerate(entries):
            interface = present.get(entry.interface or "")
            try:
                rails.append(select_rail(spec.name, number, entry.name, entry, interface, spec.family))
            except NetworkError as error:
                errors.append(error)
        if not errors:
            return tuple(rails)
        if not all(isinstance(error, TentativeError) for error in errors) or time.monotonic() > deadline:
            final = [error for error in errors if not isinstance(error, TentativeError)] or errors
            raise NetworkError(
                "\n".join(error.text for error in final), fix="\n".join(e.fix for e in final if e.fix)
            )
        time.sleep(_POLL_SECONDS)


def _on_loopback(source: AddressSource) -> tuple[Rail, ...]:
    """lo, as the user asked for: all of 127.0.0.0/8 is there without being listed, and none of it is a network."""
    (entry,) = source.attachments()
    lo = links.interfaces()["lo"]
    return (Rail(0, entry.name, lo.name, entry.ips[0], 4, 8, lo.mtu),)


def own_row(spec: AgentSpec, rails: tuple[Rail, ...]) -> Row:
    """What the others must know of this worker: its rails, and every other address that bytes could go to."""
    own = {rail.address for rail in rails}
    others = tuple(
        address.ip
        for name, interface in links.interfaces().items()
        if name != "lo" and not spec.loopback
        for address in interface.addresses
        if address.ip not in own
    )
    return Row(
        node_rank=spec.node_rank,
        name=spec.name,
        uid=f"{spec.name}/{os.getpid()}/{socket.gethostname()}",
        rails=tuple(RailRow(rail.interface, rail.address, rail.mtu) for rail in rails),
        eth0=others[:_OTHER_ADDRESSES],
    )
