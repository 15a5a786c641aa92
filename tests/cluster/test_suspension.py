"""Runs that somebody suspends in the middle of the training, and resumes."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.cluster.concurrency import concurrent
from tests.cluster.launched import Launched, pods
from tests.cluster.launcher import Launcher
from tests.jobs import until

TRAIN = """
    import os, time
    print("ready", os.environ["RANK"], flush=True)
    while not os.path.exists("/tmp/finish"):
        time.sleep(0.05)
    print("done", os.environ["RANK"], flush=True)
"""
GRACE = 2
# A JobSet's workers have 15 s beyond their grace, until a launcher that takes them for lost acts.
SUSPENDED_SECONDS = GRACE + 20


def suspend(job: Launched, kind: str, *, suspended: bool) -> None:
    body = json.dumps({"spec": {"suspend": suspended}})
    words = ("patch", kind, job.name, "-n", job.launcher.namespace, "--type=merge", "-p", body)
    job.launcher.cluster.kubectl(*words)


def spec(job: Launched, kind: str, name: str) -> Any:
    words = ("get", kind, name, "-n", job.launcher.namespace, "-o", "json")
    return json.loads(job.launcher.cluster.kubectl(*words))["spec"]


def state(job: Launched) -> str:
    words = ("status", job.name, "-n", job.launcher.namespace, "-o", "json")
    (row,) = json.loads(job.launcher.run(*words).out)
    return str(row["state"])


def ready(job: Launched, attempt: int) -> None:
    for rank in range(2):
        job.wait_for(rf"(?s)(\[rank {rank}\] ready {rank}.*){{{attempt}}}", on="stdout")


@concurrent
def test_suspended_runs_wait_and_go_on(launcher: Launcher, jobset: None) -> None:
    """A Job's and a JobSet's at the same time."""
    with ExitStack() as stack:
        jobs = {
            form: stack.enter_context(
                Launched(launcher, f"waits-{form}", TRAIN, "--kind", form, "--grace", str(GRACE))
            )
            for form in ("job", "jobset")
        }
        for job in jobs.values():
            ready(job, 1)
        before = {form: spec(job, "job", job.maker) for form, job in jobs.items()}
        for form, job in jobs.items():
            suspend(job, form, suspended=True)
        for job in jobs.values():
            job.wait_for("is suspended until its spec.suspend is set to false")
            until(lambda job=job: pods(launcher, job.name) == [], "its pods are gone")
        time.sleep(SUSPENDED_SECONDS)
        for form, job in jobs.items():
            assert job.process.poll() is None, job.text("stderr")
            assert spec(job, "job", job.maker) == before[form] | {"suspend": True}, "nothing else is changed"
            assert state(job) == "suspended"
        for form, job in jobs.items():
            suspend(job, form, suspended=False)
        for job in jobs.values():
            ready(job, 2)
            for rank in range(2):
                Path(f"/proc/{job.script_of(rank)}/root/tmp/finish").touch()
        for job in jobs.values():
            done = job.finish()
            print(done.stderr)
            assert done.code == 0, done.stderr
            assert done.stderr.count("is suspended until") == done.stderr.count("is resumed") == 1
            assert [done.stdout.count(f"done {rank}") for rank in range(2)] == [1, 1]
            receipt = job.receipt()
            assert (receipt["exit_code"], receipt["failure"], receipt["restarts"]) == (0, None, 0)
            assert receipt["findings"] == [], "its own, and of the last attempt alone"
    assert launcher.left() == []
