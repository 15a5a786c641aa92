"""What may have carried a worker's bytes besides TCP: its RDMA devices, and what no counter of this machine shows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torchnet.agent.rdma import names, read_text
from torchnet.agent.rdma_check import locked_memory
from torchnet.agent.rdma_counters import RdmaDevice
from torchnet.agent.share_bounds import PeerPayload, Unattributed
from torchnet.units import size

SLACK_BYTES = 128 << 10  # of a device that was not used: management packets, over a whole run
# One exchange of the gradients of a million parameters. A job that trains with NCCL moves more.
GRADIENT_BYTES = 4 << 20
_LEAST_PAYLOAD = 0.9
# torch's names of ProcessGroupNCCL's threads (ncclCommWatchdog and HeartbeatMonitor in ProcessGroupNCCL.cpp).
_NCCL_THREADS = ("pt_nccl_watchdg", "pt_nccl_heartbt")


@dataclass(frozen=True)
class Transports:
    """The transports of one worker at the end of its script.

    Attributes:
        devices: All RDMA devices that are visible or can be opened.
        nccl: Whether a process of the job had an NCCL process group.
        causes: What on this worker can keep NCCL from using RDMA.
    """

    devices: tuple[RdmaDevice, ...] = ()
    nccl: bool = False
    causes: tuple[str, ...] = ()

    @property
    def own(self) -> dict[str, int]:
        """The bytes by device on a rail that only this pod uses: the job's, over the backend."""
        return self._moved(lambda device: device.on_rail and device.exclusive)

    @property
    def shared(self) -> dict[str, int]:
        """The bytes by device on a rail that others may use, too: at most these are the job's, over the backend."""
        return self._moved(lambda device: device.on_rail and not device.exclusive)

    @property
    def stray(self) -> dict[str, int]:
        """The bytes by device on no rail: at most these are the job's, over something else."""
        return self._moved(lambda device: not device.on_rail)

    @property
    def unreadable(self) -> tuple[RdmaDevice, ...]:
        """The devices that the job can open and whose bytes are unknown."""
        return tuple(device for device in self.devices if device.openable and device.total is None)

    @property
    def payload(self) -> PeerPayload:
        """What RDMA adds to the payload with peers; meaningless if a device is ``unreadable``.

        The least assumes that messages fill packets of 1,024 bytes or more; InfiniBand's counters contain up to 82
        bytes of headers per packet.
        """
        least = {name: int(count * _LEAST_PAYLOAD) for name, count in self.own.items()}
        unattributed = [
            Unattributed(name, count - least[name], "rdma-headers") for name, count in self.own.items()
        ]
        own, shared, stray = (sum(part.values()) for part in (self.own, self.shared, self.stray))
        if shared > SLACK_BYTES:
            unattributed += [Unattributed(name, count, "rdma-shared") for name, count in self.shared.items()]
        if stray > SLACK_BYTES:
            unattributed += [Unattributed(name, count, "rdma-stray") for name, count in self.stray.items()]
        shared, stray = (count if count > SLACK_BYTES else 0 for count in (shared, stray))
        return PeerPayload(sum(least.values()), own + shared, 0, stray, tuple(unattributed))

    def _moved(self, chosen: Callable[[RdmaDevice], bool]) -> dict[str, int]:
        return {d.name: d.total for d in self.devices if d.openable and d.total and chosen(d)}

    def hidden(self, peer_bytes: int) -> bool:
        """Return whether the job must have moved bytes that no counter shows.

        Args:
            peer_bytes: exchanged with other workers over TCP.
        """
        moved = peer_bytes + sum(device.total or 0 for device in self.devices if device.openable)
        return self.nccl and moved < GRADIENT_BYTES

    def doubts(self, peer_bytes: int) -> list[str]:
        """Return why bytes of this worker may be counted wrongly or not at all."""
        found = [f"{device.name}: the job can open it, but {device.reason}" for device in self.unreadable]
        if sum(self.stray.values()) > SLACK_BYTES:
            found.append(
                f"RDMA devices on no rail moved {_listed(self.stray)}: of this job, or of others; NCCL_IB_HCA names "
                "the backend's devices, and NCCL_NET=Socket uses only TCP"
            )
        if sum(self.shared.values()) > SLACK_BYTES:
            found.append(
                f"RDMA devices that other jobs can use moved {_listed(self.shared)}: the share does not contain them"
            )
        if self.hidden(peer_bytes):
            found.append(
                f"NCCL ran, but only {size(peer_bytes)} went to other workers over TCP: another transport carried the "
                "gradients (NVLink between nodes, TCPX, cxi), or there were none"
            )
        return found

    def unused(self, peer_bytes: int) -> list[str]:
        """Return a sentence for the rails' devices that NCCL did not use although it exchanged gradients."""
        idle = [d for d in self.devices if d.on_rail and (d.total is not None and d.total <= SLACK_BYTES)]
        if not idle or not self.nccl or peer_bytes < GRADIENT_BYTES:
            return []
        closed = [f"{d.name} cannot be opened (/dev/infiniband)" for d in idle if not d.openable]
        causes = "; ".join([*closed, *self.causes]) or "NCCL_IB_HCA, or no GID of the rail's address family"
        shown = ", ".join(d.name for d in idle)
        return [
            f"{shown} carried nothing, but TCP carried {size(peer_bytes)}: NCCL used sockets. Possible causes: {causes}"
        ]


NO_TRANSPORTS = Transports()


def unseen(devices: Iterable[str], moved: int, *, nccl: bool) -> str:
    """Return by what a worker's processes may exchange data that is not in ``moved``, or "".

    Args:
        devices: the RDMA devices without a count, each with the reason.
        moved: bytes so far, by TCP and RDMA.
        nccl: whether a process has an NCCL process group.
    """
    found = list(devices)
    if nccl and moved < GRADIENT_BYTES:
        found.append("NCCL may use a transport without counters, such as NVLink between nodes")
    return "; ".join(found)


def _listed(moved: Mapping[str, int]) -> str:
    return ", ".join(f"{size(count)} ({name})" for name, count in moved.items())


def causes(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what in a process's environment and limits can keep NCCL from using RDMA."""
    found = [
        f"{name}={value}"
        for name, unused in (("NCCL_IB_DISABLE", ("", "0")), ("NCCL_NET", ("", "ib")))
        if (value := environ.get(name, "")).lower() not in unused
    ]
    return (*found, *filter(None, [locked_memory()]))


class NcclWatch:
    """Notices an NCCL process group by the names of its threads."""

    def __init__(self) -> None:
        self.seen = False
        self._began = time.monotonic()
        self._next = 0.0

    def poll(self, pids: Callable[[], Iterable[int]]) -> None:
        """Look at the processes if it is time. Each wait is a tenth of the time so far: late groups are found, too."""
        elapsed = time.monotonic() - self._began
        if self.seen or elapsed < self._next:
            return
        self._next = elapsed * 1.1
        self.seen = any(_has_nccl(pid) for pid in pids())


def _has_nccl(pid: int) -> bool:
    folder = f"/proc/{pid}/task"
    return any(read_text(os.path.join(folder, task, "comm")) in _NCCL_THREADS for task in names(folder))
