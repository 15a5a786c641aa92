"""What of a tuning needs a new start of the job: a network is made with its MTU, and NCCL reads its variables once.

After the ranks have tried what they can change themselves, the job is started again for each setting, and before them
for a baseline, by turns. What was chosen until then is set in all of them, so that what is chosen now goes with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torchnet.bench import stop
from torchnet.bench.collect import Collector
from torchnet.bench.job import Planned
from torchnet.bench.tuning import STARTED
from torchnet.bench.worker import plan
from torchnet.bench.worker.messages import Lacks, Tried, named
from torchnet.bench.worker.plan import ROUNDS
from torchnet.errors import TorchnetError
from torchnet.spec.model import LOOPBACK, JobSpec, Network, Tune

MTU = "network.mtu"  # its name among the settings; those of the table ``tune`` go without it
_THREADS, _SOCKETS = "nccl_socket_nthreads", "nccl_nsocks_perthread"
_MTUS = (1500, 9000)
_NCCL = ({_THREADS: "4"}, {_SOCKETS: "4"}, {_THREADS: "2", _SOCKETS: "2"}, {_THREADS: "4", _SOCKETS: "4"})

Launch = Callable[[Planned, Collector], int]


def settings(job: JobSpec, backend: str) -> tuple[list[dict[str, str]], list[Lacks]]:
    """What is to be tried, and what cannot be, with the reason. ``backend``: gloo or nccl."""
    found: list[dict[str, str]] = []
    lacking = []
    if backend == "nccl":
        found += [dict(one) for one in _NCCL]
    else:
        what = "NCCL_SOCKET_NTHREADS, NCCL_NSOCKS_PERTHREAD"
        lacking.append(Lacks(what, "gloo is measured here, and they are NCCL's"))
    if job.on == "kubernetes":
        why = (
            "the network attachment sets it, and no pod: torchnet verify tells how large packets get through"
        )
        lacking.append(Lacks("MTU", why))
    elif job.network.networks == (LOOPBACK,):
        lacking.append(Lacks("MTU", "loopback has none to set"))
    else:
        found += [{MTU: str(mtu)} for mtu in _MTUS if mtu != job.network.mtu]
    return found, lacking


def measure(
    wish: Planned, backend: str, chosen: Mapping[str, str], launch: Launch, collector: Collector
) -> int:
    """Try them; 0, or the exit code of the interruption that ended it.

    Args:
        chosen: what the ranks' own tuning has found.
        launch: runs a job to its end; its exit code.
        collector: takes what ranks would have said: all figures so far after each round, and what was not measured.
    """
    found, lacking = settings(wish.resolved.job, backend)
    collector.messages += lacking
    tried = {named(values): values for values in ({**chosen, **one} for one in found)}
    figures: dict[str, list[float]] = {named(chosen): [], **{name: [] for name in tried}}
    for number in range(ROUNDS) if tried else ():
        for name in list(figures):
            collector.show(f"tuning, {name}: a start of its own, round {number + 1} of {ROUNDS}")
            code, rate, why = _figure(started(wish, tried.get(name, chosen)), launch, collector.another())
            if stop.name_of(code):
                return code
            if rate is None:
                what = f"its job ended with exit code {code}: {why}"
                collector.messages.append(Lacks(f"tuning, {name}", what))
                del figures[name]
                if name not in tried:
                    return 0  # without a baseline nothing can be told
                continue
            figures[name].append(rate)
        collector.messages += _said(figures, tried, chosen)
    return 0


def _figure(wish: Planned, launch: Launch, collector: Collector) -> tuple[int, float | None, str]:
    """The job's exit code, its steps per second, and why there are none."""
    try:
        code = launch(wish, collector)
    except TorchnetError as error:
        return error.exit_code, None, str(error)
    rates = [one.steps_per_s[0] for one in collector.messages if isinstance(one, Tried)]
    if code or not rates:
        failure = collector.failure or {}
        return code, None, str(failure.get("text") or "nothing was measured")
    return code, rates[0], ""


def _said(
    figures: Mapping[str, list[float]], tried: Mapping[str, Mapping[str, str]], chosen: Mapping[str, str]
) -> Iterator[Tried]:
    for name, rates in figures.items():
        values = dict(tried.get(name, chosen))
        yield Tried(name, values, list(rates), "compress" in values, name not in tried, STARTED)


def started(wish: Planned, values: Mapping[str, str]) -> Planned:
    """The job with these settings, of which one figure is wanted. It is no longer there when it has ended."""
    job = wish.resolved.job
    tune = {name: value for name, value in values.items() if name != MTU}
    network: dict[str, Any] = job.network.model_dump(exclude_unset=True)
    if MTU in values:
        network["mtu"] = int(values[MTU])
    asked = replace(plan.decode(job.args[1]), tune_started=True)
    update = {
        "args": ("--plan", plan.encode(asked)),
        "run_id": f"bench-{secrets.token_hex(3)}",
        "network": Network.model_validate(network),
        "tune": Tune.model_validate({**job.tune.model_dump(exclude_unset=True), **tune}),
        "output": job.output.model_copy(update={"quiet": True}),
        "kubernetes": job.kubernetes.model_copy(update={"keep": False}),
    }
    return replace(wish, resolved=replace(wish.resolved, job=job.model_copy(update=update)))
