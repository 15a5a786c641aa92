"""Workers that are killed, evicted or misled: who is named, what is kept, with which code it ends."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.concurrency import concurrent
from tests.cluster.faults import frozen, kill, shim_stopped, within
from tests.cluster.launched import Launched, pods, rank_of
from tests.cluster.launcher import Launcher
from tests.cluster.pods import staying
from tests.jobs import SLOW, lines, until
from torchnet.constants import RUN_LABEL

# Stays at the attempt that it is told, and is gone at once at any other.
WAIT = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, lambda *_: (print("stopped", flush=True), sys.exit(0)))
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    print("ready", attempt, os.environ["MASTER_PORT"], flush=True)
    while attempt == int(sys.argv[1]):
        time.sleep(0.05)
"""


@pytest.fixture
def namespace(module_namespace: str) -> str:
    return module_namespace  # each of these tests leaves it as it was


def ready(job: Launched, nnodes: int = 2, attempt: int = 0) -> None:
    for rank in range(nnodes):
        job.wait_for(rf"\[rank {rank}\] ready {attempt} ", on="stdout")


@pytest.mark.quiet
def test_a_killed_script_is_named_and_the_others_are_stopped(launcher: Launcher) -> None:
    """Row 1: named within 2 s, its code kept."""
    with Launched(launcher, "row1", WAIT, arguments=(0,)) as job:
        ready(job)
        killed = kill(job.script_of(1))
        named = job.wait_for("^torchnet: rank 1 on row1-1 was killed by SIGKILL")
        done = job.finish()
    within(2, "the killed script is named", killed, named)
    assert done.code == 137, done.stderr
    assert lines(done.stdout, 0)[-1] == "stopped"
    found = job.receipt()
    assert (found["failure"]["rank"], found["failure"]["code"]) == (1, 137)
    assert [node["node"] for node in found["nodes"]] == ["row1-0", "row1-1"]
    assert launcher.left() == []


@concurrent
def test_a_killed_script_with_a_restart_left(launcher: Launcher) -> None:
    """Row 2: one restart of the whole group, in the same pods, with another port; then success."""
    with Launched(launcher, "row2", WAIT, "--max-restarts", "1", arguments=(0,)) as job:
        ready(job)
        kill(job.script_of(1))
        ready(job, attempt=1)
        done = job.finish()
    assert done.code == 0, done.stderr
    for rank in (0, 1):
        first, second = (re.findall(rf"^\[rank {rank}\] +ready {n} (\d+)$", done.stdout, re.MULTILINE)
                         for n in (0, 1))  # fmt: skip
        assert len(first) == len(second) == 1, done.stdout
        assert first != second
    assert job.receipt()["restarts"] == 1
    assert launcher.left() == []


@pytest.mark.quiet
def test_a_killed_agent_is_lost(launcher: Launcher) -> None:
    """Row 29: named within 5 s, the others stop, exit 70, their receipts kept."""
    with Launched(launcher, "row29", WAIT, arguments=(0,), nnodes=3) as job:
        ready(job, 3)
        killed = kill(job.agent_of(1))
        named = job.wait_for("^torchnet: .*lost.*row29-1")
        done = job.finish()
    within(5, "the killed agent is named", killed, named)
    assert done.code == 70, done.stderr
    assert [lines(done.stdout, rank)[-1] for rank in (0, 2)] == ["stopped", "stopped"]
    found = job.receipt()
    assert (found["failure"]["kind"], found["failure"]["node"]) == ("lost", "row29-1")
    assert {"row29-0", "row29-2"} <= {node["node"] for node in found["nodes"]}
    assert launcher.left() == []


@concurrent
def test_rank_0_is_evicted_while_others_join(launcher: Launcher) -> None:
    """Row 28: its replacement, which has another address, is found; nobody starts with half a table."""
    with Launched(launcher, "row28", WAIT, arguments=(9,), nnodes=3, held=(2,)) as job:
        job.joined(job.joining(0), 1)
        (old,) = [pod["metadata"]["name"] for pod in pods(launcher, "row28") if rank_of(pod) == 0]
        eviction = (
            f'{{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {{"name": "{old}", '
            f'"namespace": "{launcher.namespace}"}}}}'
        )
        path = f"/api/v1/namespaces/{launcher.namespace}/pods/{old}/eviction"
        launcher.cluster.kubectl("create", "--raw", path, "-f", "-", input=eviction)
        evicted = time.monotonic()

        def replaced() -> bool:
            return any(pod["metadata"]["name"] != old for pod in pods(launcher, "row28") if rank_of(pod) == 0)

        until(replaced, "another pod of rank 0", pause=SLOW)
        rank0 = job.joining(0)
        job.joined(rank0, 0)
        listening = time.monotonic()
        job.joined(rank0, 1)  # though the name server caches the old address
        found = time.monotonic()
        job.release(2)
        done = job.finish()
    assert done.code == 0, done.stderr
    within(10, "the new rank 0 is found", listening, found)
    within(40, "an eviction, to the job's end", evicted, done.at)
    assert [lines(done.stdout, rank)[0].split()[:2] for rank in range(3)] == [["ready", "0"]] * 3
    assert len(job.receipt()["nodes"]) == 3
    assert launcher.left() == []


@concurrent
def test_a_pod_that_is_deleted_in_mid_run_is_lost(launcher: Launcher) -> None:
    with Launched(launcher, "shrunk", WAIT, "--grace", "2", arguments=(0,)) as job:
        ready(job)
        (name,) = [pod["metadata"]["name"] for pod in pods(launcher, "shrunk") if rank_of(pod) == 1]
        launcher.cluster.kubectl(
            "delete", "pod", name, "-n", launcher.namespace, "--grace-period=0", "--force"
        )
        deleted = time.monotonic()
        done = job.finish()
    assert done.code == 70, done.stderr
    assert "lost shrunk-1 (node rank 1" in done.stderr
    within(40, "a deleted pod, to the job's end", deleted, done.at)
    assert launcher.left() == []


# Rank 1 prints what torchnet does not keep while nobody takes it, and rank 0 waits for rank 1.
PRINT = """
    import os, time, warnings
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch, torch.distributed as dist
    dist.init_process_group("gloo")
    dist.all_reduce(torch.ones(100_000))
    print("ready 0 now", flush=True)
    if os.environ["RANK"] == "1":
        while not os.path.exists("/tmp/go"):
            time.sleep(0.05)
        for _ in range(30_000):
            os.write(1, b"0123456789" * 9 + b"012345678\\n")
    dist.all_reduce(torch.ones(100_000))
"""


@concurrent
def test_a_pod_whose_log_nobody_takes_costs_nothing(launcher: Launcher) -> None:
    """Its shim is stopped, longer than any silence that is taken for a loss; the job waits, and goes on."""
    # Longer than a busy machine needs to import torch.
    flags = ("--stall-timeout", "30", "--stall-action", "stop")
    with Launched(launcher, "unread", PRINT, *flags) as job:
        ready(job)
        with shim_stopped(job.agent_of(1)):
            Path(f"/proc/{job.script_of(1)}/root/tmp/go").touch()
            job.wait_for("rank 1 waits for the reader of the output")
            time.sleep(35)
            assert job.process.poll() is None
        done = job.finish()
    assert done.code == 0, done.stderr
    assert "stalled: " not in done.stderr
    assert len(lines(done.stdout, 1)) == 30_001
    assert job.receipt()["failure"] is None
    assert launcher.left() == []


# Everything that a terminal, YAML, JSON, a shell or Kubernetes itself could take for its own.
HOSTILE = (
    "one\ntwo: {}\t\x1b[31mred\x1b]0;title\x07 $(id) $(HOME) ${HOME} `id` \u202eabc\u2066 \u2028 \"'\\ %s {0}"
)


@concurrent
def test_hostile_values_are_data(launcher: Launcher) -> None:
    """Row 20: in annotations and variables, unchanged in the API and in the script, escaped on the terminal."""
    text = """
        import os
        print("value", ascii(os.environ["HOSTILE"]), flush=True)
        print(os.environ["HOSTILE"], flush=True)
    """
    words = ("--keep", "--annotation", f"example.com/x={HOSTILE}", "--env", f"HOSTILE={HOSTILE}")
    with Launched(launcher, "row20", text, *words) as job:
        done = job.finish()
    assert done.code == 0, done.stderr
    for rank in (0, 1):
        assert lines(done.stdout, rank)[0] == f"value {HOSTILE!a}"
    for stream in (done.stdout, done.stderr):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2066]", stream), ascii(stream)
    annotated = [pod["metadata"]["annotations"]["example.com/x"] for pod in pods(launcher, "row20")]
    assert annotated == [HOSTILE, HOSTILE]
    kubectl = launcher.cluster.kubectl
    kubectl(
        "annotate", "--overwrite", "job", "row20", "-n", launcher.namespace, f"torchnet.alt/spec={HOSTILE}"
    )
    shown = launcher.run("status", "row20", "-n", launcher.namespace)
    assert shown.code == 0, shown.err
    assert "\\x1b[31mred" in shown.out, "why the run's size is unknown"
    assert "\x1b" not in shown.out + shown.err
    assert launcher.run("down", "row20", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


def test_a_pod_that_a_ready_node_has_not_ended_in_time_stays(launcher: Launcher) -> None:
    """Its processes may still run, with their GPUs and addresses: `torchnet down` names it, and leaves it."""
    kubectl, namespace = launcher.cluster.kubectl, launcher.namespace
    name, node = f"stuck-{namespace}", launcher.cluster.nodes[1]
    body = staying(name, node, namespace)
    body["metadata"]["labels"] = {"torchnet.alt/run": "stuck"}
    body["spec"]["terminationGracePeriodSeconds"] = 5
    kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(body))
    kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    (before,) = launcher.pods()
    with frozen(name):
        down = launcher.start("down", "stuck", "-n", namespace, "--now")
        time.sleep(18)  # 1 for its end, 12 more until its node is read
        (there,) = launcher.pods()
        ran = launcher.signalled(down, signal.SIGINT)
        kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=1s")
    assert there["metadata"]["uid"] == before["metadata"]["uid"]
    assert there["metadata"]["deletionGracePeriodSeconds"] == 1, "0 would be a forced deletion"
    assert ran.code == 130, ran.err
    assert f"pods/{name}: the kubelet on node {node}" in ran.err
    assert "the node is Ready" in ran.err
    assert f"kubectl delete pod {name} -n {namespace} --grace-period=0 --force" in ran.err
    until(lambda: launcher.pods() == [], "the pod ends by itself", 60)


def test_a_drained_node_is_named_and_gets_no_worker(launcher: Launcher) -> None:
    """In mid-run its worker is lost, in the cluster's words; the next launch has its workers elsewhere."""
    kubectl = launcher.cluster.kubectl
    with Launched(launcher, "drained", WAIT, "--grace", "2", arguments=(0,)) as job:
        ready(job)
        node = job.where()[1]
        chosen = ("--pod-selector", f"{RUN_LABEL}=drained")
        try:
            kubectl(
                "drain",
                node,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                *chosen,
                "--timeout=60s",
                timeout=70,
            )
            done = job.finish()
            with Launched(launcher, "elsewhere", WAIT, "--grace", "2", arguments=(0,)) as other:
                ready(other)
                assert node not in other.where().values()
        finally:
            kubectl("uncordon", node)
    assert done.code == 70, done.stderr
    assert (
        f"lost drained-1 (node rank 1 on {node}): its pod was disrupted: Eviction API: evicting"
        in done.stderr
    )
    assert launcher.left() == []
