"""What of a tuning is started for itself: which settings, the jobs with them, and what is said of how they end."""

from __future__ import annotations

from typing import Any

import pytest

from torchnet.bench import command, starts
from torchnet.bench.asked import read
from torchnet.bench.collect import Collector
from torchnet.bench.job import Planned
from torchnet.bench.tuning import STARTED
from torchnet.bench.worker import plan
from torchnet.bench.worker.messages import Lacks, Message, Tried
from torchnet.errors import NetworkError

CHOSEN = {"bucket_cap_mb": "1"}
POD = {"kubernetes.image": "x:1", "network.networks": ("ml/backend-network",), "kubernetes.keep": True}


def wish(**flags: Any) -> Planned:
    asked, problems = read((), {"max_bytes": "1K", "tune": True})
    return command.plan(asked, problems, flags, "/", None)


def measured(
    job: Planned, rates: dict[int, list[float]], failing: dict[int, int] | None = None
) -> tuple[int, list[Message], list[Planned]]:
    """With something else in place of a job: by the MTU it has this rate, start by start, or fails with a code."""
    said = Collector()
    begun: list[Planned] = []

    def launch(one: Planned, collector: Collector) -> int:
        begun.append(one)
        mtu = one.resolved.job.network.mtu
        times = sum(other.resolved.job.network.mtu == mtu for other in begun)
        if mtu in (failing or {}):
            collector.failure = {"kind": "network", "text": "the kernel refuses"}
            return (failing or {})[mtu]
        collector.messages.append(Tried("as torch has it", {}, [rates[mtu][times - 1]], numerics=False))
        return 0

    code = starts.measure(job, "gloo", CHOSEN, launch, said)
    return code, said.messages, begun


def test_the_job_is_started_with_what_was_chosen_and_one_setting_more() -> None:
    code, said, begun = measured(wish(nnodes=3), {9000: [2.0] * 6, 1500: [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]})
    assert code == 0
    jobs = [one.resolved.job for one in begun]
    assert [job.network.mtu for job in jobs] == [9000, 1500] * 6
    assert {(job.nnodes, job.tune.bucket_cap_mb, job.output.quiet) for job in jobs} == {(3, 1.0, True)}
    assert len({job.run_id for job in jobs}) == 12
    assert all(plan.decode(job.args[1]).tune_started for job in jobs)
    tried = [one for one in said if isinstance(one, Tried)]
    base, other = tried[-2:]
    assert (base.settings, base.baseline, base.steps_per_s) == (CHOSEN, True, [2.0] * 6)
    assert other.settings == {**CHOSEN, "network.mtu": "1500"}
    assert (other.steps_per_s, other.group) == ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], STARTED)
    # After each round all figures so far: what is interrupted has told what it knew.
    assert [len(one.steps_per_s) for one in tried] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


def test_a_setting_with_which_no_job_runs_is_left_out_and_told() -> None:
    code, said, begun = measured(wish(), {9000: [2.0] * 6}, failing={1500: 4})
    assert code == 0
    assert len(begun) == 7
    (lacks,) = [one for one in said if isinstance(one, Lacks) and one.what.startswith("tuning")]
    assert lacks.what == "tuning, bucket_cap_mb 1, network.mtu 1500"
    assert lacks.why == "its job ended with exit code 4: the kernel refuses"


def test_a_job_that_cannot_be_started_is_one_that_ended() -> None:
    def launch(_one: Planned, _collector: Collector) -> int:
        raise NetworkError("no such MTU")

    said = Collector()
    assert starts.measure(wish(), "gloo", {}, launch, said) == 0
    (lacks,) = [one for one in said.messages if isinstance(one, Lacks) and one.what.startswith("tuning")]
    assert lacks.why == "its job ended with exit code 4: no such MTU"


def test_without_a_baseline_nothing_is_tried() -> None:
    code, said, begun = measured(wish(), {}, failing={9000: 70})
    assert (code, len(begun)) == (0, 1)
    assert not [one for one in said if isinstance(one, Tried)]


@pytest.mark.parametrize("code", [129, 130, 143])
def test_an_interruption_ends_it(code: int) -> None:
    found, said, begun = measured(wish(), {9000: [2.0] * 6}, failing={1500: code})
    assert (found, len(begun)) == (code, 2)
    assert not [one for one in said if isinstance(one, Tried)]


def test_what_cannot_be_tried_is_said_with_its_reason() -> None:
    found, lacking = starts.settings(wish().resolved.job, "nccl")
    assert {"nccl_socket_nthreads": "4"} in found
    assert {"nccl_nsocks_perthread": "4"} in found
    assert {"network.mtu": "1500"} in found
    assert lacking == []
    assert starts.settings(wish(**{"network.mtu": 1500}).resolved.job, "gloo")[0] == [{"network.mtu": "9000"}]
    pods = wish(on="kubernetes", **POD)
    found, lacking = starts.settings(pods.resolved.job, "gloo")
    assert found == []
    assert [one.what for one in lacking] == ["NCCL_SOCKET_NTHREADS, NCCL_NSOCKS_PERTHREAD", "MTU"]
    assert not starts.started(pods, {"nccl_socket_nthreads": "4"}).resolved.job.kubernetes.keep
    loopback = wish(**{"network.networks": ("loopback",)})
    assert starts.settings(loopback.resolved.job, "gloo")[0] == []
