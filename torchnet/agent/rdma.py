"""RDMA devices, where there are some: their traffic passes the interfaces' counters by."""

from __future__ import annotations

import os

ROOT = "/sys/class/infiniband"
_WORD_BYTES = (
    4  # port_xmit_data and port_rcv_data count four bytes (InfiniBand Architecture 1.3, PortCountersExtended)
)


def devices(root: str = ROOT) -> tuple[str, ...]:
    """Their names (``mlx5_0``), in order."""
    try:
        return tuple(sorted(os.listdir(root)))
    except OSError:
        return ()


def port_bytes(root: str = ROOT) -> dict[str, int]:
    """Bytes sent and received so far by each port that has counters, by ``DEVICE/PORT``."""
    found: dict[str, int] = {}
    for device in devices(root):
        ports = os.path.join(root, device, "ports")
        for port in sorted(os.listdir(ports)) if os.path.isdir(ports) else ():
            folder = os.path.join(ports, port, "counters")
            try:
                words = sum(
                    _number(os.path.join(folder, name)) for name in ("port_xmit_data", "port_rcv_data")
                )
            except (OSError, ValueError):
                continue  # a pod may see the device, but not its counters
            found[f"{device}/{port}"] = words * _WORD_BYTES
    return found


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())
