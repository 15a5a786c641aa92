"""`torchnet.tune()`: DistributedDataParallel with the job's bucket size and gradient compression."""

from __future__ import annotations

import math
import os
import warnings
from typing import TYPE_CHECKING, Any, cast

from torchnet.constants import TUNE_PREFIX
from torchnet.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch.distributed import GradBucket
    from torch.nn.parallel import DistributedDataParallel

_DTYPES = {"none": "", "bf16": "bfloat16", "fp16": "float16"}
_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}


def tune(module: torch.nn.Module, *, compress: str | None = None, **options: Any) -> DistributedDataParallel:
    """Wrap ``module`` in DistributedDataParallel with the job's ``[tool.torchnet.tune]`` settings.

    The settings arrive as TORCHNET_TUNE_BUCKET_CAP_MB and TORCHNET_TUNE_COMPRESS; arguments take precedence.
    Without either this is ``DistributedDataParallel(module, **options)``. A module that already is a
    DistributedDataParallel, or torch.compile's wrapper of one, only gets the compression; a RuntimeWarning says
    that ``options`` and the bucket size have no effect, if they are set.

    Args:
        module: the model, without FSDP modules.
        compress: type in which gradients are sent: "none", "bf16" or "fp16"; None: TORCHNET_TUNE_COMPRESS,
            else "none". bf16 and fp16 halve the bytes of float32 gradients, and round each gradient before
            the sum, so results differ slightly. They need memory for a copy of the gradients in that type.
        options: arguments of DistributedDataParallel, such as ``bucket_cap_mb`` (MiB).

    Returns:
        The DistributedDataParallel; or ``module`` itself if it already was one, compiled or not.

    Raises:
        UsageError: ``compress`` or TORCHNET_TUNE_BUCKET_CAP_MB (0.1 to 10000, MiB) is invalid, or the module
            contains FSDP modules.
        RuntimeError: from torch, the module already has a communication hook.

    Source:
        torch/nn/parallel/distributed.py, torch/distributed/algorithms/ddp_comm_hooks/default_hooks.py.
    """
    import torch

    variable = f"{TUNE_PREFIX}COMPRESS"
    how = compress if compress is not None else os.environ.get(variable) or "none"
    if how not in _DTYPES:
        raise UsageError(f"unknown compress={how!r}", fix=f"none, bf16 or fp16 (compress=, {variable})")
    if any(_SHARDED & {kind.__name__ for kind in type(part).__mro__} for part in module.modules()):
        raise UsageError(
            "torchnet.tune() is for DistributedDataParallel, but this module uses FSDP, which moves gradients itself",
            fix="remove the call of torchnet.tune()",
        )
    cap = os.environ.get(f"{TUNE_PREFIX}BUCKET_CAP_MB")
    parallel = getattr(module, "_orig_mod", module)  # the module inside torch.compile's wrapper
    if isinstance(parallel, torch.nn.parallel.DistributedDataParallel):
        if cap or options:
            text = "torchnet.tune() cannot change the buckets of a DistributedDataParallel; pass the unwrapped module"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
    else:
        if cap:
            options.setdefault("bucket_cap_mb", _mebibytes(cap))
        module = parallel = torch.nn.parallel.DistributedDataParallel(module, **options)
    if how != "none":
        state = _Compressed(parallel.process_group, getattr(torch, _DTYPES[how]))
        # DDP inspects a hook's annotations, and does not accept them as strings.
        parallel.register_comm_hook(state, lambda state, bucket: _hook(state, bucket))  # noqa: PLW0108
    return cast("DistributedDataParallel", module)


def _mebibytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 10000:
        problem = f"{TUNE_PREFIX}BUCKET_CAP_MB={text!r} is not a number from 0.1 to 10000"
        raise UsageError(problem, fix="--tune bucket_cap_mb=MIB")
    return value


class _Compressed:
    """The hook's state. ``kept``: each bucket's compressed gradients; new pages would cost as much as the sums."""

    def __init__(self, group: Any, dtype: torch.dtype) -> None:
        self.group = group
        self.dtype = dtype
        self.kept: dict[int, torch.Tensor] = {}


def _hook(state: _Compressed, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Compress like torch's own hooks, but without allocating memory each time."""
    import torch
    import torch.distributed as dist

    gradients = bucket.buffer()
    small = state.kept.get(bucket.index())
    if small is None or small.shape != gradients.shape:
        small = state.kept[bucket.index()] = torch.empty_like(gradients, dtype=state.dtype)
    # torch.mul(…, out=small) takes twice as long.
    small.copy_(gradients).mul_(1 / dist.get_world_size(state.group))
    work = dist.all_reduce(small, group=state.group, async_op=True)
    assert work is not None

    def back(done: torch.futures.Future[Any]) -> torch.Tensor:
        done.value()  # raises if the sum failed: then() calls this in any case
        return gradients.copy_(small)

    return work.get_future().then(back)
