"""The bytes of RDMA devices, which the counters of interfaces do not contain.

Drivers count differently. Of each port, the first readable source is used:

1. ``counters``: port_xmit_data and port_rcv_data, in units of four bytes (mlx5, mlx4, recent rxe). Cards without
   extended counters have 32 bits, which stay at their maximum.
2. ``hw_counters``, in bytes: bnxt_re, irdma, EFA. Before Linux 5.14 they belong to the device instead of the port.
3. ``hw_counters``, in packets (rxe): they only show whether anything moved.

Source:
    InfiniBand Architecture 1.3, PortCounters and PortCountersExtended. Linux, drivers/infiniband: core/sysfs.c
    (get_counter_table), hw/bnxt_re/hw_counters.c, hw/irdma/verbs.c (irdma_hw_stat_names), hw/efa/efa_verbs.c
    (EFA_DEFINE_PORT_STATS), sw/rxe/rxe_hw_counters.c.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torchnet.agent.rdma import (
    INFINIBAND,
    devices,
    exclusive,
    interfaces,
    link_layers,
    names,
    read_text,
    visible,
)
from torchnet.linux import rtnetlink
from torchnet.linux.rtnetlink import Counters

Source = Literal["", "counters", "hw_counters", "packets"]
_WORD_BYTES = 4
_SATURATED = (1 << 32) - 1
_WORDS = (("port_xmit_data",), ("port_rcv_data",))
# By direction, the sums of which the largest counts: chips fill different ones, and EFA's documentation leaves open
# whether tx_bytes contains those of RDMA operations.
_SENT = (
    ("tx_bytes",),
    ("tx_roce_only_bytes",),
    ("send_bytes", "rdma_read_resp_bytes", "rdma_write_bytes"),
    ("ip4OutOctets", "ip6OutOctets"),
)
_RECEIVED = (
    ("rx_bytes",),
    ("rx_roce_only_bytes",),
    ("recv_bytes", "rdma_read_bytes", "rdma_write_recv_bytes"),
    ("ip4InOctets", "ip6InOctets"),
)
_PACKETS = (("sent_pkts",), ("rcvd_pkts",))


@dataclass(frozen=True)
class RdmaDevice:
    """One device and its bytes since the script's start.

    Attributes:
        on_rail: It is on the card of a rail, or the user's NCCL_IB_HCA names it.
        exclusive: Nothing outside of this pod uses it, so all of its bytes are the job's.
        openable: The job's processes can open it; the bytes of other devices are not the job's.
        sent_bytes, received_bytes: None if they are unknown, for ``reason``.
        source: Where the counts come from: the folder in /sys, "packets" for a count of packets, "" for none.
    """

    name: str
    on_rail: bool
    exclusive: bool
    openable: bool
    sent_bytes: int | None
    received_bytes: int | None
    source: Source = ""
    reason: str = ""

    @property
    def total(self) -> int | None:
        if self.sent_bytes is None or self.received_bytes is None:
            return None
        return self.sent_bytes + self.received_bytes


@dataclass
class _Snapshot:
    """A device's counters, by path below its folder, and their common source: "" if any port has none."""

    source: Source = ""
    values: dict[str, int] = field(default_factory=dict)


class RdmaMeter:
    """Counts the bytes of each device from its creation on, without those of IP over InfiniBand.

    Frequent calls detect that counters were reset.

    Args:
        isolated: this worker is a pod with a network namespace of its own.
    """

    def __init__(self, *, isolated: bool, root: str = "/") -> None:
        self._root, self._isolated = root, isolated
        self._openable = devices(root)
        self._base = {name: _snapshot(root, name) for name in sorted({*visible(root), *self._openable})}
        self._last = dict(self._base)
        self._reset: set[str] = set()
        # The ports' counters of InfiniBand contain IP's packets; those of RoCE do not.
        ib = [name for name in self._base if "InfiniBand" in link_layers(name, root)]
        self._ip = {name: interfaces(name, root) for name in ib}
        self._ip_base = rtnetlink.counters() if self._ip else {}

    def read(self, on_rails: Collection[str]) -> tuple[RdmaDevice, ...]:
        """Return all devices that are visible or can be opened."""
        self._update()
        return tuple(
            RdmaDevice(
                name,
                name in on_rails,
                self._isolated and exclusive(name, self._root),
                name in self._openable,
                *self._bytes(name),
            )
            for name in self._last
        )

    def moved(self, on_rails: Collection[str]) -> int:
        """Return the bytes of the devices on rails that the job can open; of all of these if none is on a rail."""
        self._update()
        found = [self._bytes(name) for name in self._chosen(on_rails)]
        return sum((sent or 0) + (received or 0) for sent, received, *_ in found)

    def uncounted(self, on_rails: Collection[str]) -> list[str]:
        """Return which devices' bytes the last :meth:`moved` did not contain, each with the reason."""
        found = [(name, *self._bytes(name)) for name in self._chosen(on_rails)]
        return [f"{name}: {reason}" for name, *_, reason in found if reason]

    def _chosen(self, on_rails: Collection[str]) -> list[str]:
        return sorted(set(self._openable).intersection(on_rails) or self._openable)

    def _update(self) -> None:
        for name in visible(self._root):
            now, before = _snapshot(self._root, name), self._last.get(name, _Snapshot())
            if any(now.values.get(path, count) < count for path, count in before.values.items()):
                self._reset.add(name)
            self._last[name] = now

    def _bytes(self, name: str) -> tuple[int | None, int | None, Source, str]:
        """Return the bytes sent and received, their source, and why they are unknown."""
        base, now = self._base.get(name, _Snapshot()), self._last[name]
        since = {path: count - base.values.get(path, count) for path, count in now.values.items()}
        if not now.source or base.source != now.source or base.values.keys() != now.values.keys():
            return None, None, "", "its counters cannot be read"
        if name in self._reset:
            return None, None, now.source, "its counters were reset"
        if now.source == "counters" and _SATURATED in now.values.values():
            return None, None, now.source, "a 32-bit counter has reached its maximum"
        if now.source == "packets" and any(since.values()):
            return None, None, now.source, "it counts packets, not bytes"
        unit = _WORD_BYTES if now.source == "counters" else 1
        sent, received = (_largest(since, choices) * unit for choices in _directions(now.source))
        over_ip = self._ip_bytes(name)
        sent, received = max(0, sent - over_ip.sent_bytes), max(0, received - over_ip.received_bytes)
        return sent, received, now.source, ""

    def _ip_bytes(self, name: str) -> Counters:
        """Return at least what a device's counters contain of its interfaces' packets.

        InfiniBand's headers are at most as large as an IP packet: LRH, GRH, BTH, DETH and ICRC have 76 bytes.
        """
        sent = received = 0
        now = rtnetlink.counters() if self._ip.get(name) else {}
        for interface in self._ip.get(name, ()):
            if interface in now:
                base = self._ip_base.get(interface, Counters(0, 0))
                sent += 2 * (now[interface].sent_bytes - base.sent_bytes)
                received += 2 * (now[interface].received_bytes - base.received_bytes)
        return Counters(sent, received)


def _directions(source: Source) -> tuple[tuple[tuple[str, ...], ...], ...]:
    if source == "hw_counters":
        return _SENT, _RECEIVED
    sent, received = _WORDS if source == "counters" else _PACKETS
    return (sent,), (received,)


def _largest(values: Mapping[str, int], choices: tuple[tuple[str, ...], ...]) -> int:
    by_name: dict[str, int] = {}
    for path, count in values.items():
        by_name[os.path.basename(path)] = by_name.get(os.path.basename(path), 0) + count
    return max(sum(by_name.get(name, 0) for name in choice) for choice in choices)


def _snapshot(root: str, device: str) -> _Snapshot:
    folder = os.path.join(root, INFINIBAND, device)
    ports = [f"ports/{port}" for port in names(os.path.join(folder, "ports"))]
    found = [_read(folder, port) for port in ports]
    if not any(one.source for one in found):
        found = [_read(folder, ".")]
    sources = {one.source for one in found}
    if len(sources) != 1:
        return _Snapshot()
    return _Snapshot(sources.pop(), {path: count for one in found for path, count in one.values.items()})


def _read(device: str, port: str) -> _Snapshot:
    """Return one port's counters from the first source that has both directions."""
    for source, folder in (
        ("counters", "counters"),
        ("hw_counters", "hw_counters"),
        ("packets", "hw_counters"),
    ):
        directions = _directions(source)  # type: ignore[arg-type]
        wanted = {name for choices in directions for choice in choices for name in choice}
        present = wanted.intersection(names(os.path.join(device, port, folder)))
        texts = {
            f"{port}/{folder}/{name}": read_text(os.path.join(device, port, folder, name)) for name in present
        }
        # bnxt_re answers EINVAL for port_xmit_data, i40iw "N/A (no PMA)".
        values = {path: int(text) for path, text in texts.items() if text.isdecimal()}
        have = {os.path.basename(path) for path in values}
        if all(any(have.issuperset(choice[:1]) for choice in choices) for choices in directions):
            return _Snapshot(source, values)  # type: ignore[arg-type]
    return _Snapshot()
