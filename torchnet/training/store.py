"""The store through which the ranks find each other, listening on a single address if possible.

torch's TCPStore listens on every interface, whatever MASTER_ADDR is, and has no authentication; anyone who
reaches it can run code (PyTorch's SECURITY.md). But it accepts a bound socket (``master_listen_fd``, with and
without libuv), so rank 0 binds one to MASTER_ADDR, net1's address under torchnet, and eth0 stays closed.
"""

from __future__ import annotations

import errno
import os
import socket
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING

from torchnet.errors import UsageError
from torchnet.text import printable
from torchnet.training.world import World

if TYPE_CHECKING:
    from torch.distributed import Store, TCPStore

DEFAULT_TIMEOUT = timedelta(minutes=30)  # torch's default, torch/distributed/constants.py

# Kept until the process ends: others may still query rank 0's store when it is done with the group, and a
# second group of this process finds it at the same port.
_kept: dict[tuple[str, int, int], TCPStore] = {}


def connect(world: World, timeout: timedelta | None) -> Store:
    """Return the store of all ranks, served by rank 0, or by torchrun's agent if the environment says so.

    Raises:
        UsageError: MASTER_PORT is in use, or MASTER_ADDR is neither an address nor a resolvable name.
        torch.distributed.DistNetworkError, DistStoreError: the store did not answer within ``timeout``.
    """
    from torch.distributed import TCPStore

    key = (world.address, world.port, os.getpid())
    if key not in _kept:
        serves = world.rank == 0 and not world.agent_store
        descriptor = listen(world.address, world.port) if serves else None
        _kept[key] = TCPStore(
            world.address,
            world.port if descriptor is None else _port(descriptor),
            world.world_size if not world.agent_store else None,
            serves,
            timeout=timeout or DEFAULT_TIMEOUT,
            multi_tenant=not world.agent_store,
            master_listen_fd=descriptor,
            use_libuv=world.libuv,
        )
    return _kept[key]


def listen(address: str, port: int) -> int | None:
    """Return a descriptor that listens only on ``address`` and ``port``; None if the address is not local.

    It is not local if MASTER_ADDR is translated on the way (a Service, NAT). The store then listens on all
    interfaces, as torch does, and a warning says so.

    Raises:
        UsageError: the port is in use, or ``address`` does not resolve.
        OSError: any other failure to bind or listen.
    """
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"MASTER_ADDR is {printable(address, 80)}, which is neither an address nor a known name ({error})",
            fix="give rank 0's address as a bare literal, such as fcbb:0:800:ffff::a",
        ) from None
    for family, kind, protocol, _, where in found:
        try:
            listening = socket.socket(family, kind, protocol)
        except OSError:
            continue  # this kernel lacks the family
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(where)
            listening.listen(4096)
            return listening.detach()
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"MASTER_PORT {port} on {printable(address, 80)} is in use by another program",
                    fix=f"find it: ss -ltnp 'sport = :{port}'; or set another MASTER_PORT for all ranks",
                ) from None
            if error.errno != errno.EADDRNOTAVAIL:
                raise
    warnings.warn(
        f"MASTER_ADDR {printable(address, 80)} is not an address of this machine: the store listens on all addresses",
        RuntimeWarning,
        stacklevel=4,
    )
    return None


def _port(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        return int(listening.getsockname()[1])
