"""What of a tuning is started for itself: which settings, the jobs with them, and what is said of how they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from torchnet.bench import benchmark, relaunch
from torchnet.bench.bench_options import read
from torchnet.bench.collector import Collector
from torchnet.bench.job import BenchJob
from torchnet.bench.tuning import STARTED
from torchnet.bench.worker import worker_config
from torchnet.bench.worker.messages import Lacks, Tried
from torchnet.config.model import JobSpec
from torchnet.errors import NetworkError
from torchnet.k8s.run.signals import Left

CHOSEN = {"bucket_cap_mb": "1"}
POD = {"kubernetes.image": "x:1", "network.networks": ("ml/backend-network",), "kubernetes.keep": True}


def wish(**flags: Any) -> BenchJob:
    asked, problems = read((), {"max_bytes": "1K", "tune": True})
    return benchmark.plan(asked, problems, flags, "/", None)


class Jobs:
    """Something else in place of a job: by the MTU it has these rates, start by start, or ends otherwise."""

    def __init__(self, rates: dict[int, list[float]], **ends: Callable[[Collector], int]) -> None:
        self.rates = {mtu: iter(found) for mtu, found in rates.items()}
        self.ends = {int(name.removeprefix("mtu")): end for name, end in ends.items()}
        self.begun: list[JobSpec] = []
        self.said = Collector()

    def launch(self, one: BenchJob, collector: Collector) -> int:
        job = one.resolved.job
        self.begun.append(job)
        if job.network.mtu in self.ends:
            return self.ends[job.network.mtu](collector)
        rate = next(self.rates[job.network.mtu])
        collector.messages.append(Tried("as torch has it", {}, [rate], numerics=False))
        return 0

    def measure(self, job: BenchJob, deadline: float | None = None) -> Jobs:
        relaunch.measure(job, "gloo", CHOSEN, self.launch, self.said, deadline)
        return self

    @property
    def tried(self) -> list[Tried]:
        return [one for one in self.said.messages if isinstance(one, Tried)]

    @property
    def lacking(self) -> dict[str, str]:
        found = [one for one in self.said.messages if isinstance(one, Lacks)]
        return {one.what: one.why for one in found if one.what.startswith("tuning")}


def ending(code: int, kind: str, text: str = "the kernel refuses\n  fix: x") -> Callable[[Collector], int]:
    def end(collector: Collector) -> int:
        collector({"event": "failure", "kind": kind, "text": text})
        return code

    return end


def test_the_job_is_started_with_what_was_chosen_and_one_setting_more() -> None:
    jobs = Jobs({9000: [2.0] * 6, 1500: [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]})
    jobs.measure(wish(nnodes=3, **{"tune.gloo_devices": 4, "tune.compress": "bf16"}))
    assert [job.network.mtu for job in jobs.begun] == [9000, 1500] * 6
    assert {(job.nnodes, job.tune.bucket_cap_mb, job.output.quiet) for job in jobs.begun} == {(3, 1.0, True)}
    # What was set by hand is no part of a tuning.
    assert {(job.tune.gloo_devices, job.tune.compress) for job in jobs.begun} == {(None, "none")}
    assert len({job.run_id for job in jobs.begun}) == 12
    assert all(worker_config.decode(job.args[1]).tune_started for job in jobs.begun)
    base, other = jobs.tried[-2:]
    assert (base.settings, base.baseline, base.steps_per_s) == (CHOSEN, True, [2.0] * 6)
    assert other.settings == {**CHOSEN, "network.mtu": "1500"}
    assert (other.steps_per_s, other.group) == ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], STARTED)
    # After each round all figures so far: what is interrupted has told what it knew.
    assert [len(one.steps_per_s) for one in jobs.tried] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_a_tuning_begins_without_what_was_set_by_hand() -> None:
    found = wish(**{"tune.gloo_devices": 4})
    assert found.resolved.job.tune.model_fields_set == set()
    assert any("gloo_devices" in line for line in found.notices)
    asked, problems = read((), {"max_bytes": "1K"})
    plain = benchmark.plan(asked, problems, {"tune.gloo_devices": 4}, "/", None)
    assert plain.resolved.job.tune.gloo_devices == 4
    assert not any("gloo_devices" in line for line in plain.notices)


def test_a_setting_with_which_no_job_runs_is_left_out_and_told() -> None:
    jobs = Jobs({9000: [2.0] * 6}, mtu1500=ending(4, "network")).measure(wish())
    assert [job.network.mtu for job in jobs.begun] == [9000, 1500, 1500]  # once more, then it is given up
    assert jobs.lacking == {
        "tuning, bucket_cap_mb 1, network.mtu 1500": "its job ended with exit code 4: the kernel refuses"
    }


def test_a_job_that_ended_by_chance_is_started_once_more() -> None:
    codes = iter([70, 0])

    def once(collector: Collector) -> int:
        collector.messages.append(Tried("as torch has it", {}, [1.0], numerics=False))
        return next(codes, 0)

    jobs = Jobs({9000: [2.0] * 6}, mtu1500=once).measure(wish())
    assert len(jobs.begun) == 13
    assert jobs.tried[-1].steps_per_s == [1.0] * 6


def test_a_job_that_cannot_be_started_is_one_that_ended() -> None:
    def refused(_collector: Collector) -> int:
        raise NetworkError("no such MTU", fix="another one")

    jobs = Jobs({9000: [2.0] * 6}, mtu1500=refused).measure(wish())
    assert list(jobs.lacking.values()) == ["its job could not be started: no such MTU"]


def test_the_ranks_own_word_is_the_reason() -> None:
    def small(collector: Collector) -> int:
        collector.messages.append(Lacks("tuning", "the model needs more"))
        return 0

    jobs = Jobs({9000: [2.0] * 6}, mtu1500=small).measure(wish())
    assert list(jobs.lacking.values()) == ["its job ended with exit code 0: the model needs more"]


def test_without_a_baseline_nothing_is_tried_and_all_of_it_is_told() -> None:
    # Of a rank that was killed: nobody stopped the benchmark.
    jobs = Jobs({1500: [1.0]}, mtu9000=ending(143, "script", "rank 1 was killed by SIGTERM")).measure(wish())
    assert len(jobs.begun) == 2
    assert not jobs.tried
    assert jobs.lacking == {
        "tuning, bucket_cap_mb 1": "its job ended with exit code 143: rank 1 was killed by SIGTERM",
        "tuning, bucket_cap_mb 1, network.mtu 1500": "its baseline could not be measured any more",
    }


def late_signal(collector: Collector) -> int:
    """It came when the job had ended well, and only shortened that."""
    collector({"event": "signal", "number": 15})
    return 0


def left(_collector: Collector) -> int:
    raise Left(15, "nothing was made")


@pytest.mark.parametrize(
    ("end", "code"),
    [(ending(130, "interrupted"), 130), (late_signal, 143), (left, 143)],
    ids=["amid", "at the end", "at the beginning"],
)
def test_an_interruption_ends_it(end: Callable[[Collector], int], code: int) -> None:
    jobs = Jobs({9000: [2.0] * 6}, mtu1500=end)
    with pytest.raises(relaunch.Stopped) as caught:
        jobs.measure(wish())
    assert (caught.value.code, caught.value.failure["kind"], len(jobs.begun)) == (code, "interrupted", 2)


def test_the_time_is_that_of_all_jobs_together() -> None:
    jobs = Jobs({9000: [2.0] * 6, 1500: [1.0] * 6}).measure(wish(), time.monotonic() + 100)
    assert all(job.run.timeout is not None and 90 < job.run.timeout <= 100 for job in jobs.begun)
    for late in (
        Jobs({}, mtu9000=ending(124, "timeout")),
        Jobs({9000: [2.0]}),
    ):
        deadline = time.monotonic() + (100 if late.ends else 0.5)
        with pytest.raises(relaunch.Stopped) as caught:
            late.measure(wish(), deadline)
        assert (caught.value.code, caught.value.failure["kind"]) == (124, "timeout")
        assert len(late.begun) == len(late.ends)


def test_what_cannot_be_tried_is_said_with_its_reason() -> None:
    found, lacking = relaunch.settings(wish().resolved.job, "nccl")
    assert {"nccl_socket_nthreads": "4"} in found
    assert {"nccl_nsocks_perthread": "4"} in found
    assert {"network.mtu": "1500"} in found
    assert lacking == []
    assert relaunch.settings(wish(**{"network.mtu": 1500}).resolved.job, "gloo")[0] == [
        {"network.mtu": "9000"}
    ]
    pods = wish(on="kubernetes", **POD)
    found, lacking = relaunch.settings(pods.resolved.job, "gloo")
    assert found == []
    assert [one.what for one in lacking] == ["NCCL_SOCKET_NTHREADS, NCCL_NSOCKS_PERTHREAD", "MTU"]
    assert not relaunch.started(pods, {"nccl_socket_nthreads": "4"}).resolved.job.kubernetes.keep
    for flags in ({"network.networks": ("loopback",)}, {"nnodes": 1}):
        found, lacking = relaunch.settings(wish(**flags).resolved.job, "gloo")
        assert (found, len(lacking)) == ([], 2)
