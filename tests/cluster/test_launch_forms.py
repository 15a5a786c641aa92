"""The other workloads, a run that kubectl made, and one that waits in a queue."""

from __future__ import annotations

import json
import time

from tests.cluster import addons
from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.jobs import SLOW, until

HELLO = """\
    import os, sys, time
    print("hello", os.environ["RANK"], flush=True)
    time.sleep(1)
    if len(sys.argv) > 1 and os.environ["RANK"] == "1":
        sys.exit(9)
"""


@concurrent
def test_pods_with_fixed_addresses(launcher: Launcher) -> None:
    """Their receipt is the one that rank 0 writes, for the launch and for `torchnet logs`."""
    attachment = addons.attachment(launcher.namespace, "--ipam", "static", "--name", "fixed")
    launcher.cluster.kubectl("apply", "-f", "-", input=attachment)
    addresses = ("--static-ips", "fcbb:0:800:ffff::f00-fcbb:0:800:ffff::f0f/64")
    words = launcher.words(
        *addresses, "--keep", "--json", "r.json", "--run-id", "fixed", nnodes=2, network="fixed"
    )
    ran = launcher.run(*words, launcher.script(HELLO))
    assert ran.code == 0, ran.err
    assert sorted(ran.out.splitlines()) == ["[rank 0] hello 0", "[rank 1] hello 1"]
    receipt = json.loads((launcher.folder / "r.json").read_text())
    assert (receipt["network"], receipt["findings"], receipt["exit_code"]) == ("static", [], 0)
    # The termination messages do not have the rails.
    assert [rail["attachment"] for rail in receipt["rails"]] == [f"{launcher.namespace}/fixed"]
    logs = launcher.run("logs", "fixed", "-n", launcher.namespace)
    assert (logs.code, logs.err.count("receipt of fixed")) == (0, 1), logs.err
    assert launcher.run("down", "fixed", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


@concurrent
def test_a_script_that_fails_twice_uses_up_its_own_restarts_alone(launcher: Launcher, jobset: None) -> None:
    """The agents start it again in its pods, and the JobSet has none for it."""
    restarts = ("--max-restarts", "1", "--max-infra-restarts", "1")
    words = launcher.words("--kind", "jobset", *restarts, "--grace", "2", "--json", "r.json", nnodes=2)
    ran = launcher.run(*words, launcher.script(HELLO), "fail")
    assert ran.code == 9, ran.err
    assert ran.out.count("hello 1") == 2, "both starts are shown"
    receipt = json.loads((launcher.folder / "r.json").read_text())
    assert (receipt["exit_code"], receipt["restarts"]) == (9, 1)
    assert launcher.left() == []


@concurrent
def test_what_kubectl_applied_is_a_run_like_any_other(launcher: Launcher) -> None:
    """The same text twice; queued (suspended) first, then attached to its end."""
    words = [
        *launcher.words("--run-id", "applied", "--dry-run", "-o", "json", nnodes=2),
        launcher.script(HELLO),
    ]
    first, second = launcher.run(*words), launcher.run(*words)
    assert first.code == 0, first.err
    assert first.out == second.out
    objects = json.loads(first.out)
    for one in objects["items"]:
        if one["kind"] == "Job":
            one["spec"]["suspend"] = True
    kubectl = launcher.cluster.kubectl
    kubectl("apply", "--server-side", "-f", "-", input=json.dumps(objects))
    (row,) = json.loads(launcher.run("status", "applied", "-n", launcher.namespace, "-o", "json").out)
    assert row["state"] == "suspended"
    kubectl(
        "patch",
        "job",
        "applied",
        "-n",
        launcher.namespace,
        "--type=merge",
        "-p",
        '{"spec":{"suspend":false}}',
    )
    ran = launcher.run("attach", "applied", "-n", launcher.namespace)
    assert ran.code == 0, ran.err
    assert "hello 1" in ran.out
    assert launcher.run("down", "-n", launcher.namespace).code == 0
    assert launcher.left() == []


@concurrent
def test_time_in_a_queue_does_not_count(launcher: Launcher) -> None:
    words = launcher.words(
        "--run-id", "waits", "--start-timeout", "10s", "--node-selector", "no=such", nnodes=2
    )
    process = launcher.start(*words, launcher.script(HELLO))
    began = time.monotonic()
    until(lambda: len(launcher.pods()) == 2, "two pods", pause=SLOW)
    kubectl, patch = launcher.cluster.kubectl, '{{"spec":{{"suspend":{}}}}}'
    kubectl("patch", "job", "waits", "-n", launcher.namespace, "--type=merge", "-p", patch.format("true"))
    time.sleep(15)
    assert process.poll() is None, "the deadline passed in the queue"
    kubectl("patch", "job", "waits", "-n", launcher.namespace, "--type=merge", "-p", patch.format("false"))
    ran = launcher.ended(process, began)
    assert ran.code == 124, ran.err
    assert "the Job is suspended until" in ran.err
    assert "node(s) didn't match" in ran.err
    assert ran.seconds > 22
    assert launcher.left() == []
