"""Run a collective over all its sizes, in each of its forms: check, time, count, and report each result at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from torchnet.bench.worker import busbw, collectives, result_messages, timing
from torchnet.bench.worker.busbw import Collective
from torchnet.bench.worker.byte_counters import ByteCounters, CounterDelta
from torchnet.bench.worker.collectives import CollectiveSetting
from torchnet.bench.worker.correctness import Patterns, patterns
from torchnet.bench.worker.cpu import Threads, Usage
from torchnet.bench.worker.rank_context import RankContext
from torchnet.bench.worker.sizes import size_text
from torchnet.bench.worker.worker_config import WorkerConfig

Send = Callable[[result_messages.Message], None]
_TRIED = 8  # elements of each rank in the first attempt
_WORDS = 200  # characters quoted of a backend's error


@dataclass(frozen=True)
class NetworkUnderTest:
    """What collectives use on one network; ``interface`` is its name. ``group`` is None for the default group."""

    interface: str
    backend: str
    device: torch.device
    group: dist.ProcessGroup | None


@dataclass(frozen=True)
class Bench:
    """What every series needs."""

    plan: WorkerConfig
    place: RankContext
    agreement: timing.Agreement
    witness: ByteCounters
    send: Send


def run(bench: Bench, network: NetworkUnderTest) -> None:
    """Run all of the plan's collectives over this network. All ranks call it together."""
    for name in bench.plan.collectives:
        collective: Collective = name  # type: ignore[assignment]  # the launcher has checked it
        _Series(bench, network, collective).run()


class _Series:
    def __init__(self, bench: Bench, network: NetworkUnderTest, collective: Collective) -> None:
        self._bench, self._network, self._collective = bench, network, collective
        plan, self._ranks = bench.plan, bench.place.ranks
        self._dtype: torch.dtype = getattr(torch, plan.dtype)
        self._item = torch.empty(0, dtype=self._dtype).element_size()
        self._op: Any = plan.redop if collective in busbw.REDUCING else None
        self._root = plan.root if collective in busbw.ROOTED else -1
        self._what = " ".join(filter(None, (collective, plan.dtype, self._op)))
        self._patterns: Patterns | None = None

    def run(self) -> None:
        plan, send = self._bench.plan, self._bench.send
        sizes = collectives.round_sizes(self._collective, plan.sizes, self._item, self._ranks)
        span = f"{size_text(sizes[0])} to {size_text(sizes[-1])}"
        send(result_messages.Progress(f"{self._what} over {self._network.interface}, {span}"))
        if self._ranks < 2:
            send(result_messages.Lacks(self._what, "a single rank moves no data"))
            return
        self._patterns = patterns(plan.dtype, self._op, self._ranks, self._network.device)
        usable = list(self._usable())
        for size in sizes:
            for in_place in usable:
                need = collectives.memory(self._collective, size, self._item, self._ranks, in_place)
                if need <= plan.memory:
                    self._measure(size, in_place)
                    continue
                what = f"{self._what}{_form(in_place, usable)} of {size_text(size)} over {self._network.interface}"
                send(
                    result_messages.Lacks(
                        what, f"needs {need} bytes in each rank, but only {plan.memory} are available"
                    )
                )

    def _usable(self) -> Iterator[bool]:
        """Yield the forms that the backend supports, after a try with a tiny size; report the others with the backend's
        error."""
        forms = collectives.forms(self._collective)
        for in_place in forms:
            why, wrong = "", 0
            try:
                call = self._call(_TRIED * self._ranks, in_place)
                call.fill()
                call.run()
                self._synchronize()
                wrong = call.wrong()
            except Exception as error:  # whatever a backend raises
                why = shorten(error)
            # All ranks exchange their errors: rank 0 may have none, or a different one.
            texts = [text for text in self._bench.place.exchange(why) if text]
            lacks = texts[0] if texts else ""
            # Wrong results of a collective's only form are counted at every size, and become a finding.
            if self._bench.agreement.total(wrong) and in_place and len(forms) > 1 and not lacks:
                lacks = "results are wrong if input and output overlap"
            if lacks:
                what = f"{self._what}{_form(in_place, forms)} over {self._network.interface}"
                self._bench.send(result_messages.Lacks(f"{what} ({self._network.backend})", lacks))
            else:
                yield in_place

    def _call(self, elements: int, in_place: bool) -> collectives.CollectiveCall:
        place, network = self._bench.place, self._network
        assert self._patterns is not None
        setting = CollectiveSetting(
            collective=self._collective,
            elements=elements,
            dtype=self._dtype,
            device=network.device,
            op=self._op,
            root=max(0, self._root),
            rank=place.rank,
            ranks=place.ranks,
            group=network.group,
            in_place=in_place,
        )
        return collectives.call(setting, self._patterns)

    def _measure(self, size: int, in_place: bool) -> None:
        plan, agreement = self._bench.plan, self._bench.agreement
        elements = size // self._item
        call = self._call(elements, in_place)
        wrong = None
        if plan.check:
            call.fill()
            call.run()
            self._synchronize()
            wrong = agreement.total(call.wrong())
        call.clear()
        on_gpu = self._network.device.type == "cuda"
        clock: timing.Clock = timing.CudaClock() if on_gpu else timing.HostClock()
        once = timing.warm_up(call.run, plan.warmup, agreement, clock)
        rule = timing.Rule(plan.seconds, plan.narrow, plan.iters)
        slowest = self._collective in busbw.ROOTED
        usage, threads = Usage(), Threads()
        self._bench.witness.start()
        usage.start()
        threads.start()
        timed = timing.measure(call.run, once, rule, agreement, clock, slowest=slowest)
        # NCCL's threads poll for work all the time.
        core = threads.stop() if self._network.backend == "gloo" else None
        cores = self._busiest(*usage.stop(), core)
        sent = self._bench.witness.stop()
        self._send(size, in_place, timed, wrong, sent, cores)

    def _send(
        self,
        size: int,
        in_place: bool,
        timed: timing.Timed,
        wrong: int | None,
        sent: CounterDelta | None,
        cores: list[float | None],
    ) -> None:
        self._bench.send(
            result_messages.Collective(
                network=self._network.interface,
                collective=self._collective,
                size=size,
                elements=size // self._item,
                dtype=self._bench.plan.dtype,
                redop=self._op or "none",
                root=self._root,
                in_place=in_place,
                times=timed.times,
                calls=timed.calls,
                wrong=wrong,
                formula_bytes=self._least(size) * timed.all_calls,
                sockets_bytes=sent.sockets if sent else None,
                interface_bytes=sent.interfaces if sent else None,
                busy=cores[0],
                throttled=cores[1],
                core=cores[2],
            )
        )

    def _least(self, size: int) -> float:
        """Return the minimum of bytes that the sockets carry for one call."""
        whole = busbw.least_bytes(self._collective, size, self._ranks)
        if self._network.backend == "nccl":
            whole *= busbw.crossing_share(self._collective, self._ranks, self._bench.place.nodes)
        return whole

    def _busiest(self, *shares: float | None) -> list[float | None]:
        """Return the maximum of each share over all ranks; None if no rank knows it."""
        found = self._bench.agreement.most(*(-1.0 if one is None else one for one in shares))
        return [None if one < 0 else one for one in found]

    def _synchronize(self) -> None:
        if self._network.device.type == "cuda":
            torch.cuda.synchronize()


def _form(in_place: bool, forms: Any) -> str:
    """Return the words that distinguish the two forms."""
    return "" if len(forms) < 2 else " in place" if in_place else " out of place"


def shorten(error: Exception) -> str:
    """Return an error's first line, without the source location in front of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if text.startswith("[") and "] " in text:  # [/pytorch/third_party/gloo/…:81]
        text = text.partition("] ")[2]
    return text if len(text) <= _WORDS else text[: _WORDS - 1] + "…"
