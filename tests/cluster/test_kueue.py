"""The real Kueue: runs that wait, are admitted, preempted, queued again and go on, in each form of the workload."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import kueue as controller
from tests.cluster.launched import Launched
from tests.cluster.launcher import Launcher
from tests.jobs import receipt, until
from torchnet.constants import RUN_LABEL

# A training that saves each step, and stays at some until it is taken away. Each step adds the number of ranks.
TRAIN = """
    import os, sys, time
    import torch
    import torch.distributed as dist

    name, *stops = sys.argv[1:]
    path = f"/checkpoint/{name}.pt"
    dist.init_process_group("gloo")
    total, step = torch.zeros(1), 0
    if os.path.exists(path):
        total, step = torch.load(path)
    print("from step", step, flush=True)
    while step < 6:
        gradient = torch.ones(1)
        dist.all_reduce(gradient)
        total, step = total + gradient, step + 1
        if dist.get_rank() == 0:
            torch.save((total, step), f"{path}.new")
            os.replace(f"{path}.new", path)
        dist.barrier()
        print("saved step", step, flush=True)
        while str(step) in stops:
            time.sleep(0.05)
    print("total", total.item(), flush=True)
"""
STAYS = """
    import os, time
    print("ready", os.environ["RANK"], flush=True)
    while not os.path.exists("/tmp/finish"):
        time.sleep(0.05)
"""
LOW = ("--queue", "q", "--grace", "2")
CHECKPOINT = ("--volume", "pvc:checkpoint:/checkpoint")


@contextmanager
def volume(launcher: Launcher) -> Iterator[None]:
    """A claim on a folder of this machine, which both nodes see."""
    folder = launcher.folder / "checkpoint"
    folder.mkdir()
    folder.chmod(0o777)
    name, size = f"{launcher.namespace}-checkpoint", {"storage": "1Gi"}
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    claim = {"name": "checkpoint", "namespace": launcher.namespace}
    place = {"hostPath": {"path": str(folder)}, "claimRef": claim, "persistentVolumeReclaimPolicy": "Retain"}
    objects = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": common | {"capacity": size} | place,
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": claim,
            "spec": common | {"resources": {"requests": size}, "volumeName": name},
        },
    ]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl = launcher.cluster.kubectl
    kubectl("create", "-f", "-", input=document)
    try:
        yield
    finally:
        kubectl("delete", "--wait=false", "-f", "-", input=document)


def status(launcher: Launcher) -> dict[str, dict[str, Any]]:
    """What `torchnet status` says of each run."""
    done = launcher.run("status", "-n", launcher.namespace, "-o", "json")
    return {row["run"]: row for row in json.loads(done.out)}


def finish(job: Launched) -> None:
    for rank in range(2):
        Path(f"/proc/{job.script_of(rank)}/root/tmp/finish").touch()


def preempting(launcher: Launcher, name: str, cpu: str) -> Launched:
    """A run with a high priority that needs nearly all of the quota."""
    priority = ("--workload-priority", f"{launcher.namespace}-high")
    return Launched(launcher, name, STAYS, *LOW, *priority, "--cpus", f"{cpu}:1")


def attempt(job: Launched, number: int) -> dict[str, Any]:
    """The receipt of an attempt that was preempted."""
    path = job.file.with_name(f"{job.name}.attempt-{number}.json")
    until(path.exists, f"{path.name}")
    found = receipt(path)
    assert (found["exit_code"], found["failure"]["kind"]) == (143, "interrupted")
    assert "Preempted to accommodate a workload" in found["reason"], found["reason"]
    return found


def test_preempted_runs_go_on_where_they_were(launcher: Launcher, kueue: None) -> None:
    """A Job, a JobSet, a Job whose workers join and a group of pods at once; the first of them twice, and the second
    time Kueue's controller is down.
    """
    queue = controller.queue(launcher.namespace, "q", cpu="190m")
    with volume(launcher), controller.queues(launcher.namespace, queue), ExitStack() as stack:
        words = (*LOW, *CHECKPOINT)
        job = Launched(launcher, "low", TRAIN, *words, arguments=("low", "3", "5"))
        jobset = Launched(launcher, "set", TRAIN, *words, "--kind", "jobset", arguments=("set", "3"))
        early = Launched(launcher, "early", STAYS, *LOW, held=(1,))
        group = Launched(launcher, "group", STAYS, *LOW, "--kind", "pods")
        for one in (job, jobset, early, group):
            stack.enter_context(one)
        for one in (job, jobset):
            one.wait_for("saved step 3", on="stdout")
            one.wait_for("Kueue: Admitted: The workload is admitted")
        group.wait_for("ready 1", on="stdout")
        early.joined(early.joining(0), 0)

        with preempting(launcher, "high", "90m") as high:
            high.wait_for("ready 1", on="stdout", seconds=90)
            for one in (job, jobset, early):
                one.wait_for(r"Kueue: Evicted \(Preempted\): Preempted to accommodate a workload")
                one.wait_for(r"Kueue: not QuotaReserved \(Pending\)")
            rows = status(launcher)
            for name in ("low", "set", "early"):
                assert (rows[name]["state"], rows[name]["attempt"]) == ("preempted", 2), rows[name]
                assert "Kueue: not QuotaReserved" in rows[name]["reason"]
            assert rows["high"]["attempt"] == 1
            for one in (job, jobset):
                assert attempt(one, 1)["proof"] == "measured"
            assert attempt(early, 1)["backend_share"] is None
            left = group.finish()
            assert left.code == 143, left.stderr
            assert "evicted by its queue" in left.stderr
            assert group.receipt()["exit_code"] == 143
            # Its pods own all else of it.
            of_group = (f"{RUN_LABEL}=group", launcher.namespace)
            until(lambda: launcher.cluster.run_objects(*of_group) == [], "the garbage collector", 60)
            finish(high)
            assert high.finish().code == 0

        done = jobset.finish(90)
        print(done.stderr)
        assert done.code == 0, done.stderr
        assert done.stdout.count("from step 0") == done.stdout.count("from step 3") == 2
        assert done.stdout.count("total 12.0") == 2
        assert "the JobSet is resumed: attempt 2 starts" in done.stderr
        assert (jobset.receipt()["exit_code"], jobset.receipt()["restarts"]) == (0, 0)
        early.release(1)
        early.wait_for("ready 1", on="stdout")
        finish(early)
        assert early.finish().code == 0

        job.wait_for("saved step 5", on="stdout")
        with preempting(launcher, "again", "90m") as high:
            high.wait_for("ready 1", on="stdout")
            attempt(job, 2)
            controller.scale(0)
            time.sleep(3)
            assert job.process.poll() is None, job.text("stderr")
            row = status(launcher)["low"]
            assert (row["state"], row["attempt"]) == ("preempted", 3), row
            controller.scale(1)
            finish(high)
            assert high.finish().code == 0
        done = job.finish(90)
        print(done.stderr)
        assert done.code == 0, done.stderr
        assert [done.stdout.count(f"from step {step}") for step in (0, 3, 5)] == [2, 2, 2]
        assert done.stdout.count("total 12.0") == 2
        assert job.receipt()["findings"] == [], "of the last attempt alone"
        assert launcher.left() == []


def test_workers_are_placed_in_one_domain_of_the_topology(launcher: Launcher, kueue: None) -> None:
    """Without it, the spread would put each on a node of its own."""
    hostname = "kubernetes.io/hostname"
    queue = controller.queue(launcher.namespace, "near", cpu="190m", topology=hostname)
    with controller.queues(launcher.namespace, queue):
        words = ("--queue", "near", "--topology", f"required:{hostname}", "--grace", "2")
        with Launched(launcher, "near", STAYS, *words) as job:
            job.wait_for("ready 1", on="stdout")
            assert len(set(job.where().values())) == 1
            finish(job)
            done = job.finish()
        assert done.code == 0, done.stderr
        assert launcher.left() == []
        missing = launcher.run(*launcher.words("--queue", "nosuch", nnodes=2), launcher.script(STAYS))
        assert missing.code == 2
        assert "has no LocalQueue of this name" in missing.err
