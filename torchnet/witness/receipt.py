"""The receipt of one or several witnesses: the records' bytes assigned to peers, in the shape of a job's receipt.

A node of the receipt is a host, and a rank is the command on it. Each node holds its record (``witness``), so that the
receipts of all hosts can be merged, and merged again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torchnet.agent.accounting import HEADER_BYTES, Flow
from torchnet.agent.receipt_shape import (
    InterfaceBytes,
    NodeReceipt,
    PeerBytes,
    Proof,
    RailBytes,
    RankResult,
    job_receipt,
)
from torchnet.text import listed, printable
from torchnet.units import counted, percent, size
from torchnet.witness.host_record import ConnectionGroup, HostRecord
from torchnet.witness.share import SLACK_BYTES, Tally, bounds

_TOLERANCE = 0.02  # allowed difference of sockets and interface counters
_EXACT = 0.001  # a difference of the bounds up to which the share counts as measured
_LISTED = 8
_ENOUGH_BYTES = 10_000_000  # of TCP with peers over the backend, at which an unused RDMA device is remarkable

SHORT_LIVED = "in connections that ended before their process was seen"
UNNAMED = "with addresses that may be a peer's (--peers)"
NOT_TCP = "not in TCP connections"  # followed by the interface
RDMA = "over RDMA, which is counted by port"


class Peers:
    """The hosts by address: from the records of all hosts, from ``--peers``, and as members of the networks."""

    def __init__(self, records: Sequence[HostRecord]) -> None:
        self._hosts: dict[str, str] = {}
        self.silent: set[str] = set()
        """Peers that exchanged bytes and have no record, so that their other addresses are not known."""
        self._recorded = {record.host for record in records}
        for record in records:
            self._hosts.update(record.peers)
        for record in records:
            for addresses in record.addresses.values():
                self._hosts.update(dict.fromkeys(addresses, record.host))
        self.named = len(self._recorded) > 1 or any(record.peers for record in records)
        """Whether hosts are known by more than their addresses in the networks."""

    def exchanged(self, peer: str) -> None:
        """Note that bytes were exchanged with a peer."""
        if peer not in self._recorded:
            self.silent.add(peer)

    def name(self, record: HostRecord, remote: str) -> str | None:
        """Return the peer that has an address, or None."""
        if remote in self._hosts:
            return self._hosts[remote]
        try:
            ip = ipaddress.ip_address(remote)
        except ValueError:
            return None
        # A member of the network; which host it is, only that host's record tells.
        networks = map(ipaddress.ip_network, record.prefixes)
        return remote if any(ip.version == one.version and ip in one for one in networks) else None


def receipt_of(records: Sequence[HostRecord]) -> dict[str, Any]:
    """Return the receipt of the records' hosts (torchnet.receipt/1, with ``backend_share_high`` and further fields)."""
    records = sorted(records, key=lambda record: (record.host, record.began))
    peers, tally = Peers(records), Tally()
    nodes = [_node(record, number, peers, tally) for number, record in enumerate(records)]
    low, high, proof, why = _verdict(records, peers, tally)
    failed = next((record for record in records if record.exit_code), None)
    code = failed.exit_code if failed else 0
    reason = f"the command on {failed.host} exited with code {code}" if failed else "done"
    receipt = job_receipt(
        run_id=records[0].command,
        runtime="command",
        network="host",
        nnodes=len(records),
        nproc_per_node=1,
        code=code,
        reason=reason,
        failure=None,
        began=min(record.began for record in records),
        ended=max(record.ended for record in records),
        restarts=0,
        share=(low, proof, why),
        min_share=None,
        ranks=[_rank(number, record) for number, record in enumerate(records)],
        rails=_rails(records, nodes),
        nodes=[cast(NodeReceipt, node) for node in nodes],
        findings=[text for node in nodes for text in node["findings"]],
    )
    doubts = {**tally.perhaps_backend, **tally.perhaps_elsewhere}
    return {**receipt, "backend_share_high": high, "unattributed_bytes": doubts}


def _rank(number: int, record: HostRecord) -> RankResult:
    return {"rank": number, "local_rank": 0, "node": record.host, "exit_code": record.exit_code}


def _node(record: HostRecord, number: int, peers: Peers, tally: Tally) -> dict[str, Any]:
    """Return a host's part, and add its bytes to the tally."""
    by_peer: dict[tuple[str, str], Flow] = {}
    others = 0
    for flow in record.flows:
        peer = peers.name(record, flow.remote) if flow.owner != "other" else None
        on_backend = flow.interface in record.backend
        count = flow.flow.total
        if flow.owner == "unknown":
            if peer or not peers.named:
                tally.doubt(on_backend, SHORT_LIVED, count)
        elif flow.owner == "job" and peer is None:
            others += count
            if not peers.named:
                tally.doubt(on_backend, UNNAMED, count)
        elif peer is not None:
            peers.exchanged(peer)
            by_peer.setdefault((peer, flow.interface or "?"), Flow()).merge(flow.flow)
            tally.backend += count if on_backend else 0
            tally.elsewhere += 0 if on_backend else count
    for port, moved in record.rdma.items():
        tally.doubt(port.partition("/")[0] in record.rdma_backend, RDMA, moved or 0)
    for name, rest in _remainders(record).items():
        tally.doubt(name in record.backend, f"{NOT_TCP}, over {name}", rest)
    leaks = _leaks(record, peers)
    rows: list[PeerBytes] = [
        {"node": peer, "interface": name, "sent_bytes": f.sent_bytes, "received_bytes": f.received_bytes}
        for (peer, name), f in sorted(by_peer.items())
    ]
    interfaces: dict[str, InterfaceBytes] = {
        name: {
            "role": "backend" if name in record.backend else "other",
            "sent_bytes": sent,
            "received_bytes": received,
        }
        for name, (sent, received) in sorted(record.counters.items())
        if name != "lo"
    }
    return {
        "node": record.host,
        "node_rank": number,
        "interfaces": interfaces,
        "peer_bytes": sum(flow.total for flow in by_peer.values()),
        "other_bytes": others,
        "peers": rows,
        "rdma_bytes": _rdma(record, backend=True),
        "rdma_stray": _rdma(record, backend=False),
        "proof": "measured" if record.complete else "inferred",
        "flaps": [],
        "findings": [f"{record.host}: {text}" for text in _findings(record, leaks, by_peer)],
        "series": None,
        "leaks": [{**vars(one), "peer": peers.name(record, one.remote)} for one in leaks],
        "witness": record.to_json(),
    }


def _rdma(record: HostRecord, *, backend: bool) -> dict[str, int]:
    return {
        port: count
        for port, count in record.rdma.items()
        if count is not None and (port.partition("/")[0] in record.rdma_backend) == backend
    }


def _leaks(record: HostRecord, peers: Peers) -> list[ConnectionGroup]:
    """Return the command's connections with peers outside the backend, the largest first."""
    if not record.networks:
        return []
    return [
        one
        for one in record.connections
        if one.interface not in record.backend and one.total and peers.name(record, one.remote)
    ]


def _findings(
    record: HostRecord, leaks: Sequence[ConnectionGroup], by_peer: Mapping[tuple[str, str], Flow]
) -> list[str]:
    found = list(record.findings)
    found += [
        f"{printable(one.process, 80)} (pid {one.pid}) exchanged {size(one.total)} with {one.remote} over "
        f"{one.interface or 'an unknown interface'}, {'local' if one.accepted else 'remote'} port {one.port}"
        for one in leaks[:_LISTED]
    ]
    if len(leaks) > _LISTED:
        found.append(f"{counted(len(leaks) - _LISTED, 'connection')} more outside the backend")
    tcp = sum(flow.total for (_, name), flow in by_peer.items() if name in record.backend)
    found += [
        f"RDMA device {device} carried nothing, but TCP carried {size(tcp)} over the backend: NCCL may have fallen "
        "back to sockets (memlock limit, no access to /dev/infiniband, port not active)"
        for device in record.rdma_backend
        if tcp > _ENOUGH_BYTES and _idle(record, device)
    ]
    return found


def _idle(record: HostRecord, device: str) -> bool:
    counts = [count for port, count in record.rdma.items() if port.partition("/")[0] == device]
    return bool(counts) and all(count is not None and count <= SLACK_BYTES for count in counts)


def _on_interface(record: HostRecord, name: str) -> Flow:
    total = Flow()
    for flow in record.flows:
        if flow.interface == name:
            total.merge(flow.flow)
    return total


def _remainders(record: HostRecord) -> dict[str, int]:
    """Return the bytes of each interface with an address that its TCP connections do not explain, above the slack."""
    found = {}
    for name in record.addresses:
        flow, (sent, received) = _on_interface(record, name), record.counters.get(name, (0, 0))
        rest = max(0, sent - flow.sent_bytes - flow.resent_bytes - flow.segments_out * HEADER_BYTES)
        rest += max(0, received - flow.received_bytes - flow.repeated_bytes - flow.segments_in * HEADER_BYTES)
        slack = max(SLACK_BYTES, int(_TOLERANCE * (sent + received)))
        if rest > slack:
            found[name] = rest
    return found


def _contradictions(record: HostRecord) -> list[str]:
    """Return the interfaces that carried less than their connections say: the bytes took another way."""
    found = []
    for name, (sent, received) in record.counters.items():
        flow = _on_interface(record, name)
        for counted_bytes, by_socket in ((sent, flow.sent_bytes), (received, flow.received_bytes)):
            if counted_bytes < by_socket * (1 - _TOLERANCE) - SLACK_BYTES:
                found.append(name)
    return list(dict.fromkeys(found))


def _verdict(
    records: Sequence[HostRecord], peers: Peers, tally: Tally
) -> tuple[float | None, float | None, Proof, str]:
    """Return the bounds of the share, the proof, and its reason."""
    if unknown := _why_unknown(records):
        return None, None, "unknown", unknown
    found = bounds(tally)
    if found is None:
        return None, None, "unknown", "the command exchanged nothing with peers"
    low, high = found
    doubts = [
        f"{size(count)} {reason}"
        for table in (tally.perhaps_elsewhere, tally.perhaps_backend)
        for reason, count in table.items()
    ]
    if high - low > _EXACT or RDMA in tally.perhaps_backend:
        return low, high, "inferred", f"{'; '.join(doubts)}; at most {percent(high)}"
    if peers.silent:
        without = (
            f"{listed(sorted(peers.silent))} left no receipt; torchnet receipt merge joins the hosts' files"
        )
        return low, high, "inferred", without
    if not all(record.complete for record in records):
        return low, high, "inferred", "some connections were not observed to their end"
    return low, high, "measured", "TCP, counted by connection"


def _why_unknown(records: Sequence[HostRecord]) -> str:
    without = [record.host for record in records if not record.networks]
    if without:
        return f"--network names no backend on {listed(without)}"
    blind = [
        f"{record.host} {port}" for record in records for port, count in record.rdma.items() if count is None
    ]
    if blind:
        return f"the counters of RDMA devices cannot be read: {listed(blind)}"
    wrong = [f"{record.host} {name}" for record in records for name in _contradictions(record)]
    if wrong:
        return (
            f"interfaces counted fewer bytes than their connections, which took another way: {listed(wrong)}"
        )
    return ""


def _rails(records: Sequence[HostRecord], nodes: Sequence[Mapping[str, Any]]) -> list[RailBytes]:
    """Return the bytes of each rail: the n-th backend interface of each host, whatever its name there."""
    names = max((record.backend for record in records), key=len)
    carried = [0] * len(names)
    for record, node in zip(records, nodes, strict=True):
        for peer in node["peers"]:
            if peer["interface"] in record.backend:
                carried[record.backend.index(peer["interface"])] += (
                    peer["sent_bytes"] + peer["received_bytes"]
                )
    total = sum(carried)
    return [
        {
            "interface": name,
            "attachment": None,
            "peer_bytes": count,
            "share": round(count / total, 6) if total else None,
        }
        for name, count in zip(names, carried, strict=True)
    ]
