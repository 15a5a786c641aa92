"""The RDMA devices of this worker, if any: which the job can open, which are on rails, and which are its alone.

`torchnet.agent.rdma_counters` has their bytes.
"""

from __future__ import annotations

import errno
import glob
import ipaddress
import os
import re
from collections.abc import Iterable

INFINIBAND, VERBS = "sys/class/infiniband", "sys/class/infiniband_verbs"
_NET, _NODES, _NETNS_MODE = "sys/class/net", "dev/infiniband", "sys/module/ib_core/parameters/netns_mode"
_SYS_ADMIN = 21
_CXI = re.compile(r"cxi\d+")
# Any other error, such as too many open files, does not show that the job's processes cannot open a device.
_REFUSALS = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV)


def visible(root: str = "/") -> tuple[str, ...]:
    """Return sorted names (``mlx5_0``). A container sees its machine's devices, even if it cannot open them."""
    return tuple(sorted(names(os.path.join(root, INFINIBAND))))


def devices(root: str = "/") -> tuple[str, ...]:
    """Return the devices that processes started here can open: by uverbs, or by a node of their own (Omni-Path).

    A device without an entry in /sys/class/infiniband has its node's name: its counters are out of sight (Slingshot's
    ``cxi0``, or a container that hides /sys).
    """
    found = visible(root)
    nodes = [f"{_NODES}/{node}" for node in names(os.path.join(root, _NODES)) if node.startswith("uverbs")]
    nodes += [
        f"dev/{name}" for name in names(os.path.join(root, "dev")) if name in found or _CXI.fullmatch(name)
    ]
    opened = {os.path.basename(node) for node in nodes if _opens(os.path.join(root, node))}
    return tuple(sorted({read_text(os.path.join(root, VERBS, node, "ibdev")) or node for node in opened}))


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        return error.errno not in _REFUSALS
    return True


def on_rails(rails: Iterable[tuple[str, str]], root: str = "/") -> tuple[str, ...]:
    """Return the visible devices of the cards that carry the rails, each given as (interface, address).

    RoCE has a GID for each address of its card's interfaces, including child interfaces, even if the card is in
    another network namespace, as under a pod's macvlan. Otherwise, the card is below the interface.
    """
    rails = tuple(rails)
    cards = {name for interface, _ in rails for name in _below(interface, os.path.join(root, _NET))}
    own = {packed(address) for _, address in rails}
    return tuple(
        device
        for device in visible(root)
        if cards.intersection(interfaces(device, root)) or not own.isdisjoint(gids(device, root))
    )


def exclusive(device: str, root: str = "/") -> bool:
    """Return whether nothing outside of this pod uses a device, so that its counters are the pod's.

    Call it only in a pod with a network namespace of its own. Nothing else uses the device if one of these holds, and
    it has no virtual functions, which a port's counters may include:

    - RDMA devices belong to network namespaces (``rdma system set netns exclusive``).
    - Its interface is in this namespace (SR-IOV, host-device): a macvlan's card is in the machine's, and so is the
      parent of an IPoIB child.
    - It is an EFA device, and the pod is not privileged: the device plugin gives each one to a single pod.
    """
    folder = os.path.join(root, INFINIBAND, device, "device")
    if read_text(os.path.join(folder, "sriov_numvfs")) not in ("", "0"):
        return False
    driver = os.path.basename(os.path.realpath(os.path.join(folder, "driver")))
    return (
        read_text(os.path.join(root, _NETNS_MODE)) == "N"
        or any(_is_own(interface, root) for interface in interfaces(device, root))
        or (driver == "efa" and not capable(_SYS_ADMIN, root))
    )


def capable(capability: int, root: str = "/") -> bool:
    """Return whether this process, and so the job's, have a capability in effect."""
    found = re.search(r"(?m)^CapEff:\s*([0-9a-f]+)$", read_text(os.path.join(root, "proc/self/status")))
    return found is not None and bool(int(found[1], 16) >> capability & 1)


def _is_own(interface: str, root: str) -> bool:
    """Return whether an interface is a card's own, and no child of another one."""
    number, link = (read_text(os.path.join(root, _NET, interface, name)) for name in ("ifindex", "iflink"))
    return number == link


def link_layers(device: str, root: str = "/") -> set[str]:
    """Return its ports' link layers: InfiniBand or Ethernet."""
    ports = glob.glob(f"{glob.escape(os.path.join(root, INFINIBAND, device))}/ports/*")
    return {read_text(os.path.join(port, "link_layer")) for port in ports}


def interfaces(device: str, root: str = "/") -> list[str]:
    """Return those interfaces of a device's card that are in this network namespace."""
    return names(os.path.join(root, INFINIBAND, device, "device", "net"))


def _below(interface: str, net: str) -> set[str]:
    """Return an interface and its lower devices (the card of a VLAN, bond or macvlan) in this namespace."""
    found, new = set[str](), {interface}
    while new:
        found |= new
        lower = {n[6:] for one in new for n in names(os.path.join(net, one)) if n.startswith("lower_")}
        new = lower - found
    return found


def packed(address: str) -> str:
    """Return an address as a GID without colons."""
    digits = ipaddress.ip_address(address).packed.hex()
    return digits if len(digits) == 32 else f"ffff{digits}".rjust(32, "0")


def gids(device: str, root: str = "/") -> set[str]:
    """Return a device's GIDs without colons."""
    folder = glob.escape(os.path.join(root, INFINIBAND, device))
    return {read_text(path).replace(":", "") for path in glob.glob(f"{folder}/ports/*/gids/*")} - {""}


def names(folder: str) -> list[str]:
    """Return the names in a folder; none if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read_text(path: str) -> str:
    """Return a short file's text without surrounding spaces; "" if it cannot be read."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:  # such as an empty GID's
        return ""


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
