"""Check that processes can use the rails' RDMA devices: their ports, their GIDs, and the limit of locked memory.

The MTU is not checked here: the kernel derives RoCE's from the interface's, which the workers compare, and NCCL takes
the smaller one of both ends.
"""

from __future__ import annotations

import glob
import os
import resource
from collections.abc import Collection, Iterable

from torchnet.agent.rdma import INFINIBAND, capable, gids, link_layers, packed, read_text

_IPC_LOCK = 14
_LOCKED_BYTES = 1 << 30  # less is not enough for the buffers of NCCL on 8 GPUs


def problems(devices: Collection[str], rails: Iterable[tuple[str, str]], root: str = "/") -> list[str]:
    """Return a sentence for each problem of ``devices``, which are on rails, each given as (interface, address)."""
    found = []
    for device in devices:
        ports = glob.glob(f"{glob.escape(os.path.join(root, INFINIBAND, device))}/ports/*")
        states = [read_text(os.path.join(port, "state")).partition(": ")[2] for port in ports]
        if "ACTIVE" not in states:
            found.append(f"{device}: no port is ACTIVE ({', '.join(filter(None, states)) or 'no state'})")
    # InfiniBand has no GID of an address.
    roce = [device for device in devices if "Ethernet" in link_layers(device, root)]
    own = {gid for device in roce for gid in gids(device, root)}
    found += [
        f"{', '.join(roce)}: no GID of {interface}'s address {address}, so RoCE would use another address"
        for interface, address in rails
        if roce and packed(address) not in own
    ]
    limit = locked_memory(root) if devices else ""
    return [
        *found,
        *(
            [f"{', '.join(devices)}: {limit}; allow more, or CAP_IPC_LOCK (on Kubernetes: --rdma)"]
            if limit
            else []
        ),
    ]


def locked_memory(root: str = "/") -> str:
    """Return the limit of locked memory in words if it is too low to register buffers, or ""."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or soft >= _LOCKED_BYTES or capable(_IPC_LOCK, root):
        return ""
    return f"the limit of locked memory (ulimit -l) is {soft >> 10} KiB"
