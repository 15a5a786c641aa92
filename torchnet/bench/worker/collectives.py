"""torch's collectives, each as a call to repeat, with a check of its result.

nccl-tests has an out-of-place and an in-place form of each. torch has one form of most (all_reduce, broadcast and
reduce work in place, all_to_all and send_recv do not), and that one is measured. all_gather and reduce_scatter have
both: in place, the input or the output is the rank's own part of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from torchnet.bench.worker.busbw import Collective
from torchnet.bench.worker.correctness import CHUNK, POISON, Patterns, Redop

_DIVIDED: tuple[Collective, ...] = ("all_gather", "reduce_scatter", "all_to_all")
_OPS = {
    "sum": dist.ReduceOp.SUM, "prod": dist.ReduceOp.PRODUCT, "min": dist.ReduceOp.MIN, "max": dist.ReduceOp.MAX,
    "avg": dist.ReduceOp.AVG,
}  # fmt: skip


@dataclass(frozen=True)
class CollectiveSetting:
    """``elements`` is the number of elements of the whole message, a multiple of ``ranks`` if it is divided among them.
    ``root`` is a rank of the group, which has all ranks."""

    collective: Collective
    elements: int
    dtype: torch.dtype
    device: torch.device
    op: Redop
    root: int
    rank: int
    ranks: int
    group: Any
    in_place: bool


@dataclass(frozen=True)
class CollectiveCall:
    """One call and its checks.

    ``run`` makes one call. ``fill`` initialises input and output; ``wrong`` counts the wrong elements of this rank's
    output. ``clear`` sets everything to zero, which repeated calls do not change: the values never become infinite or
    denormal, and some processors are slow with those.
    """

    run: Callable[[], None]
    fill: Callable[[], None]
    wrong: Callable[[], int]
    clear: Callable[[], None]


def forms(collective: Collective) -> tuple[bool, ...]:
    """Return the values of ``in_place`` that torch supports for the collective."""
    if collective in ("all_gather", "reduce_scatter"):
        return (False, True)
    return (collective not in ("all_to_all", "send_recv"),)


def round_sizes(collective: Collective, sizes: tuple[int, ...], item: int, ranks: int) -> list[int]:
    """Return the sizes in bytes that can be measured: whole elements, and equal parts if they are divided among ranks.

    As in nccl-tests, sizes are round_sizes down, here to at least one element for each rank; duplicates are removed.
    ``item`` is the size of an element in bytes.
    """
    multiple = item * (ranks if collective in _DIVIDED else 1)
    return sorted({max(multiple, size // multiple * multiple) for size in sizes})


def memory(collective: Collective, size: int, item: int, ranks: int, in_place: bool) -> int:
    """Return the bytes that a rank needs for messages of ``size`` bytes: its buffers, the same again for a copy that
    the backend may make (Gloo's reduce_scatter does), and what filling and checking need."""
    buffers = size if in_place else 2 * size
    if collective in ("all_gather", "reduce_scatter") and not in_place:
        buffers = size + size // ranks
    return buffers + size + 4 * min(size, CHUNK * item) + 2 * CHUNK * item


def call(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    """Allocate the buffers. ``patterns`` must match the setting's dtype, op and ranks."""
    return _MAKERS[setting.collective](setting, patterns)


def _build_call(
    setting: CollectiveSetting,
    patterns: Patterns,
    run: Callable[[], None],
    wrong: Callable[[], int],
    given: torch.Tensor,
    output: torch.Tensor | None = None,
) -> CollectiveCall:
    """Build the call of a collective in which each rank contributes its row."""

    def fill() -> None:
        if output is not None:  # first, because one may be a part of the other
            output.fill_(POISON)
        patterns.put.fill(given, setting.rank)

    def clear() -> None:
        given.zero_()
        if output is not None:
            output.zero_()

    return CollectiveCall(run, fill, wrong, clear)


def _buffer(setting: CollectiveSetting, elements: int | None = None) -> torch.Tensor:
    count = setting.elements if elements is None else elements
    return torch.empty(count, dtype=setting.dtype, device=setting.device)


def _all_reduce(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    buffer, op, group = _buffer(setting), _OPS[setting.op], setting.group

    def run() -> None:
        dist.all_reduce(buffer, op, group)

    return _build_call(setting, patterns, run, lambda: patterns.result.wrong(buffer, 0), buffer)


def _reduce(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    buffer, op, group, root = _buffer(setting), _OPS[setting.op], setting.group, setting.root

    def run() -> None:
        dist.reduce(buffer, root, op, group)

    def wrong() -> int:  # the other ranks' buffers are undefined afterwards
        return patterns.result.wrong(buffer, 0) if setting.rank == root else 0

    return _build_call(setting, patterns, run, wrong, buffer)


def _broadcast(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    buffer, group, root = _buffer(setting), setting.group, setting.root

    def fill() -> None:
        if setting.rank == root:
            patterns.put.fill(buffer, root)
        else:
            buffer.fill_(POISON)

    def run() -> None:
        dist.broadcast(buffer, root, group)

    call = _build_call(setting, patterns, run, lambda: patterns.put.wrong(buffer, root), buffer)
    return replace(call, fill=fill)


def _all_gather(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    part, group, rank = setting.elements // setting.ranks, setting.group, setting.rank
    output = _buffer(setting)
    given = output[rank * part : (rank + 1) * part] if setting.in_place else _buffer(setting, part)

    def run() -> None:
        dist.all_gather_into_tensor(output, given, group)

    def wrong() -> int:
        parts = enumerate(output.split(part))
        return sum(patterns.put.wrong(one, sender) for sender, one in parts)

    return _build_call(setting, patterns, run, wrong, given, output)


def _reduce_scatter(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    part, group, rank, op = setting.elements // setting.ranks, setting.group, setting.rank, _OPS[setting.op]
    given = _buffer(setting)
    output = given[rank * part : (rank + 1) * part] if setting.in_place else _buffer(setting, part)

    def run() -> None:
        dist.reduce_scatter_tensor(output, given, op, group)

    return _build_call(
        setting, patterns, run, lambda: patterns.result.wrong(output, rank * part), given, output
    )


def _all_to_all(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    part, group, rank = setting.elements // setting.ranks, setting.group, setting.rank
    given, output = _buffer(setting), _buffer(setting)

    def run() -> None:
        dist.all_to_all_single(output, given, group=group)

    def wrong() -> int:
        parts = enumerate(output.split(part))
        return sum(patterns.put.wrong(one, rank * part + sender) for sender, one in parts)

    return _build_call(setting, patterns, run, wrong, given, output)


def _send_recv(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    given, output, group = _buffer(setting), _buffer(setting), setting.group
    after, before = (setting.rank + 1) % setting.ranks, (setting.rank - 1) % setting.ranks

    def run() -> None:
        pair = [dist.P2POp(dist.isend, given, after, group), dist.P2POp(dist.irecv, output, before, group)]
        for work in dist.batch_isend_irecv(pair):
            work.wait()

    return _build_call(setting, patterns, run, lambda: patterns.put.wrong(output, before), given, output)


_MAKERS: dict[Collective, Callable[[CollectiveSetting, Patterns], CollectiveCall]] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "broadcast": _broadcast,
    "reduce": _reduce,
    "all_to_all": _all_to_all,
    "send_recv": _send_recv,
}
