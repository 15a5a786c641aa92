"""A JobSet's workers that are evicted, deleted or killed: the gang starts again, or ends."""

from __future__ import annotations

import time

import pytest

from tests.cluster.concurrency import concurrent
from tests.cluster.faults import kill, within
from tests.cluster.launched import Launched, pods, rank_of
from tests.cluster.launcher import Launcher
from tests.cluster.test_faults_workers import ready
from tests.jobs import SLOW, lines, until

# The first start stays; any later one is at its end soon.
WAIT = """
    import os, sys, time
    print("ready", os.environ["TORCHNET_START"], os.getpid(), flush=True)
    while os.environ["TORCHNET_START"] in sys.argv[1:]:
        time.sleep(0.05)
"""


def pod_of(job: Launched, rank: int) -> str:
    (name,) = [pod["metadata"]["name"] for pod in pods(job.launcher, job.name) if rank_of(pod) == rank]
    return str(name)


def evict(job: Launched, rank: int) -> None:
    name, space = pod_of(job, rank), job.launcher.namespace
    body = (
        '{"apiVersion": "policy/v1", "kind": "Eviction", '
        f'"metadata": {{"name": "{name}", "namespace": "{space}"}}}}'
    )
    path = f"/api/v1/namespaces/{space}/pods/{name}/eviction"
    job.launcher.cluster.kubectl("create", "--raw", path, "-f", "-", input=body)


def delete(job: Launched, rank: int) -> None:
    job.launcher.cluster.kubectl(
        "delete", "pod", pod_of(job, rank), "-n", job.launcher.namespace, "--wait=false"
    )


def kill_agent(job: Launched, rank: int) -> None:
    kill(job.agent_of(rank))


FAULTS = {"evicted": evict, "deleted": delete, "killed": kill_agent}
RESTARTED = ("evicted", "killed")  # failures of the cluster


def gang(launcher: Launcher, name: str, *words: str, stays: tuple[int, ...] = (0,)) -> Launched:
    return Launched(launcher, name, WAIT, "--kind", "jobset", *words, arguments=stays)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("fault", RESTARTED)
@concurrent
def test_a_lost_worker_starts_the_gang_again(launcher: Launcher, jobset: None, fault: str, rank: int) -> None:
    with gang(launcher, f"{fault}{rank}", "--max-infra-restarts", "1") as job:
        ready(job)
        began = time.monotonic()
        FAULTS[fault](job, rank)
        told = job.wait_for(r"\(restart 1\): lost ")
        ready(job, attempt=1)
        again = time.monotonic()
        done = job.finish()
    print(done.stderr)
    within(30, "told", began, told)
    within(30, "the next start", began, again)
    assert done.code == 0, done.stderr
    assert f"lost {job.name}-{rank}" in done.stderr
    assert job.receipt()["restarts"] == 1
    assert launcher.left() == []


@concurrent
def test_a_pod_that_somebody_deletes_ends_the_gang(launcher: Launcher, jobset: None) -> None:
    """Also with restarts left: its end looks like that of a suspended one."""
    with gang(launcher, "deleted", "--max-infra-restarts", "1") as job:
        ready(job)
        began = time.monotonic()
        delete(job, 1)
        done = job.finish()
    print(done.stderr)
    within(30, "the end", began, done.at)
    assert done.code == 70, done.stderr
    assert (job.receipt()["restarts"], job.receipt()["failure"]["kind"]) == (0, "lost")
    assert f"lost {job.name}-1" in job.receipt()["reason"]
    assert launcher.left() == []


@pytest.mark.parametrize("fault", RESTARTED)
@concurrent
def test_no_start_is_left(launcher: Launcher, jobset: None, fault: str) -> None:
    with gang(launcher, f"last-{fault}", "--max-infra-restarts", "1", stays=(0, 1)) as job:
        for attempt in (0, 1):
            ready(job, attempt=attempt)
            began = time.monotonic()
            FAULTS[fault](job, 1)
        done = job.finish()
    print(done.stderr)
    within(30, "the end", began, done.at)
    assert done.code == 70, done.stderr
    assert f"lost {job.name}-1" in job.receipt()["reason"]
    assert job.receipt()["restarts"] == 1
    assert launcher.left() == []


@pytest.mark.parametrize("fault", ["evicted", "deleted"])
@concurrent
def test_until_the_start_a_worker_is_replaced(launcher: Launcher, jobset: None, fault: str) -> None:
    """Rank 0, while others join: no restart is used for it."""
    name = f"early-{fault}"
    words = (launcher, name, WAIT, "--kind", "jobset")
    with Launched(*words, arguments=(9,), nnodes=3, held=(2,)) as job:
        job.joined(job.joining(0), 1)
        old = pod_of(job, 0)
        FAULTS[fault](job, 0)
        began = time.monotonic()

        def replaced() -> bool:
            names = [pod["metadata"]["name"] for pod in pods(launcher, name) if rank_of(pod) == 0]
            return bool(names) and names != [old]

        until(replaced, "another pod of rank 0", pause=SLOW)
        job.release(2)
        done = job.finish()
    within(40, "the end", began, done.at)
    assert done.code == 0, done.stderr
    assert [lines(done.stdout, rank)[0].split()[:2] for rank in range(3)] == [["ready", "0"]] * 3
    assert job.receipt()["restarts"] == 0
    assert launcher.left() == []
