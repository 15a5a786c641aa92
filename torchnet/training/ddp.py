"""`torchnet.tune()`: DistributedDataParallel with the buckets and the compression that the job's settings ask for."""

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
    """``DistributedDataParallel(module, **options)``, as the settings ``[tool.torchnet.tune]`` say.

    They arrive as TORCHNET_TUNE_BUCKET_CAP_MB and TORCHNET_TUNE_COMPRESS; what is said here goes before them. Without
    either this is torch's DistributedDataParallel. A module that is one already gets the compression alone; one that
    torch.compile made of it, too.

    Args: compress: how gradients travel: "none", "bf16" or "fp16". The latter two halve the bytes and round each
    gradient before it is summed, so the results differ a little; nothing but these words switches them on. They keep
    half of the gradients' memory. options: DistributedDataParallel's own, as ``bucket_cap_mb`` (MiB).

    Raises UsageError: ``compress`` or TORCHNET_TUNE_BUCKET_CAP_MB is nonsense; the module has FSDP's parts.
    RuntimeError (torch's): the module has a hook already.
    """
    import torch

    variable = f"{TUNE_PREFIX}COMPRESS"
    how = compress if compress is not None else os.environ.get(variable) or "none"
    if how not in _DTYPES:
        raise UsageError(f"compress={how!r} is not known", fix=f"none, bf16 or fp16 (compress=, {variable})")
    if any(_SHARDED & {kind.__name__ for kind in type(part).__mro__} for part in module.modules()):
        raise UsageError(
            "torchnet.tune() is for DistributedDataParallel, and this module is FSDP's, which moves gradients itself",
            fix="leave torchnet.tune() out",
        )
    cap = os.environ.get(f"{TUNE_PREFIX}BUCKET_CAP_MB")
    parallel = getattr(module, "_orig_mod", module)  # what torch.compile was given
    if isinstance(parallel, torch.nn.parallel.DistributedDataParallel):
        if cap or options:
            text = "torchnet.tune() cannot change the buckets of what is in DistributedDataParallel: give it the module"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
    else:
        if cap:
            options.setdefault("bucket_cap_mb", _mebibytes(cap))
        module = parallel = torch.nn.parallel.DistributedDataParallel(module, **options)
    if how != "none":
        state = _Compressed(parallel.process_group, getattr(torch, _DTYPES[how]))
        # DDP looks at a hook's annotations, and does not take them as texts.
        parallel.register_comm_hook(state, lambda state, bucket: _hook(state, bucket))  # noqa: PLW0108
    return cast("DistributedDataParallel", module)


def _mebibytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 10000:
        said = f"{TUNE_PREFIX}BUCKET_CAP_MB={text!r} is no number from 0.1 to 10000"
        raise UsageError(said, fix="--tune bucket_cap_mb=MIB")
    return value


class _Compressed:
    """``kept``: the memory of each bucket's compressed gradients, since new pages would cost as much as the sums."""

    def __init__(self, group: Any, dtype: torch.dtype) -> None:
        self.group = group
        self.dtype = dtype
        self.kept: dict[int, torch.Tensor] = {}


def _hook(state: _Compressed, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """As torch's own hooks, without new memory each time."""
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
        done.value()  # raises where the sum failed: then() calls this in any case
        return gradients.copy_(small)

    return work.get_future().then(back)
