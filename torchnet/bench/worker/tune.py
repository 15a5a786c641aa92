"""Which settings make a training faster on this network: DDP's steps with each of them, by turns.

The model is no real one, but its gradients are as large as those of one, come layer by layer as in any backward pass,
and travel meanwhile. Each round has every setting once and a baseline before them, so that whatever else the machines
do meets all of them alike. First one setting at a time is changed, then the best of these together.
"""

from __future__ import annotations

import inspect
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from torchnet.bench.worker import messages
from torchnet.bench.worker.place import Place
from torchnet.bench.worker.plan import Plan
from torchnet.names import TUNE_PREFIX
from torchnet.training.tuning import tune

Say = Callable[[messages.Message], None]

ROUNDS = 6  # the least of which an interval of 95 % can be told (stats.py)
_WARM = 2  # steps: after the first DDP puts its buckets in the order in which gradients really come
_LEAST_STEPS, _MOST_STEPS = 2, 50
_WIDTH, _LAYERS, _BATCH = 2048, 3, 32
_COPIES = 5  # parameters, gradients, buckets, compressed ones and what the collective itself holds
_BUCKETS = ("1", "5", "100")  # MiB; torch's own are 25, the first one 1
_DEVICES = ("2", "4")
_NCCL = "NCCL_SOCKET_NTHREADS, NCCL_NSOCKS_PERTHREAD"


@dataclass(frozen=True)
class Setting:
    """``values``: by the names of the table ``tune`` in torchnet's settings."""

    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items()) or "as torch has it"

    @property
    def numerics(self) -> bool:
        return "compress" in self.values


def measure(plan: Plan, place: Place, say: Say) -> None:
    """Try them all, and say what was found, a baseline before each group of settings. All ranks call it at once."""
    if place.ranks < 2:
        say(messages.Lacks("tuning", "there is one rank alone: nothing moves"))
        return
    nccl = "nccl" in str(dist.get_backend())
    width = width_for(plan.memory)
    if width is None:
        say(messages.Lacks("tuning", f"the model needs more than the {plan.memory} bytes that may be used"))
        return
    why = "NCCL reads them once in a process: compare runs with --tune-nccl-socket-nthreads 1, 2, 4"
    say(messages.Lacks(_NCCL, why if nccl else "gloo is measured here, and they are NCCL's"))
    say(
        messages.Lacks(
            "MTU", "ranks cannot change it: compare runs with --mtu, or on networks with another one"
        )
    )
    device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
    with _untuned():
        _Tuner(plan, place, say, device, width).run()


def width_for(memory: int) -> int | None:
    """Of the model's layers, so that it can be held; None where nothing useful can."""
    width = _WIDTH
    while width * width * _LAYERS * 4 * _COPIES > memory:
        width //= 2
    return width if width >= 256 else None


@contextmanager
def _untuned() -> Iterator[None]:
    """Without the settings that this job was started with: they would be the baseline's, too."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(TUNE_PREFIX)}
    try:
        yield
    finally:
        os.environ.update(kept)


class _Tuner:
    def __init__(self, plan: Plan, place: Place, say: Say, device: torch.device, width: int) -> None:
        self._plan, self._place, self._say = plan, place, say
        self._device, self._width = device, width
        self._groups: dict[str, Any] = {}
        self._steps = _LEAST_STEPS

    def run(self) -> None:
        # Of the baseline, too: a group of its own has other connections than the default one.
        self._groups["1"] = self._group(1)
        try:
            self._run()
        finally:
            for group in self._groups.values():
                dist.destroy_process_group(group)

    def _run(self) -> None:
        singles = [Setting({"bucket_cap_mb": value}) for value in _BUCKETS]
        if self._device.type == "cpu":
            for value in _DEVICES:
                self._groups[value] = self._group(int(value))
            singles += [Setting({"gloo_devices": value}) for value in _DEVICES]
        rate = self._try(Setting())
        self._steps = self._agreed(min(_MOST_STEPS, max(_LEAST_STEPS, int(rate * self._plan.seconds + 1))))
        figures = self._rounds(0, "one setting at a time", singles)
        together = combined(singles, figures)
        # All ranks have timed for themselves: rank 0's word counts.
        together = Setting(_pairs(self._place.exchange(_text(together.values))[0]))
        second = [together] if len(together.values) > 1 else []
        if self._plan.tune_numerics:
            for how in ("bf16", "fp16"):
                second.append(Setting({"compress": how}))
                if together.values:
                    second.append(Setting({**together.values, "compress": how}))
        if second:
            self._rounds(1, "the best of them together", second)

    def _agreed(self, steps: int) -> int:
        return int(self._place.exchange(str(steps))[0])

    def _rounds(self, group: int, what: str, settings: Sequence[Setting]) -> list[list[float]]:
        """Steps per second of the baseline (first) and of each setting, in each round; said after each."""
        everything = [Setting(), *settings]
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
        if self._device.type != "cpu":
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

    def _try(self, setting: Setting) -> float:
        torch.manual_seed(0)  # the same parameters everywhere: nothing has to be sent before
        model = network(self._width).to(self._device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        options: dict[str, Any] = {"process_group": self._groups[setting.values.get("gloo_devices", "1")]}
        if "bucket_cap_mb" in setting.values:
            options["bucket_cap_mb"] = float(setting.values["bucket_cap_mb"])
        if "init_sync" in inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters:
            options["init_sync"] = False
        parallel = tune(model, compress=setting.values.get("compress", "none"), **options)
        images = torch.randn(_BATCH, self._width, device=self._device)

        def steps(count: int) -> float:
            self._place.barrier()
            began = time.perf_counter()
            for _ in range(count):
                loss = parallel(images).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            return count / (time.perf_counter() - began)

        steps(_WARM)
        return steps(self._steps)


def network(width: int) -> nn.Module:
    """Several layers: DDP sends the gradients of one while those of another are computed."""
    layers: list[nn.Module] = []
    for _ in range(_LAYERS):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 16))


def combined(singles: Sequence[Setting], figures: Sequence[Sequence[float]]) -> Setting:
    """Of each kind of setting the best that is better than the baseline, by the median ratio of each round."""
    baseline = figures[0]
    values: dict[str, str] = {}
    best: dict[str, float] = {}
    for setting, found in zip(singles, figures[1:], strict=True):
        ((name, value),) = setting.values.items()
        ratio = statistics.median(one / base for one, base in zip(found, baseline, strict=True))
        if ratio > best.get(name, 1.0):
            best[name], values[name] = ratio, value
    return Setting(values)


def _text(values: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in values.items())


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)
