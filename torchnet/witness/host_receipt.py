"""The receipt of one or several witnesses: the records' bytes assigned to peers, in the shape of a job's receipt.

A node of the receipt is a host, and a rank is the command on it. Each node holds its record (``witness``), so that the
receipts of all hosts can be merged, and merged again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torchnet.agent import share_bounds
from torchnet.agent.accounting import UNKNOWN_INTERFACE, Flow, TrafficTotals
from torchnet.agent.job_share import EXACT, largest_doubt, one_sided
from torchnet.agent.receipt_shape import (
    InterfaceBytes,
    NodeReceipt,
    PeerBytes,
    RailBytes,
    RankResult,
    Share,
    job_receipt,
)
from torchnet.agent.share_bounds import SLACK_BYTES, PeerPayload, Reason, Unattributed
from torchnet.agent.transports import GRADIENT_BYTES
from torchnet.linux import rtnetlink
from torchnet.text import listed, printable
from torchnet.units import counted, size
from torchnet.witness.host_record import ConnectionGroup, HostRecord, RemoteFlow

_LISTED = 8
_CLOCKS_SECONDS = 60.0  # that the hosts' clocks may differ
_ENOUGH_BYTES = 10_000_000  # of TCP with peers over the backend, at which an unused RDMA device is remarkable


class Peers:
    """The hosts by address: from the records of all hosts, from ``--peers``, and as members of the networks."""

    def __init__(self, records: Sequence[HostRecord]) -> None:
        self._hosts: dict[str, str] = {}
        self.silent: set[str] = set()
        """Peers that exchanged bytes and have no record, so that their other addresses are not known."""
        self._recorded = {record.host for record in records}
        for record in records:
            self._hosts.update(record.peers)
        self._rails: set[str] = set()
        for record in records:
            for interface, addresses in record.addresses.items():
                self._hosts.update(dict.fromkeys(addresses, record.host))
                self._rails |= set(addresses) if interface in record.backend else set()
        self._merged = len(self._recorded) > 1
        self._complete = self._merged and self._recorded.issuperset(self._hosts.values())

    def exchanged(self, peer: str) -> None:
        """Note that bytes were exchanged with a peer."""
        if peer not in self._recorded:
            self.silent.add(peer)

    def name(self, record: HostRecord, remote: str) -> str | None:
        """Return the peer that has an address, or None."""
        if remote in self._hosts or self._merged:
            return self._hosts.get(remote)
        # A member of the network; which host it is, only that host's record tells. Among several hosts, it may as well
        # be storage.
        return remote if _within(remote, record.prefixes) else None

    def possible(self, record: HostRecord, remote: str) -> bool:
        """Return whether an address may be a peer's: of a host without a record, or another one in the networks."""
        return not remote or not self._complete or _within(remote, record.prefixes)

    def on_backend(self, record: HostRecord, remote: str) -> bool:
        """Return whether an address is one of the backend."""
        return remote in self._rails or _within(remote, record.prefixes)


def _within(address: str, prefixes: Sequence[str]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    networks = map(ipaddress.ip_network, prefixes)
    return any(ip.version == one.version and ip in one for one in networks)


def receipt_of(records: Sequence[HostRecord]) -> dict[str, Any]:
    """Return the receipt of the records' hosts (torchnet.receipt/2, with ``leaks`` and ``witness`` in each node)."""
    records = sorted(records, key=lambda record: (record.host, record.began))
    peers = Peers(records)
    nodes = [_node(_with_claims(record, records), number, peers) for number, record in enumerate(records)]
    for node, record in zip(nodes, records, strict=True):
        node["witness"] = record.to_json()
    share = _share(records, nodes, peers)
    for node in nodes:
        del node["payload"]
    failed = next((record for record in records if record.exit_code), None)
    code = failed.exit_code if failed else 0
    return job_receipt(
        run_id=records[0].command,
        runtime="command",
        network="host",
        nnodes=len(records),
        nproc_per_node=1,
        code=code,
        reason=f"the command on {failed.host} exited with code {code}" if failed else "done",
        failure=None,
        began=min(record.began for record in records),
        ended=max(record.ended for record in records),
        restarts=0,
        share=share,
        min_share=None,
        ranks=[_rank(number, record) for number, record in enumerate(records)],
        rails=_rails(records, nodes),
        nodes=[cast(NodeReceipt, node) for node in nodes],
        findings=[text for node in nodes for text in node["findings"]],
    )


def _with_claims(record: HostRecord, records: Sequence[HostRecord]) -> HostRecord:
    """Return the record with the connections of unknown owner that another host's command had the other end of.

    As much of them is the command's as the other host counted more than this one, over all addresses of both.
    """
    flows: list[RemoteFlow] = []
    claimed: dict[tuple[str, str, str], Flow] = {}
    for one in record.flows:
        there = [
            (other, name)
            for other in records
            if other is not record
            for name, addresses in other.addresses.items()
            if one.remote in addresses
        ]
        if one.owner != "unknown" or not there:
            flows.append(one)
            continue
        other, name = there[0]
        theirs = _total(other, name, record.addresses.get(one.interface, ()))
        ours = _total(record, one.interface, other.addresses[name])
        ours.merge(claimed.setdefault((one.interface, other.host, name), Flow()))
        sent = min(one.flow.sent_bytes, max(0, theirs.received_bytes - ours.sent_bytes))
        received = min(one.flow.received_bytes, max(0, theirs.sent_bytes - ours.received_bytes))
        claim = Flow(sent, received)
        claimed[one.interface, other.host, name].merge(claim)
        rest = replace(
            one.flow,
            sent_bytes=one.flow.sent_bytes - sent,
            received_bytes=one.flow.received_bytes - received,
        )
        flows += [replace(one, owner="job", flow=claim), replace(one, flow=rest)]
    flows = [one for one in flows if one.flow.total]
    return replace(record, flows=tuple(flows))


def _total(record: HostRecord, interface: str, remotes: Collection[str]) -> Flow:
    """Sum what the command exchanged with these addresses over an interface."""
    total = Flow()
    for one in record.flows:
        if (one.owner, one.interface) == ("job", interface) and one.remote in remotes:
            total.merge(one.flow)
    return total


def _rank(number: int, record: HostRecord) -> RankResult:
    return {"rank": number, "local_rank": 0, "node": record.host, "exit_code": record.exit_code}


def _node(record: HostRecord, number: int, peers: Peers) -> dict[str, Any]:
    """Return a host's part, with the limits of its bytes with peers as ``payload``."""
    record = replace(record, backend=tuple(sorted(rtnetlink.above(record.counters, record.backend))))
    traffic = TrafficTotals(
        complete=record.complete, counters=record.counters, headers=record.headers, protocols=record.protocols
    )
    doubts = PeerPayload()
    names: list[str] = []  # of peers, by number
    strangers = 0
    for flow in record.flows:
        peer = peers.name(record, flow.remote) if flow.owner != "other" else None
        interface = flow.interface or UNKNOWN_INTERFACE
        if flow.owner == "job" and peer is not None:
            peers.exchanged(peer)
            if peer not in names:
                names.append(peer)
            key = names.index(peer), UNKNOWN_INTERFACE if _crosses(record, flow, peers) else interface
            traffic.peers.setdefault(key, Flow()).merge(flow.flow)
            continue
        traffic.others.setdefault(interface, Flow()).merge(flow.flow)
        strangers += flow.flow.total if flow.owner == "job" else 0
        if flow.owner == "job" and flow.flow.total > SLACK_BYTES and _within(flow.remote, record.prefixes):
            peers.exchanged(flow.remote)
        if flow.owner != "other" and (peer or peers.possible(record, flow.remote)):
            doubts += _doubt(record, flow, "unowned" if flow.owner == "unknown" else "unnamed")
    payload = traffic.payload(record.backend) + doubts + _rdma_payload(record)
    leaks = _leaks(record, peers)
    rows: list[PeerBytes] = [
        {
            "node": names[peer],
            "interface": name,
            "sent_bytes": flow.sent_bytes,
            "received_bytes": flow.received_bytes,
        }
        for (peer, name), flow in sorted(traffic.peers.items())
    ]
    interfaces: dict[str, InterfaceBytes] = {
        name: {
            "role": "backend" if name in record.backend else "other",
            "sent_bytes": counter.sent_bytes,
            "received_bytes": counter.received_bytes,
            "peer_bytes": traffic.peers_on(name).total,
        }
        for name, counter in sorted(record.counters.items())
        if name != "lo"
    }
    return {
        "node": record.host,
        "node_rank": number,
        "interfaces": interfaces,
        "peer_bytes": traffic.peer_bytes(),
        "other_bytes": strangers,
        "peers": rows,
        "peers_omitted": 0,
        "unattributed": [vars(one) for one in payload.unattributed],
        "rdma_bytes": {},  # no device is the command's alone
        "rdma_stray": _rdma(record, on_rail=False),
        "proof": "measured" if record.complete else "inferred",
        "flaps": [],
        "findings": [
            f"{record.host}: {text}"
            for text in _findings(record, leaks, sum(traffic.peers_on(name).total for name in record.backend))
        ],
        "findings_omitted": 0,
        "series": None,
        "payload": [
            payload.backend_low,
            payload.backend_high,
            payload.elsewhere_low,
            payload.elsewhere_high,
        ],
        "leaks": [{**vars(one), "peer": peers.name(record, one.remote)} for one in leaks],
    }


def _crosses(record: HostRecord, flow: RemoteFlow, peers: Peers) -> bool:
    """Return whether one end has an address of the backend, and the other does not."""
    if not record.prefixes or ipaddress.ip_address(flow.remote).is_link_local:
        return False
    return peers.on_backend(record, flow.remote) != (flow.interface in record.backend)


def _doubt(record: HostRecord, flow: RemoteFlow, reason: Reason) -> PeerPayload:
    """Return the limits of bytes that may have been exchanged with a peer or not."""
    unattributed = (Unattributed(flow.interface or UNKNOWN_INTERFACE, flow.flow.total, reason),)
    on_backend = flow.interface in record.backend
    return PeerPayload(
        0, flow.flow.total if on_backend else 0, 0, 0 if on_backend else flow.flow.total, unattributed
    )


def _rdma_payload(record: HostRecord) -> PeerPayload:
    """Return what RDMA adds: other processes can use the devices, too."""
    rail, stray = _rdma(record, on_rail=True), _rdma(record, on_rail=False)
    unattributed = [
        *(Unattributed(name, count, "rdma-shared") for name, count in rail.items()),
        *(Unattributed(name, count, "rdma-stray") for name, count in stray.items()),
    ]
    return PeerPayload(0, sum(rail.values()), 0, sum(stray.values()), tuple(unattributed))


def _rdma(record: HostRecord, *, on_rail: bool) -> dict[str, int]:
    return {
        name: count
        for name, count in record.rdma.items()
        if count and (name in record.rdma_backend) == on_rail
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


def _findings(record: HostRecord, leaks: Sequence[ConnectionGroup], over_backend: int) -> list[str]:
    found = list(record.findings)
    found += [
        f"{printable(one.process, 80)} (pid {one.pid}) exchanged {size(one.total)} with {one.remote} over "
        f"{one.interface or 'an unknown interface'}, {'local' if one.accepted else 'remote'} port {one.port}"
        for one in leaks[:_LISTED]
    ]
    if len(leaks) > _LISTED:
        found.append(f"{counted(len(leaks) - _LISTED, 'connection')} more outside the backend")
    found += [
        f"RDMA device {device} carried nothing, but TCP carried {size(over_backend)} over the backend: NCCL may have "
        "fallen back to sockets (memlock limit, no access to /dev/infiniband, port not active)"
        for device in record.rdma_backend
        if over_backend > _ENOUGH_BYTES
        and (moved := record.rdma.get(device)) is not None
        and moved <= SLACK_BYTES
    ]
    found += [
        f"RDMA device {device} carried nothing, but TCP carried {size(over_backend)} over the backend: this user "
        "cannot open the device (/dev/infiniband)"
        for device in record.rdma_backend
        if over_backend > _ENOUGH_BYTES and device in record.rdma_closed
    ]
    return found


def _share(records: Sequence[HostRecord], nodes: Sequence[dict[str, Any]], peers: Peers) -> Share:
    without = [record.host for record in records if not record.networks]
    if without:
        return _unknown(f"--network names no backend on {listed(without)}")
    blind = [
        f"{record.host} {name}" for record in records for name, count in record.rdma.items() if count is None
    ]
    if blind:
        return _unknown(f"the counters of RDMA devices cannot be read: {listed(blind)}")
    gone = [f"{record.host} {name}" for record in records for name in record.vanished]
    if gone:
        return _unknown(f"interfaces left the host's network during the command: {listed(gone)}")
    hidden = [
        f"NCCL ran on {record.host}, but only {size(node['peer_bytes'])} went to other hosts over TCP"
        for record, node in zip(records, nodes, strict=True)
        if record.nccl and node["peer_bytes"] + sum(filter(None, record.rdma.values())) < GRADIENT_BYTES
    ]
    if hidden:
        return _unknown(
            f"{hidden[0]}: another transport carried the gradients (NVLink between hosts, TCPX, cxi)"
        )
    total = sum((PeerPayload(*node["payload"]) for node in nodes), one_sided(nodes))
    bounds = share_bounds.share(total)
    if bounds is None and total.backend_high:
        bounds = 0.0, 1.0
    if bounds is None:
        return _unknown("the command exchanged nothing with peers")
    if bounds[1] - bounds[0] > EXACT:
        return Share(*bounds, "inferred", largest_doubt(nodes, bounds))
    if peers.silent:
        silent = listed(sorted(peers.silent))
        reason = f"{silent} left no receipt; torchnet receipt merge joins the hosts' files"
        return Share(*bounds, "inferred", reason)
    if max(record.began for record in records) - min(record.ended for record in records) > _CLOCKS_SECONDS:
        return Share(*bounds, "inferred", "the hosts' files are not of the same time")
    if not all(record.complete for record in records):
        return Share(*bounds, "inferred", "some connections were not observed to their end")
    return Share(*bounds, "measured", "TCP, counted by connection")


def _unknown(reason: str) -> Share:
    return Share(None, None, "unknown", reason)


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
