"""Workers and their accounts to make receipts of."""

from __future__ import annotations

from typing import Any

from torchnet.agent.accounting import HEADER_BYTES, Flow, TrafficTotals
from torchnet.agent.events import Failure
from torchnet.agent.receipt import job, worker
from torchnet.agent.spec import AgentSpec
from torchnet.linux.protocol_counters import ProtocolCounters
from torchnet.linux.rtnetlink import Counters
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

MB = 1_000_000
NONE = ProtocolCounters(0, 0, 0, 0, 0)


def spec(rank: int = 0, nnodes: int = 2, nproc: int = 2, **fields: Any) -> AgentSpec:
    return AgentSpec("run-1", nnodes, nproc, ("train.py",), node_rank=rank, name=f"node-{rank}", **fields)


def rails(count: int = 1) -> tuple[Rail, ...]:
    return tuple(
        Rail(
            n,
            NetworkAttachment("default", f"backend-{n}", f"net{n + 1}"),
            f"net{n + 1}",
            f"fd00:{n}::1",
            6,
            64,
            9000,
        )
        for n in range(count)
    )


def table(nnodes: int = 2) -> PeerTable:
    return PeerTable(
        tuple(
            PeerRow(n, f"node-{n}", f"u{n}", (PeerRail("net1", f"fd00::{n}", 9000),)) for n in range(nnodes)
        )
    )


def flow(megabytes: float, segments: int = 0) -> Flow:
    return Flow(int(megabytes * MB), int(megabytes * MB), segments, segments)


def counted(megabytes: float, segments: int = 0) -> Counters:
    count = int(megabytes * MB) + segments * HEADER_BYTES
    return Counters(count, count)


def traffic(
    peers: dict[tuple[int, str], Flow], counters: dict[str, Counters], **fields: Any
) -> TrafficTotals:
    return TrafficTotals(**{"peers": peers, "counters": counters, "protocols": NONE, **fields})


def made(
    rank: int, peers: dict[tuple[int, str], Flow], *, count: int = 1, complete: bool = True
) -> dict[str, Any]:
    """A worker's receipt whose counters agree with its connections."""
    seen: dict[str, Counters] = {f"net{n + 1}": Counters(0, 0) for n in range(count)} | {
        "eth0": Counters(0, 0)
    }
    for (_, name), one in peers.items():
        seen[name] = Counters(
            seen[name].sent_bytes + one.sent_bytes, seen[name].received_bytes + one.received_bytes
        )
    codes = {str(r): 0 for r in spec(rank).ranks}
    return worker(spec(rank), table(), rails(count), traffic(peers, seen, complete=complete), codes, [])


def whole(
    *receipts: dict[str, Any], failure: Failure | None = None, restarts: int = 0, **fields: Any
) -> dict[str, Any]:
    made_of = spec(**{"nnodes": 2, **fields})
    return job(
        spec=made_of,
        receipts=receipts,
        attachments=[rails()[0].attachment],
        failure=failure,
        began=1e9,
        restarts=restarts,
        now=1e9 + 12.3456,
    )
