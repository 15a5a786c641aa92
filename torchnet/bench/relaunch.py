"""What of a tuning needs a new start of the job: a network is made with its MTU, and NCCL reads its variables once.

After the ranks have tried what they can change themselves, the job is started again for each setting, and before them
for a baseline, by turns. What was chosen until then is set in all of them, so that what is chosen now goes with it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torchnet.bench.collector import Collector
from torchnet.bench.job import BenchJob
from torchnet.bench.tuning import STARTED
from torchnet.bench.worker import worker_config
from torchnet.bench.worker.messages import Lacks, Tried, named
from torchnet.bench.worker.worker_config import ROUNDS
from torchnet.config.model import LOOPBACK, JobSpec, Network, Tune
from torchnet.errors import TorchnetError

MTU = "network.mtu"  # its name among the settings; those of the table ``tune`` go without it
_THREADS, _SOCKETS = "nccl_socket_nthreads", "nccl_nsocks_perthread"
_MTUS = (1500, 9000)
_NCCL = ({_THREADS: "4"}, {_SOCKETS: "4"}, {_THREADS: "2", _SOCKETS: "2"}, {_THREADS: "4", _SOCKETS: "4"})
_TIMEOUT, _SIGNAL = 124, 128  # exit codes; a signal's are above
_ATTEMPTS = 2  # of each start: an address may still be another pod's, that ended a moment ago

Launch = Callable[[BenchJob, Collector], int]


class Stopped(Exception):
    """A signal, or the time that the whole benchmark has, ended a job; no later one is to begin.

    ``failure`` has the keys of torchnet.agent.events.Failure.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.failure = {"kind": "timeout" if code == _TIMEOUT else "interrupted", "text": text}


def settings(job: JobSpec, backend: str) -> tuple[list[dict[str, str]], list[Lacks]]:
    """What is to be tried, and what cannot be, with the reason. ``backend``: gloo or nccl."""
    found: list[dict[str, str]] = []
    nccl = mtu = "one node: nothing crosses the network"
    if job.nnodes > 1:
        nccl = "" if backend == "nccl" else "gloo is measured here, and they are NCCL's"
        mtu = "loopback has none to set" if job.network.networks == (LOOPBACK,) else ""
        if job.on == "kubernetes":
            mtu = "a pod's is its attachment's to set: compare benchmarks of two attachments with torchnet bench diff"
    found += [] if nccl else [dict(one) for one in _NCCL]
    found += [] if mtu else [{MTU: str(one)} for one in _MTUS if one != job.network.mtu]
    lacking = [Lacks("NCCL_SOCKET_NTHREADS, NCCL_NSOCKS_PERTHREAD", nccl), Lacks("MTU", mtu)]
    return found, [one for one in lacking if one.why]


def measure(
    wish: BenchJob,
    backend: str,
    chosen: Mapping[str, str],
    launch: Launch,
    collector: Collector,
    deadline: float | None = None,
) -> None:
    """Try them all.

    Args:
        chosen: what the ranks' own tuning has found.
        launch: runs a job to its end; its exit code.
        collector: takes what ranks would have said: all figures so far after each round, and what was not measured.
        deadline: when the benchmark's time is up (monotonic).

    Raises:
        Stopped: with that of a signal or a time-out; what was measured until then has been said.
    """
    found, lacking = settings(wish.resolved.job, backend)
    collector.messages += lacking
    base = named(chosen)
    tried = {named(values): values for values in ({**chosen, **one} for one in found)}
    figures: dict[str, list[float]] = {base: [], **{name: [] for name in tried}}
    for number in range(ROUNDS):
        if len(figures) == 1:
            return  # the baseline alone is left
        for name in list(figures):
            collector.show(f"tuning, {name}: a start of its own, round {number + 1} of {ROUNDS}")
            rate, why = _figure(wish, tried.get(name, chosen), launch, deadline)
            if rate is not None:
                figures[name].append(rate)
                continue
            collector.messages.append(Lacks(f"tuning, {name}", why))
            del figures[name]
            if name == base:
                why = "its baseline could not be measured any more"
                collector.messages += [Lacks(f"tuning, {other}", why) for other in figures]
                return
        collector.messages += _said(figures, tried, chosen)


def _figure(
    wish: BenchJob, values: Mapping[str, str], launch: Launch, deadline: float | None
) -> tuple[float | None, str]:
    """Steps per second of a job with these settings, or why there are none."""
    why = ""
    for _ in range(_ATTEMPTS):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left < 1:
            raise Stopped(_TIMEOUT, "the benchmark ran longer than --timeout")
        own = Collector(alone=True)  # figures of its own
        try:
            code = launch(started(wish, values, left), own)
        except TorchnetError as error:
            if error.exit_code > _SIGNAL:
                raise Stopped(error.exit_code, error.text) from None
            why = f"its job could not be started: {error.text}"
            continue
        kind = str((own.failure or {}).get("kind", ""))
        if own.signalled or kind == "interrupted":
            text = str((own.failure or {}).get("text") or "stopped by a signal")
            raise Stopped(_SIGNAL + own.signalled if own.signalled else code, text)
        if kind == "timeout" and left is not None:
            raise Stopped(_TIMEOUT, "the benchmark ran longer than --timeout")
        rates = [one.steps_per_s[0] for one in own.messages if isinstance(one, Tried)]
        if rates and not code:
            return rates[0], ""
        own_words = next((one.why for one in own.messages if isinstance(one, Lacks)), "nothing was measured")
        told = str((own.failure or {}).get("text") or own_words).split("\n")[0]
        why = f"its job ended with exit code {code}: {told}"
    return None, why


def _said(
    figures: Mapping[str, list[float]], tried: Mapping[str, Mapping[str, str]], chosen: Mapping[str, str]
) -> Iterator[Tried]:
    for name, rates in figures.items():
        values = dict(tried.get(name, chosen))
        yield Tried(name, values, list(rates), "compress" in values, name not in tried, STARTED)


def started(wish: BenchJob, values: Mapping[str, str], left: float | None = None) -> BenchJob:
    """The job with these settings and no other ones of a tuning, of which one figure is wanted.

    It may take ``left`` seconds, and is not kept when it has ended.
    """
    job = wish.resolved.job
    tune = {name: value for name, value in values.items() if name != MTU}
    network: dict[str, Any] = job.network.model_dump(exclude_unset=True)
    if MTU in values:
        network["mtu"] = int(values[MTU])
    asked = replace(worker_config.decode(job.args[1]), tune_started=True)
    update = {
        "args": ("--plan", worker_config.encode(asked)),
        "run_id": f"bench-{secrets.token_hex(3)}",
        "network": Network.model_validate(network),
        "tune": Tune.model_validate(tune),
        "run": job.run.model_copy(update={"timeout": left}),
        "output": job.output.model_copy(update={"quiet": True}),
        "kubernetes": job.kubernetes.model_copy(update={"keep": False}),
    }
    return replace(wish, resolved=replace(wish.resolved, job=job.model_copy(update=update)))
