"""`torchnet.init()`: the default process group, under torchnet, under torchrun or in a single process."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torchnet.errors import UsageError
from torchnet.training import store as stores
from torchnet.training import world as worlds
from torchnet.training.world import World

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

MIXED = "cpu:gloo,cuda:nccl"
# Nothing needs to reach a single process from elsewhere, so Gloo and NCCL stay on loopback.
_ALONE = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo"}
_OURS = ("init_method", "rank", "world_size", "store")

_generation = 0  # groups that this process has created, as many as every other rank


@dataclass(frozen=True)
class Context:
    """This process's place in the job. As a context manager it destroys the group that :func:`init` created.

    Attributes:
        rank: 0 … ``world_size`` - 1, in the job.
        world_size: number of processes of the job.
        local_rank: 0 … ``local_world_size`` - 1, on its node (worker).
        local_world_size: number of processes of this node.
        node_rank: the node's number.
        device: where tensors belong: ``cuda:N``, already the current device, if NCCL is a backend, else
            ``cpu``.
        backend: of the group, such as "gloo", "nccl" or "cpu:gloo,cuda:nccl".
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node_rank: int
    device: torch.device
    backend: str
    _owner: bool = field(default=False, repr=False, compare=False)

    def close(self) -> None:
        """Destroy the group if :func:`init` created it for this context and it still exists; safe to repeat."""
        import torch.distributed as dist

        if self._owner and dist.is_initialized():
            dist.destroy_process_group()
            for name in _set_by_us:
                os.environ.pop(name, None)
            _set_by_us.clear()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # If an exception ends one rank, NCCL would wait for collectives that never come: let the process end.
        if kind is None or "nccl" not in self.backend:
            self.close()


_set_by_us: set[str] = set()


def init(backend: str | None = None, timeout: float | timedelta | None = None, **options: Any) -> Context:
    """Initialise the default group of ``torch.distributed``, and return this process's place in the job.

    Under torchnet and torchrun this follows the variables that they set (RANK, WORLD_SIZE, MASTER_ADDR,
    MASTER_PORT, LOCAL_RANK, LOCAL_WORLD_SIZE). If none of the first four is set, this is a single process:
    world size 1, and nothing listens beyond loopback. An existing default group stays as it is,
    with a RuntimeWarning if ``backend`` asks for another.

    Rank 0 serves the store on MASTER_ADDR only (net1's address under torchnet), whereas torch listens on all
    interfaces. If MASTER_ADDR is not an address of its machine, it listens on all, too, with a warning. Under
    torchrun the store is torchrun's.

    Args:
        backend: as in ``torch.distributed.init_process_group``. None: "cpu:gloo,cuda:nccl" if every process
            has a CUDA device of its own, "gloo" if none has; the ranks agree on it.
        timeout: of collectives and of the ranks' rendezvous, in seconds or as a timedelta. None: torch's
            default (30 minutes, NCCL 10).
        options: passed on to ``init_process_group`` (``pg_options``, ``device_id``).

    Returns:
        The :class:`Context`. ``with torchnet.init() as context:`` destroys the group at the end, except when
        an exception ends the block under NCCL.

    Raises:
        UsageError: variables are missing or invalid (names all), MASTER_PORT is in use, ``options`` contains
            what the variables set, NCCL is requested without a CUDA device for this process, or only some
            ranks have CUDA devices.
        torch.distributed.DistError: the ranks did not meet within ``timeout``.

    Source:
        torch/distributed/distributed_c10d.py and rendezvous.py, torch 2.6 to 2.15.
    """
    import torch
    import torch.distributed as dist

    conflicts = [name for name in _OURS if name in options]
    if conflicts:
        raise UsageError(
            f"torchnet.init() takes {', '.join(conflicts)} from the environment",
            fix="remove the argument, or call torch.distributed.init_process_group instead",
        )
    world = worlds.read(os.environ)
    if dist.is_initialized():
        return _present(world, backend)
    span = timedelta(seconds=timeout) if isinstance(timeout, int | float) else timeout
    store: Store
    if world is None:
        world = World(0, 1, 0, 1, 0, "", 0, 0, agent_store=False, libuv=True)
        store = dist.HashStore()
        for name, value in _ALONE.items():
            if name not in os.environ:
                os.environ[name] = value
                _set_by_us.add(name)
    else:
        store = stores.connect(world, span)
    global _generation
    _generation += 1
    # The store outlives groups and, under torchrun, attempts, so each has its own keys.
    store = dist.PrefixStore(f"torchnet/{world.attempt}/{_generation}", store)
    cuda = _own_device(world)
    if backend is None:
        backend = MIXED if _all_have_cuda(world, store, cuda, span) else "gloo"
    elif "nccl" in backend and cuda is None:
        raise UsageError(_no_device(world), fix="start fewer processes per node, or use backend='gloo'")
    device = torch.device("cpu")
    if "nccl" in backend and cuda is not None:
        device = torch.device("cuda", cuda)
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend, store=store, rank=world.rank, world_size=world.world_size, timeout=span, **options
    )
    return _context(world, device, backend, owner=True)


def _own_device(world: World) -> int | None:
    """Return the index of this process's own CUDA device; None if there are fewer devices than processes.

    Raises:
        UsageError: LOCAL_RANK is needed and unset.
    """
    import torch
    import torch.distributed as dist

    if not (torch.cuda.is_available() and dist.is_nccl_available()):
        return None
    count = torch.cuda.device_count()
    if world.local_rank is None and world.world_size > 1 and count > 1:
        raise UsageError(
            f"LOCAL_RANK is not set, so rank {world.rank} cannot tell which of {count} CUDA devices is its own",
            fix="start the script with `torchnet launch` or torchrun, or set LOCAL_RANK and LOCAL_WORLD_SIZE",
        )
    return (world.local_rank or 0) if world.local_world_size <= count else None


def _all_have_cuda(world: World, store: Store, cuda: int | None, timeout: timedelta | None) -> bool:
    """Return whether every rank has its own CUDA device; a few store requests per rank at any world size.

    The ranks must agree: with NCCL on some and Gloo on others the first collective would hang.

    Raises:
        UsageError: only some ranks have one.
    """
    if world.world_size == 1:
        return cuda is not None
    if cuda is not None:
        store.add("cuda", 1)
    if store.add("ranks", 1) == world.world_size:
        store.set("with-cuda", str(store.add("cuda", 0)))
    store.wait(["with-cuda"], timeout or stores.DEFAULT_TIMEOUT)
    having = int(store.get("with-cuda"))
    if 0 < having < world.world_size:
        own = f"rank {world.rank} has one" if cuda is not None else _no_device(world)
        raise UsageError(
            f"only {having} of {world.world_size} ranks have a CUDA device each; {own}",
            fix="give every node as many devices as processes, or use backend='gloo'",
        )
    return having > 0


def _no_device(world: World) -> str:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"rank {world.rank} sees {count} CUDA devices for {world.local_world_size} processes"


def _present(world: World | None, backend: str | None) -> Context:
    """Return the context of an existing group."""
    import torch
    import torch.distributed as dist

    have = str(dist.get_backend())
    if backend is not None and backend != have:
        text = f"the process group already exists with the backend {have}; {backend} is ignored"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    rank, size = dist.get_rank(), dist.get_world_size()
    if world is None or (world.rank, world.world_size) != (rank, size):
        world = World(rank, size, None, 1, rank, "", 0, 0, agent_store=False, libuv=True)
    cuda = "nccl" in have and torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    return _context(world, device, have, owner=False)


def _context(world: World, device: torch.device, backend: str, *, owner: bool) -> Context:
    return Context(
        rank=world.rank,
        world_size=world.world_size,
        local_rank=world.local_rank or 0,
        local_world_size=world.local_world_size,
        node_rank=world.node_rank,
        device=device,
        backend=backend,
        _owner=owner,
    )
