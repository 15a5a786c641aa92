"""Who has which address of an attachment: leases, pods, duplicates and leases of pods that are gone (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.constants import STATUS_ANNOTATION
from torchnet.errors import StatusError
from torchnet.k8s.addons.ip_ranges import Address
from torchnet.k8s.attachments.address_pool import Lease, RangeUse
from torchnet.k8s.attachments.address_range import address
from torchnet.network.network_status import StatusEntry, parse

Object = dict[str, Any]
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class PodAddress:
    """A pod, and one address that its network-status has for an attachment."""

    address: Address
    pod: str
    interface: str


@dataclass(frozen=True)
class Pods:
    """The pods of some namespaces.

    Attributes:
        bodies: By NAMESPACE/NAME.
        everywhere: Whether these are the pods of all namespaces.
        namespaces: Those whose pods are known.
    """

    bodies: Mapping[str, Object]
    namespaces: frozenset[str] = frozenset()
    everywhere: bool = False

    def knows(self, pod: str) -> bool:
        """Whether the pods of the namespace of NAMESPACE/NAME are known."""
        return self.everywhere or pod.partition("/")[0] in self.namespaces


@dataclass(frozen=True)
class Row:
    """One address and its holder.

    Attributes:
        state: The pod's phase; "gone", "ended", "terminating", "has another address" or "unknown".
        is_stale: Whether the lease belongs to no pod that uses the address.
    """

    address: Address
    pod: str
    interface: str
    node: str
    state: str
    is_stale: bool = False
    lease: Lease | None = None


@dataclass(frozen=True)
class AddressTable:
    """The addresses of an attachment.

    Attributes:
        rows: In the order of the addresses.
        uses: The ranges of Whereabouts; () for other IPAM plugins.
    """

    rows: tuple[Row, ...]
    uses: tuple[RangeUse, ...]

    @property
    def stale(self) -> tuple[Row, ...]:
        """The leases of pods that are gone, have ended, or have another address."""
        return tuple(row for row in self.rows if row.is_stale)

    @property
    def duplicates(self) -> dict[Address, tuple[Row, ...]]:
        """The addresses that several pods hold."""
        by_address: dict[Address, list[Row]] = defaultdict(list)
        for row in self.rows:
            if not row.is_stale:
                by_address[row.address].append(row)
        return {
            key: tuple(rows)
            for key, rows in by_address.items()
            if len({(row.pod, row.interface) for row in rows}) > 1
        }


def address_table(path: str, uses: Sequence[RangeUse], pods: Pods) -> AddressTable:
    """Join the leases and the pods' network-status.

    Args:
        path: NAMESPACE/NAME of the attachment.
        uses: Its ranges of Whereabouts, with their leases.
    """
    rows = [_lease_row(lease, pods) for use in uses for lease in use.leases]
    leased = {(row.address, row.pod) for row in rows}
    for name, body in pods.bodies.items():
        if _phase(body) in _ENDED:
            continue
        for found in pod_addresses(path, name, body):
            if (found.address, found.pod) not in leased:
                rows.append(Row(found.address, name, found.interface, _node(body), _phase(body)))
    rows.sort(key=lambda row: (row.address.version, int(row.address), row.pod))
    return AddressTable(tuple(rows), tuple(uses))


def pod_addresses(path: str, name: str, body: Object) -> list[PodAddress]:
    """Return the addresses that a pod's network-status has for the attachment ``path``."""
    return [
        PodAddress(address(ip), name, entry.interface or "")
        for entry in _status(body)
        if entry.name == path
        for ip in entry.ips
    ]


def _status(body: Object) -> tuple[StatusEntry, ...]:
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    try:
        return parse(annotations.get(STATUS_ANNOTATION) or "[]")
    except StatusError:
        return ()


def _lease_row(lease: Lease, pods: Pods) -> Row:
    body = pods.bodies.get(lease.pod)
    if body is None:
        gone = bool(lease.pod) and pods.knows(lease.pod)
        state = "gone" if gone else "unknown"
        return Row(lease.address, lease.pod, lease.interface, "", state, gone, lease)
    phase = _phase(body)
    if phase in _ENDED:
        return Row(lease.address, lease.pod, lease.interface, _node(body), "ended", True, lease)
    own = [ip for entry in _status(body) if entry.interface == lease.interface for ip in entry.ips]
    moved = bool(lease.interface) and bool(own) and str(lease.address) not in own
    state = "has another address" if moved else phase
    return Row(lease.address, lease.pod, lease.interface, _node(body), state, moved, lease)


def _phase(body: Object) -> str:
    if (body.get("metadata") or {}).get("deletionTimestamp"):
        return "terminating"
    return str((body.get("status") or {}).get("phase") or "Pending")


def _node(body: Object) -> str:
    return str((body.get("spec") or {}).get("nodeName") or "")
