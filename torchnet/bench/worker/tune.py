"""Which settings make a training faster on this network: DDP's steps with each of them, by turns.

Each round has every setting once and a baseline before them, so that whatever else the machines do meets all of them
alike. First one setting at a time is changed, then the best of these together. What needs a new start of the job the
launcher tries (torchnet.bench.relaunch): then the ranks measure the settings that the job has.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from torchnet.bench.worker import messages
from torchnet.bench.worker.ddp_steps import Trainer, width_for
from torchnet.bench.worker.rank_context import RankContext
from torchnet.bench.worker.worker_config import ROUNDS, WorkerConfig
from torchnet.constants import TUNE_PREFIX

Say = Callable[[messages.Message], None]

_BUCKETS = ("1", "5", "100")  # MiB; torch's own are 25, the first one 1
_DEVICES = ("2", "4")


@dataclass(frozen=True)
class TuneSetting:
    """``values``: by the names of the table ``tune`` in torchnet's settings."""

    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return messages.named(self.values)

    @property
    def numerics(self) -> bool:
        return "compress" in self.values


def measure(plan: WorkerConfig, place: RankContext, say: Say) -> None:
    """Try them all, and say what was found, a baseline before each group of settings. All ranks call it at once."""
    trainer = _trainer(plan, place, say)
    if trainer is not None:
        with _untuned():
            _Tuner(plan, place, say, trainer).run()


def as_started(plan: WorkerConfig, place: RankContext, say: Say) -> None:
    """Say one figure, of the settings that this job was started with. All ranks call it at once."""
    trainer = _trainer(plan, place, say)
    if trainer is None:
        return
    rate = trainer.rate(compress=None)
    before = trainer.count
    trainer.lasting(plan.seconds, rate)
    if trainer.count > before:
        rate = trainer.rate(compress=None)
    say(messages.Tried(messages.named({}), {}, [rate], numerics=False))


def _trainer(plan: WorkerConfig, place: RankContext, say: Say) -> Trainer | None:
    """None where there is nothing to try, which has been said then."""
    if place.ranks < 2:
        say(messages.Lacks("tuning", "there is one rank alone: nothing moves"))
        return None
    width = width_for(plan.memory)
    if width is None:
        say(messages.Lacks("tuning", f"the model needs more than the {plan.memory} bytes that may be used"))
        return None
    nccl = "nccl" in str(dist.get_backend())
    device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
    return Trainer(place, device, width)


@contextmanager
def _untuned() -> Iterator[None]:
    """Without the settings that this job was started with: they would be the baseline's, too."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(TUNE_PREFIX)}
    try:
        yield
    finally:
        os.environ.update(kept)


class _Tuner:
    def __init__(self, plan: WorkerConfig, place: RankContext, say: Say, trainer: Trainer) -> None:
        self._plan, self._place, self._say, self._trainer = plan, place, say, trainer
        self._groups: dict[str, Any] = {}

    def run(self) -> None:
        # Of the baseline, too: a group of its own has other connections than the default one.
        self._groups["1"] = self._group(1)
        try:
            self._run()
        finally:
            for group in self._groups.values():
                dist.destroy_process_group(group)

    def _run(self) -> None:
        singles = [TuneSetting({"bucket_cap_mb": value}) for value in _BUCKETS]
        if self._trainer.device.type == "cpu":
            for value in _DEVICES:
                self._groups[value] = self._group(int(value))
            singles += [TuneSetting({"gloo_devices": value}) for value in _DEVICES]
        self._trainer.lasting(self._plan.seconds, self._try(TuneSetting()))
        figures = self._rounds(0, "one setting at a time", singles)
        together = combined(singles, figures)
        # All ranks have timed for themselves: rank 0's word counts.
        together = TuneSetting(_pairs(self._place.exchange(_text(together.values))[0]))
        second = [together] if len(together.values) > 1 else []
        if self._plan.tune_numerics:
            for how in ("bf16", "fp16"):
                second.append(TuneSetting({"compress": how}))
                if together.values:
                    second.append(TuneSetting({**together.values, "compress": how}))
        if second:
            self._rounds(1, "the best of them together", second)

    def _rounds(self, group: int, what: str, settings: Sequence[TuneSetting]) -> list[list[float]]:
        """Steps per second of the baseline (first) and of each setting, in each round; said after each."""
        everything = [TuneSetting(), *settings]
        figures: list[list[float]] = [[] for _ in everything]
        for number in range(ROUNDS):
            self._say(messages.Progress(f"tuning, {what}: round {number + 1} of {ROUNDS}"))
            for setting, found in zip(everything, figures, strict=True):
                found.append(self._try(setting))
            for place, (setting, found) in enumerate(zip(everything, figures, strict=True)):
                values = dict(setting.values)
                self._say(
                    messages.Tried(setting.name, values, list(found), setting.numerics, not place, group)
                )
        return figures

    def _group(self, times: int) -> Any:
        """A group whose Gloo has so many devices on each interface."""
        if self._trainer.device.type != "cpu":
            return dist.new_group()
        before = os.environ.get("GLOO_SOCKET_IFNAME")
        if before:
            own = list(dict.fromkeys(before.split(",")))
            os.environ["GLOO_SOCKET_IFNAME"] = ",".join(own * times)
        try:
            return dist.new_group(backend="gloo")
        finally:
            if before:
                os.environ["GLOO_SOCKET_IFNAME"] = before

    def _try(self, setting: TuneSetting) -> float:
        options: dict[str, Any] = {"process_group": self._groups[setting.values.get("gloo_devices", "1")]}
        if "bucket_cap_mb" in setting.values:
            options["bucket_cap_mb"] = float(setting.values["bucket_cap_mb"])
        return self._trainer.rate(compress=setting.values.get("compress", "none"), **options)


def combined(singles: Sequence[TuneSetting], figures: Sequence[Sequence[float]]) -> TuneSetting:
    """Of each kind of setting the best that is better than the baseline, by the median ratio of each round."""
    baseline = figures[0]
    values: dict[str, str] = {}
    best: dict[str, float] = {}
    for setting, found in zip(singles, figures[1:], strict=True):
        ((name, value),) = setting.values.items()
        ratio = statistics.median(one / base for one, base in zip(found, baseline, strict=True))
        if ratio > best.get(name, 1.0):
            best[name], values[name] = ratio, value
    return TuneSetting(values)


def _text(values: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in values.items())


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)
