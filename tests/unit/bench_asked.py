"""Wishes for a benchmark, as the command line reads them, and the plans of their jobs."""

from __future__ import annotations

from typing import Any

from torchnet.bench.bench_options import BenchOptions, read
from torchnet.bench.job import BenchJob, plan_job
from torchnet.bench.worker import worker_config

GIB = 1 << 30
PODS: dict[str, object] = {
    "on": "kubernetes", "kubernetes.image": "docker.io/pytorch/pytorch:2.9.0", "network.networks": ["b"]
}  # fmt: skip


def asked(*words: str, **given: Any) -> BenchOptions:
    found, problems = read(words, given)
    assert problems == []
    return found


def wrong(*words: str, **given: Any) -> list[str]:
    return [str(problem) for problem in read(words, given)[1]]


def a_plan(*words: str, flags: dict[str, object] | None = None, gpus: str = "", **given: Any) -> BenchJob:
    """``gpus``: of this machine, as CUDA_VISIBLE_DEVICES has them."""
    found, problems = read(words, given)
    return plan_job(found, problems, flags or {}, {"CUDA_VISIBLE_DEVICES": gpus}, "/", None, "abc")


def arguments(wish: BenchJob) -> worker_config.WorkerConfig:
    first, text = wish.resolved.job.args
    assert first == "--plan"
    return worker_config.decode(text)
