"""The collectives as torch has them, each as something to call again and again, with what must come out of it.

Where nccl-tests has an out-of-place and an in-place form and torch has one (all_reduce, broadcast and reduce work in
place; all_to_all and send_recv do not), that one is measured; all_gather and reduce_scatter have both: the input, or
the output, is the rank's own part of the other.
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
    """``elements``: of the whole message, a multiple of ``ranks`` where it is divided among them. ``root`` is a rank
    of the group, which has all ranks."""

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
    """``run`` is one call. ``fill`` makes input and output anew; ``wrong`` counts the elements of this rank's output
    that are not as they must be. ``clear`` makes everything zero, which no number of calls changes: neither infinite
    nor denormal numbers, which some processors are slow with."""

    run: Callable[[], None]
    fill: Callable[[], None]
    wrong: Callable[[], int]
    clear: Callable[[], None]


def forms(collective: Collective) -> tuple[bool, ...]:
    """The values of ``in_place`` that torch has for it."""
    if collective in ("all_gather", "reduce_scatter"):
        return (False, True)
    return (collective not in ("all_to_all", "send_recv"),)


def rounded(collective: Collective, sizes: tuple[int, ...], item: int, ranks: int) -> list[int]:
    """The sizes in bytes that can be measured: whole elements, as many for each rank where they are divided.

    Rounded down as nccl-tests does, but to one element each at least; each size once. ``item``: bytes of an element.
    """
    multiple = item * (ranks if collective in _DIVIDED else 1)
    return sorted({max(multiple, size // multiple * multiple) for size in sizes})


def memory(collective: Collective, size: int, item: int, ranks: int, in_place: bool) -> int:
    """Bytes that a rank needs for messages of ``size`` bytes: its buffers, as much again for what the backend may copy
    (Gloo's reduce_scatter does), and what filling and checking take."""
    buffers = size if in_place else 2 * size
    if collective in ("all_gather", "reduce_scatter") and not in_place:
        buffers = size + size // ranks
    return buffers + size + 4 * min(size, CHUNK * item) + 2 * CHUNK * item


def call(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    """Allocates the buffers. ``patterns`` belong to the setting's dtype, op and ranks."""
    return _MAKERS[setting.collective](setting, patterns)


def _made(
    setting: CollectiveSetting,
    patterns: Patterns,
    run: Callable[[], None],
    wrong: Callable[[], int],
    given: torch.Tensor,
    output: torch.Tensor | None = None,
) -> CollectiveCall:
    """The call of what each rank puts its row into."""

    def fill() -> None:
        if output is not None:  # first, as one may be a part of the other
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

    return _made(setting, patterns, run, lambda: patterns.result.wrong(buffer, 0), buffer)


def _reduce(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    buffer, op, group, root = _buffer(setting), _OPS[setting.op], setting.group, setting.root

    def run() -> None:
        dist.reduce(buffer, root, op, group)

    def wrong() -> int:  # what the others' buffers hold afterwards is not defined
        return patterns.result.wrong(buffer, 0) if setting.rank == root else 0

    return _made(setting, patterns, run, wrong, buffer)


def _broadcast(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    buffer, group, root = _buffer(setting), setting.group, setting.root

    def fill() -> None:
        if setting.rank == root:
            patterns.put.fill(buffer, root)
        else:
            buffer.fill_(POISON)

    def run() -> None:
        dist.broadcast(buffer, root, group)

    made = _made(setting, patterns, run, lambda: patterns.put.wrong(buffer, root), buffer)
    return replace(made, fill=fill)


def _all_gather(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    part, group, rank = setting.elements // setting.ranks, setting.group, setting.rank
    output = _buffer(setting)
    given = output[rank * part : (rank + 1) * part] if setting.in_place else _buffer(setting, part)

    def run() -> None:
        dist.all_gather_into_tensor(output, given, group)

    def wrong() -> int:
        parts = enumerate(output.split(part))
        return sum(patterns.put.wrong(one, sender) for sender, one in parts)

    return _made(setting, patterns, run, wrong, given, output)


def _reduce_scatter(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    part, group, rank, op = setting.elements // setting.ranks, setting.group, setting.rank, _OPS[setting.op]
    given = _buffer(setting)
    output = given[rank * part : (rank + 1) * part] if setting.in_place else _buffer(setting, part)

    def run() -> None:
        dist.reduce_scatter_tensor(output, given, op, group)

    return _made(setting, patterns, run, lambda: patterns.result.wrong(output, rank * part), given, output)


def _all_to_all(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    part, group, rank = setting.elements // setting.ranks, setting.group, setting.rank
    given, output = _buffer(setting), _buffer(setting)

    def run() -> None:
        dist.all_to_all_single(output, given, group=group)

    def wrong() -> int:
        parts = enumerate(output.split(part))
        return sum(patterns.put.wrong(one, rank * part + sender) for sender, one in parts)

    return _made(setting, patterns, run, wrong, given, output)


def _send_recv(setting: CollectiveSetting, patterns: Patterns) -> CollectiveCall:
    given, output, group = _buffer(setting), _buffer(setting), setting.group
    after, before = (setting.rank + 1) % setting.ranks, (setting.rank - 1) % setting.ranks

    def run() -> None:
        pair = [dist.P2POp(dist.isend, given, after, group), dist.P2POp(dist.irecv, output, before, group)]
        for work in dist.batch_isend_irecv(pair):
            work.wait()

    return _made(setting, patterns, run, lambda: patterns.put.wrong(output, before), given, output)


_MAKERS: dict[Collective, Callable[[CollectiveSetting, Patterns], CollectiveCall]] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "broadcast": _broadcast,
    "reduce": _reduce,
    "all_to_all": _all_to_all,
    "send_recv": _send_recv,
}
