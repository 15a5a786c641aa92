"""Which workers rank 0 admits: those of this run that have a free node rank and usable addresses (pure)."""

from __future__ import annotations

import ipaddress

from torchnet.agent.messages import JoinRequest
from torchnet.agent.spec import AgentSpec
from torchnet.network.peer_table import PeerRow


def join_request(spec: AgentSpec, row: PeerRow) -> JoinRequest:
    """Return the request of the worker with ``row``."""
    return JoinRequest(row, spec.run_id, spec.nnodes, spec.start)


def rejection(
    request: JoinRequest, spec: AgentSpec, present: PeerRow | None, *, late: bool, claimed: bool = False
) -> str:
    """Return why a worker that has the token is not admitted, or "".

    Args:
        spec: rank 0's.
        present: the worker that has the node rank already; the same worker may join again.
        late: the job has started.
        claimed: the connection does not come from the rails' addresses, but from the frontend.
    """
    row = request.row
    rank = row.node_rank
    if request.run != spec.run_id:
        return f"it belongs to run {request.run}, this is run {spec.run_id}"
    if request.nnodes != spec.nnodes:
        return f"it was started with --nnodes {request.nnodes}, rank 0 with --nnodes {spec.nnodes}"
    if request.start != spec.start:
        return f"it belongs to start attempt {request.start or '?'}, this is {spec.start or '?'}"
    if not 0 <= rank < spec.nnodes:
        return f"its node rank {rank} is not below the job's {spec.nnodes} nodes"
    if late:
        return "the job has already started"
    if present is not None and present.uid != row.uid:
        return f"node rank {rank} is taken by {present.name} ({present.rails[0].address})"
    for rail in row.rails if claimed and not spec.loopback else ():
        if not _unicast(rail.address):
            return f"its rail {rail.interface} has {rail.address}, which other hosts cannot reach"
    return ""


def _unicast(text: str) -> bool:
    """Return whether an address can identify a host in a network: a worker's own claim may be anything."""
    address = ipaddress.ip_address(text)
    return not (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    )
