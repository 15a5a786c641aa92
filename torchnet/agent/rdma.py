"""RDMA devices, if any; their traffic bypasses the interface counters."""

from __future__ import annotations

import glob
import ipaddress
import os
from collections.abc import Collection, Iterable, Mapping

ROOT, NET = "/sys/class/infiniband", "/sys/class/net"
NODES = "/dev/infiniband"
# port_xmit_data and port_rcv_data count units of four bytes (InfiniBand Architecture 1.3, PortCountersExtended).
_WORD_BYTES = 4


def devices(root: str = ROOT, nodes: str = NODES) -> tuple[str, ...]:
    """Return sorted names (``mlx5_0``); none in a container that can see but not open them."""
    return tuple(sorted(_names(root))) if any(n.startswith("uverbs") for n in _names(nodes)) else ()


def on_rails(
    rails: Iterable[tuple[str, str]], root: str = ROOT, net: str = NET, nodes: str = NODES
) -> tuple[str, ...]:
    """Return the devices of the cards that carry the rails, each given as (interface, address).

    RoCE has a GID for each address of its card's interfaces, including child interfaces, even if the card is in
    another network namespace, as under a pod's macvlan. Otherwise, the card is below the interface.
    """
    rails = tuple(rails)
    cards = {name for interface, _ in rails for name in _below(interface, net)}
    own = {_packed(address) for _, address in rails}
    return tuple(
        device
        for device in devices(root, nodes)
        if cards.intersection(_names(os.path.join(root, device, "device", "net")))
        or not own.isdisjoint(_gids(os.path.join(root, device)))
    )


def _below(interface: str, net: str) -> set[str]:
    """Return an interface and its lower devices (the card of a VLAN, bond or macvlan) in this namespace."""
    found, new = set[str](), {interface}
    while new:
        found |= new
        lower = {n[6:] for one in new for n in _names(os.path.join(net, one)) if n.startswith("lower_")}
        new = lower - found
    return found


def _packed(address: str) -> str:
    """Return an address as a GID without colons."""
    digits = ipaddress.ip_address(address).packed.hex()
    return digits if len(digits) == 32 else f"ffff{digits}".rjust(32, "0")


def _gids(device: str) -> set[str]:
    found = set()
    for path in glob.glob(f"{glob.escape(device)}/ports/*/gids/*"):
        try:
            with open(path) as file:
                found.add(file.read().strip().replace(":", ""))
        except OSError:
            continue  # an empty entry
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def port_bytes(root: str = ROOT, nodes: str = NODES) -> dict[str, int]:
    """Return the bytes sent and received so far by each port with counters, by ``DEVICE/PORT``."""
    found: dict[str, int] = {}
    for device in devices(root, nodes):
        ports = os.path.join(root, device, "ports")
        for port in sorted(_names(ports)):
            folder = os.path.join(ports, port, "counters")
            try:
                words = sum(
                    _number(os.path.join(folder, name)) for name in ("port_xmit_data", "port_rcv_data")
                )
            except (OSError, ValueError):
                continue  # a pod may see the device, but not its counters
            found[f"{device}/{port}"] = words * _WORD_BYTES
    return found


def admitted(chosen: str, device: str) -> bool:
    """Return whether NCCL_IB_HCA=``chosen`` admits a device: ``^`` excludes, ``=`` means exact names, else prefixes.

    An excluded port (``^mlx5_0:1``) leaves the device's other ports.

    Source:
        NCCL's parseStringList and matchIfList (misc/utils.cc), as transport/net_ib uses them.
    """
    text = chosen.strip()
    excludes = text.startswith("^")
    text = text.removeprefix("^")
    exact = text.startswith("=")
    listed = False
    for item in filter(None, text.removeprefix("=").split(",")):
        name, _, port = item.strip().partition(":")
        same = device == name if exact else device.startswith(name)
        listed = listed or (same and not (excludes and port))
    return listed != excludes if text.removeprefix("=") else True


def of_devices(ports: Mapping[str, int], names: Collection[str]) -> dict[str, int]:
    """Return the part of a :func:`port_bytes` result that belongs to devices."""
    return {port: count for port, count in ports.items() if port.partition("/")[0] in names}


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())
