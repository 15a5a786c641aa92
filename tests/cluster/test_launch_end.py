"""A launch on the cluster and its end: exit codes, receipts, and nothing left under the run's label."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.cluster import faults
from tests.cluster.concurrency import concurrent
from tests.cluster.launched import Launched
from tests.cluster.launcher import ROOT, Launcher
from tests.jobs import SLOW, until
from torchnet.constants import INDEX_LABEL

TICKS = """\
    import os, sys, time
    print("begun", os.environ["RANK"], flush=True)
    for number in range(600):
        print("tick", number, flush=True)
        time.sleep(0.2)
"""

# It has a last word when it is told to stop.
SAVES = """\
    import signal, sys, time
    def stop(*_):
        print("saved", flush=True)
        sys.exit(1)
    signal.signal(signal.SIGTERM, stop)
    print("begun", flush=True)
    time.sleep(300)
"""


def test_training_on_four_pods_over_two_nodes_is_proved(launcher: Launcher) -> None:
    """The stock image has neither torchnet nor pyroute2; the nodes' own cards are the second witness."""
    for name in ("train.py", "digits.csv.gz"):
        shutil.copy(ROOT / "launch" / name, launcher.folder)
    before = {node: launcher.cluster.ens5_counters(node) for node in launcher.cluster.nodes}
    words = launcher.words(
        "--json", "receipt.json", "--min-share", "0.99", "--spread", "hard", "--keep", "--run-id", "train"
    )
    began = time.monotonic()
    process = launcher.start(*words, "train.py", "--epochs", "2", "--model", "large", "--steps", "4")
    assert_stock(launcher.namespace)
    ran = launcher.ended(process, began, timeout=240)
    assert ran.code == 0, ran.err
    carried = {
        node: launcher.cluster.ens5_counters(node).sent - before[node].sent for node in launcher.cluster.nodes
    }
    receipt = json.loads((launcher.folder / "receipt.json").read_text())
    assert receipt["backend_share"] >= 0.99
    assert receipt["proof"] == "measured"
    assert receipt["runtime"] == "kubernetes"
    where = {
        one["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]: one["spec"]["nodeName"]
        for one in launcher.pods()
    }
    assert sorted(where.values()) == ["node1", "node1", "node2", "node2"]
    # What went to a worker on the other node left through the card; the rest stayed on the node.
    names = {f"train-{index}": node for index, node in where.items()}
    for node in launcher.cluster.nodes:
        crossed = sum(
            peer["sent_bytes"]
            for one in receipt["nodes"]
            if names[one["node"]] == node
            for peer in one["peers"]
            if names[peer["node"]] != node
        )
        assert crossed > 50_000_000, "the positive control: something must have crossed"
        assert abs(carried[node] - crossed) <= 0.05 * crossed, (node, carried[node], crossed)
    assert launcher.run("down", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


def assert_stock(namespace: str) -> None:
    """In rank 0's container its Python finds PyTorch by itself, and not what the job brought along."""
    found = 0

    def there() -> bool:
        nonlocal found
        found = faults.process("train-0-", RANK="0", POD_NAMESPACE=namespace)
        return found != 0

    until(there, "rank 0's script", pause=SLOW)
    python = os.readlink(f"/proc/{found}/exe")

    def imports(*words: str) -> subprocess.CompletedProcess[str]:
        inside = ("nsenter", f"--target={found}", "--mount", "--root", "--wd=/", "--", python)
        return subprocess.run([*inside, *words], capture_output=True, text=True, timeout=60, check=False)

    for module in ("pyroute2", "torchnet"):
        done = imports("-I", "-c", f"import {module}")
        assert f"ModuleNotFoundError: No module named '{module}'" in done.stderr
    done = imports("-I", "-c", "import importlib.util as look; print(look.find_spec('torch').origin)")
    assert done.stdout.endswith("/torch/__init__.py\n"), done.stderr


@concurrent
def test_the_first_failing_ranks_code_is_the_launchers_and_is_kept(launcher: Launcher) -> None:
    script = launcher.script(
        """\
        import os, sys, time
        print("begun", flush=True)
        if os.environ["RANK"] == "3":
            time.sleep(1)
            print("going", file=sys.stderr, flush=True)
            sys.exit(42)
        time.sleep(300)
        """
    )
    ran = launcher.run(*launcher.words("--keep", "--log-dir", "logs", "--grace", "2"), script)
    assert ran.code == 42, ran.err
    assert ran.out.count("begun") == 4
    assert "[rank 3] going" in ran.err
    assert "root cause: rank 3" in ran.err
    (log,) = (launcher.folder / "logs").glob("*/rank-3.log")
    assert log.read_text().splitlines() == ["begun", "going"]
    # What the pods keep is enough for the same answer, once more and later.
    again = launcher.run("attach", "-n", launcher.namespace, "--json", "-")
    assert again.code == 42, again.err
    receipt = json.loads(again.out[again.out.index("{\n") :])
    assert (receipt["exit_code"], receipt["failure"]["rank"]) == (42, 3)
    assert len(receipt["nodes"]) == 4
    assert_kept(launcher)
    (row,) = json.loads(launcher.run("status", "-n", launcher.namespace, "-o", "json").out)
    assert (row["state"], row["exit_code"], row["total"]) == ("failed", 42, 4)
    assert launcher.run("down", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


def assert_kept(launcher: Launcher) -> None:
    """Each of four pods has its log and its receipt, and nothing makes the cluster take them away with time."""
    kubectl, kept = launcher.cluster.kubectl, launcher.pods()
    codes: dict[str, int] = {}
    for pod in kept:
        name, rank = pod["metadata"]["name"], pod["metadata"]["labels"][INDEX_LABEL]
        log = kubectl("logs", name, "-n", launcher.namespace, "-c", "worker").splitlines()
        assert f"[{rank}] begun" in log, log
        (receipt,) = [
            line.partition(": {")[2] for line in log if line.startswith("torchnet: worker receipt: ")
        ]
        own = json.loads("{" + receipt)
        (container,) = pod["status"]["containerStatuses"]
        said = json.loads(container["state"]["terminated"]["message"])
        assert own["node"] == said["node"] == name.rpartition("-")[0]
        assert own["codes"] == said["receipt"]["codes"]
        assert (said["code"], said["failure"]["rank"]) == (42, 3)
        assert len([line for line in log if line.startswith("torchnet: receipt: ")]) == (rank == "0")
        codes |= own["codes"]
        assert pod["spec"]["restartPolicy"] == "Never"
        assert "activeDeadlineSeconds" not in pod["spec"]
        assert "deletionTimestamp" not in pod["metadata"]
    assert codes == {"0": 143, "1": 143, "2": 143, "3": 42}
    jobs = json.loads(
        kubectl("get", "jobs", "-n", launcher.namespace, "-l", "torchnet.alt/run", "-o", "json")
    )["items"]
    assert [{"ttlSecondsAfterFinished", "activeDeadlineSeconds"} & job["spec"].keys() for job in jobs] == [
        set()
    ]


@pytest.mark.parametrize(
    ("number", "nnodes"),
    [(signal.SIGINT, 4), (signal.SIGTERM, 2), (signal.SIGHUP, 2)],
    ids=lambda one: f"{one!s}",
)
@concurrent
def test_a_signal_stops_the_job_and_removes_it(launcher: Launcher, number: int, nnodes: int) -> None:
    """Fault 5: Ctrl-C, a system that goes down, and a terminal that is closed."""
    with Launched(launcher, "signalled", SAVES, "--grace", "5", nnodes=nnodes) as job:
        begun(job, nnodes)
        sent = job.send(number)
        done = job.finish()
    assert done.code == 128 + number, done.stderr
    assert f"stopped by {signal.Signals(number).name}" in done.stderr
    assert done.at - sent < 10
    assert done.stdout.count("saved") == nnodes, "last words are read"
    assert launcher.left() == []


def begun(job: Launched, nnodes: int = 2) -> None:
    """Each rank's script runs, and can be told to stop."""
    for rank in range(nnodes):
        job.wait_for(rf"\[rank {rank}\] begun", on="stdout")


@pytest.mark.parametrize("form", ["job", "jobset"])
@concurrent
def test_ctrl_c_ends_a_kept_job_and_leaves_it(launcher: Launcher, jobset: None, form: str) -> None:
    """Its workers have their time, and what they said then is still there."""
    with Launched(launcher, "kept", SAVES, "--keep", "--kind", form) as job:
        begun(job)
        sent = job.send(2)
        done = job.finish()
    assert done.code == 130, done.stderr
    assert done.at - sent < 10
    there = launcher.pods()
    assert [one["status"]["phase"] for one in there] == ["Failed", "Failed"]
    for one in there:
        words = ("logs", "-n", launcher.namespace, one["metadata"]["name"], "-c", "worker")
        assert "saved" in launcher.cluster.kubectl(*words)
    # What the agents were told, not by whom the launcher was.
    assert launcher.run("attach", "kept", "-n", launcher.namespace).code == 143
    assert launcher.run("down", "kept", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


@concurrent
def test_ctrl_c_twice_ends_the_launcher_at_once(launcher: Launcher) -> None:
    text = """\
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("begun", flush=True)
        time.sleep(300)
        """
    with Launched(launcher, "twice", text, "--grace", "60") as job:
        begun(job)
        job.send(2)
        time.sleep(1)
        sent = job.send(2)
        done = job.finish()
    assert done.code == 130, done.stderr
    faults.within(5, "the launcher's end", sent, done.at)
    assert "being deleted" in done.stderr
    assert f"torchnet down twice -n {launcher.namespace}" in done.stderr
    there = launcher.pods()
    assert len(there) == 2, "their grace period is not cut short"
    assert all("deletionTimestamp" in pod["metadata"] for pod in there)
    assert {"secret/twice-token", "networkpolicy.networking.k8s.io/twice"} <= set(launcher.left())
    for rank in range(2):
        faults.kill(job.script_of(rank))
    until(lambda: launcher.left() == [], "the removal of all objects", 30, SLOW)


@concurrent
def test_a_hangup_and_a_signal_before_anything_has_started(launcher: Launcher) -> None:
    with Launched(launcher, "early", TICKS) as job:
        until(launcher.left, "the first object", pause=SLOW)
        sent = job.send(1)
        done = job.finish()
    assert done.code == 129, done.stderr
    assert done.at - sent < 10
    assert launcher.left() == []


@concurrent
def test_a_launcher_that_is_killed_leaves_a_job_that_goes_on(launcher: Launcher) -> None:
    text = TICKS.replace("600", "60") + "    sys.exit(7)\n"
    with Launched(launcher, "orphan", text, "--grace", "2") as job:
        begun(job)
        job.send(9)
        job.process.wait(60)
    rows = launcher.run("status", "orphan", "-n", launcher.namespace)
    assert "orphan" in rows.out
    ran = launcher.run("attach", "-n", launcher.namespace)
    assert ran.code == 7, ran.err
    assert "receipt of orphan" in ran.err
    again = launcher.run(*launcher.words("--run-id", "orphan", nnodes=2), launcher.script(text))
    assert again.code == 2, again.err
    assert "torchnet attach orphan" in again.err
    assert launcher.run("down", "orphan", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


@concurrent
def test_detached_it_returns_when_all_have_started(launcher: Launcher) -> None:
    script = launcher.script(TICKS.replace("600", "40"))
    ran = launcher.run(*launcher.words("--run-id", "away", "--detach", nnodes=2), script)
    assert ran.code == 0, ran.err
    for command in ("attach", "logs", "down"):
        assert f"torchnet {command} away -n {launcher.namespace}" in ran.err
    assert launcher.training(2)
    logs = launcher.run("logs", "away", "-n", launcher.namespace, "-f", "--ranks", "1")
    assert logs.code == 0, logs.err
    numbers = [line.rpartition(" ")[2] for line in logs.out.splitlines() if "tick" in line]
    assert numbers == [str(number) for number in range(40)], "each line once, in order"
    assert "[rank 0]" not in logs.out
    assert launcher.run("attach", "-n", launcher.namespace).code == 0
    assert launcher.run("down", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


@concurrent
def test_the_time_for_the_whole_job(launcher: Launcher) -> None:
    script = launcher.script(TICKS)
    ran = launcher.run(*launcher.words("--timeout", "12s", "--grace", "2", nnodes=2), script)
    assert ran.code == 124, ran.err
    assert "--timeout 12 s" in ran.err
    assert launcher.left() == []
