"""What one witness counted on one host, before bytes are assigned to peers. It travels in the receipt's JSON.

Which remote address is a peer's may be known only when the records of all hosts are merged, so a record keeps the bytes
by remote address.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torchnet.agent.accounting import Flow
from torchnet.agent.socket_owners import Owner
from torchnet.linux.protocol_counters import ProtocolCounters
from torchnet.linux.rtnetlink import Counters


@dataclass(frozen=True)
class RemoteFlow:
    """TCP payload exchanged with one remote address over one interface.

    Attributes:
        owner: ``job`` for the command's processes, ``other`` for processes outside of it (all their addresses in one
            flow with ``remote`` ""), ``unknown`` if the connection ended before its owner was seen.
        interface: The interface that has the connection's local address; "" if it is not known.
    """

    owner: Owner
    remote: str
    interface: str
    flow: Flow


@dataclass(frozen=True)
class ConnectionGroup:
    """The connections of one process with one remote address over one interface.

    Attributes:
        process: Program and script, without further arguments, which may contain secrets.
        port: The remote port of the last connection; of an accepted one, the local port.
        accepted: Whether the last connection was accepted by the process.
    """

    pid: int
    process: str
    remote: str
    interface: str
    port: int
    accepted: bool
    connections: int
    sent_bytes: int
    received_bytes: int

    @property
    def total(self) -> int:
        return self.sent_bytes + self.received_bytes


@dataclass(frozen=True)
class HostRecord:
    """The counts of one witness.

    Attributes:
        command: Name of the program.
        began, ended: Unix times.
        networks: Texts of ``--network``.
        backend: Backend interfaces, by rail.
        prefixes: Networks whose addresses belong to peers.
        peers: Host name by address, from ``--peers``.
        addresses: This host's own, by interface, without prefix length.
        counters: By interface, since the start; bytes include headers.
        headers: The least IP and TCP headers of a packet, by interface.
        protocols: The network namespace's counters of protocols; None if they cannot be read.
        rdma: Bytes by RDMA device; None for a device without readable counters.
        rdma_closed: RDMA devices that this user cannot open.
        rdma_backend: RDMA devices of the backend.
        nccl: Whether a process of the command had an NCCL process group.
        vanished: Interfaces that have left the network namespace.
        complete: Whether every TCP connection was counted to its end.
        findings: Sentences about the observation itself.
    """

    host: str
    command: str
    exit_code: int
    began: float
    ended: float
    networks: tuple[str, ...] = ()
    backend: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    peers: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    counters: dict[str, Counters] = field(default_factory=dict)
    headers: dict[str, int] = field(default_factory=dict)
    protocols: ProtocolCounters | None = None
    flows: tuple[RemoteFlow, ...] = ()
    connections: tuple[ConnectionGroup, ...] = ()
    rdma: dict[str, int | None] = field(default_factory=dict)
    rdma_closed: tuple[str, ...] = ()
    rdma_backend: tuple[str, ...] = ()
    nccl: bool = False
    vanished: tuple[str, ...] = ()
    complete: bool = True
    findings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> HostRecord:
        """Return the record from :meth:`to_json`'s value, also after JSON; unknown fields are ignored.

        Raises:
            ValueError: it is not a record.
        """
        # Imported here, because only a merge needs it.
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"is not a record of torchnet receipt ({place}: {first['msg']})") from None
