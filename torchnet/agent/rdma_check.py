"""The RDMA devices that count as backend, and whether processes can use them: their ports, GIDs and locked memory.

The MTU is not checked here. Only verbs (ibv_query_port) tell a port's active_mtu: /sys has no file of it. RoCE's is
derived from the interface's MTU, which the workers compare, and NCCL takes the smaller one of both ends.
"""

from __future__ import annotations

import glob
import os
import resource
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torchnet.agent.rdma import (
    INFINIBAND,
    admitted,
    capable,
    devices,
    gids,
    link_layers,
    on_rails,
    packed,
    read_text,
    visible,
)
from torchnet.agent.spec import AgentSpec

_IPC_LOCK = 14
_LOCKED_BYTES = 1 << 30  # less is not enough for the buffers of NCCL on 8 GPUs


@dataclass(frozen=True)
class BackendDevices:
    """The RDMA devices that count as backend.

    Attributes:
        all: Those on the rails and those of ``--network rdma:``, or those that the user's NCCL_IB_HCA names.
        usable: Those of them that the job can open.
        exported: Whether NCCL_IB_HCA names them.
        named: Whether the user named some; their addresses need not be the rails'.
    """

    all: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()
    exported: bool = False
    named: bool = False


def backend_devices(
    spec: AgentSpec, environ: Mapping[str, str], rails: Iterable[tuple[str, str]]
) -> BackendDevices:
    """Return the devices of one worker; ``environ`` is the user's, ``rails`` are (interface, address)."""
    hcas = environ.get("NCCL_IB_HCA", "").strip()
    exported = bool(hcas) and not hcas.startswith("^")
    named = exported or bool(spec.devices)
    if spec.loopback:
        return BackendDevices(exported=exported, named=named)
    if exported:
        found = tuple(one for one in visible() if admitted(hcas, one))
    else:
        found = tuple(dict.fromkeys((*on_rails(rails), *spec.devices)))
    can_open = devices()
    return BackendDevices(found, tuple(one for one in found if one in can_open), exported, named)


def check(spec: AgentSpec, rails: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return (failures, warnings) about this worker's devices, to be called where its processes run.

    Only what ``--network rdma:`` requires can be a failure. Otherwise NCCL may go on over other devices or TCP, and a
    script that uses Gloo needs none.
    """
    rails = tuple(rails)
    found = backend_devices(spec, {**os.environ, **spec.env}, rails)
    required = () if found.exported else spec.devices
    failures, warnings = problems(found.usable, () if found.named else rails, required=required)
    return [f"{spec.name}: {text}" for text in failures], warnings


def problems(
    devices: Collection[str],
    rails: Iterable[tuple[str, str]],
    root: str = "/",
    *,
    required: Collection[str] = (),
) -> tuple[list[str], list[str]]:
    """Return (failures, warnings) about ``devices``, which are on rails, each given as (interface, address).

    Args:
        required: Devices without which the job's backend does not exist.
    """
    failures, found = [], []
    for device in devices:
        ports = glob.glob(f"{glob.escape(os.path.join(root, INFINIBAND, device))}/ports/*")
        states = [read_text(os.path.join(port, "state")).partition(": ")[2] for port in ports]
        known = ", ".join(filter(None, states))
        if "ACTIVE" in states:
            continue
        if not known:
            found.append(f"{device}: the state of its ports cannot be read, so none may be ACTIVE")
        elif device in required:
            failures.append(
                f"{device}: no port is ACTIVE ({known}), and --network rdma:{device} requires it; fix: check its cable "
                f"and switch port; cat /sys/class/infiniband/{device}/ports/*/state"
            )
        else:
            found.append(f"{device}: no port is ACTIVE ({known}), so NCCL does not use it")
    # InfiniBand has no GID of an address.
    roce = [device for device in devices if "Ethernet" in link_layers(device, root)]
    own = {gid for device in roce for gid in gids(device, root)}
    found += [
        f"{', '.join(roce)}: no GID of {interface}'s address {address}, so RoCE would use another address"
        for interface, address in rails
        if roce and packed(address) not in own
    ]
    limit = locked_memory(root) if devices else ""
    return failures, [
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
