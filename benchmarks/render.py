"""Time the rendering of a job to objects and YAML, for 4 and for 10,000 workers, and the zip files before it.

    uv run -m benchmarks.render [RUNS]

The size of the text is printed too: a Job and a JobSet are the same size for 4 and for 10,000 workers; plain Pods are
one object each.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.machine import facts, summary
from torchnet.config.job_spec import JobSpec
from torchnet.k8s.objects.agent_zip import agent_zip
from torchnet.k8s.objects.code_bundle import CodeBundle, gather
from torchnet.k8s.objects.run_objects import objects
from torchnet.yaml_io import Manifest, as_yaml

SIZES = (4, 10_000)
FORMS = ("job", "jobset", "pods")
ROOT = Path(__file__).resolve().parent.parent

Result = TypeVar("Result")


def job(form: str, nnodes: int) -> JobSpec:
    """Return the job that runs train.py on ``nnodes`` workers."""
    group: dict[str, Any] = {"image": "registry.example.com/pytorch:2.15", "workload": form, "gpus": 8}
    network = {"networks": ["ml/backend-network"]}
    return JobSpec.model_validate(
        {
            "on": "kubernetes",
            "script": "launch/train.py",
            "nnodes": nnodes,
            "network": network,
            "kubernetes": group,
        }
    )


def text(form: str, nnodes: int, code: CodeBundle) -> str:
    """Render everything that a dry run prints, without reading files."""
    found = objects(job(form, nnodes), "train", "ml", "secret", code)
    return as_yaml([Manifest(body) for body in found])


def timed(action: Callable[[], Result], runs: int) -> tuple[Result, list[float]]:
    """Return the last result and the seconds of each run."""
    seconds = []
    for _ in range(runs):
        began = time.monotonic()
        result = action()
        seconds.append(time.monotonic() - began)
    return result, seconds


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(facts())
    agent, seconds = timed(agent_zip, runs)
    print(f"{'the agent, zipped':34} {summary(seconds)}, {len(agent) / 1024:.0f} KiB")
    code, seconds = timed(lambda: gather(job("job", 4), ROOT, os.environ), runs)
    print(
        f"{'the agent and launch/, zipped':34} {summary(seconds)}, {len(code.code_zip or b'') / 1024:.0f} KiB more"
    )
    for form in FORMS:
        for nnodes in SIZES:
            whole, seconds = timed(lambda form=form, nnodes=nnodes: text(form, nnodes, code), runs)  # type: ignore[misc]
            print(
                f"{f'--kind {form}, {nnodes:,} workers':34} {summary(seconds)}, {len(whole) / 1024:,.0f} KiB of YAML"
            )


if __name__ == "__main__":
    main()
