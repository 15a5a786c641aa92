"""What happens to a cluster in mid-run: nothing missed or doubled, and who is lost is named."""

from __future__ import annotations

import json
import time

from tests.cluster.launcher import Launcher

TICKS = """\
    import os, time
    for number in range(100):
        print("tick", number, flush=True)
        time.sleep(0.2)
"""


def test_the_api_server_restarted_twice_in_mid_watch(launcher: Launcher) -> None:
    """Watch and logs are taken up again: every line once, and the end is not missed, though twice nothing is known
    any more of what the watch had seen (410 Gone)."""
    process = launcher.started(TICKS, "--log-dir", "logs")
    for _ in range(2):
        time.sleep(3)
        version = launcher.version()
        # Something else changes, so that the version that the launcher's watch has is older than the new memory.
        launcher.cluster.kubectl("create", "configmap", f"at-{version}", "-n", launcher.namespace)
        launcher.cluster.restart_apiserver()
        assert '"code":410' in launcher.changes_since(version)
    ran = launcher.ended(process, time.monotonic())
    assert ran.code == 0, ran.err
    for rank in (0, 1):
        lines = (launcher.folder / "logs" / f"rank-{rank}.log").read_text().splitlines()
        assert lines == [f"tick {number}" for number in range(100)]
    assert ran.err.count("receipt of") == 1
    assert launcher.left() == []


def test_a_pod_that_is_deleted_in_mid_run_is_lost(launcher: Launcher) -> None:
    process = launcher.started(TICKS.replace("100", "1000"), "--grace", "2")
    time.sleep(3)
    name = next(one["metadata"]["name"] for one in launcher.pods() if "-1-" in one["metadata"]["name"])
    launcher.cluster.kubectl("delete", "pod", name, "-n", launcher.namespace, "--grace-period=0", "--force")
    began = time.monotonic()
    ran = launcher.ended(process, began)
    assert ran.code == 70, ran.err
    assert "lost" in ran.err
    assert "-1" in ran.err
    assert ran.seconds < 40
    assert launcher.left() == []


def test_rights_that_are_taken_away_in_mid_run_end_the_launcher_not_the_job(launcher: Launcher) -> None:
    """403 to a watch that is taken up again: the verb and the resource are named, and the way back to the job."""
    namespace, kubectl = launcher.namespace, launcher.cluster.kubectl
    kubectl("create", "serviceaccount", "someone", "-n", namespace)
    kubectl(
        "create",
        "rolebinding",
        "someone",
        "--clusterrole=admin",
        f"--serviceaccount={namespace}:someone",
        "-n",
        namespace,
    )
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": kubectl("create", "token", "someone", "-n", namespace).strip()}
    path = launcher.folder / "someone.kubeconfig"
    path.write_text(json.dumps(config))
    words = ("--kubeconfig", str(path), "--run-id", "watched")
    process = launcher.started(TICKS.replace("100", "1000"), *words)
    kubectl("delete", "rolebinding", "someone", "-n", namespace)
    launcher.cluster.restart_apiserver()  # an open watch is not asked for its rights again
    ran = launcher.ended(process, time.monotonic())
    assert ran.code == 3, ran.err
    assert "not allowed to watch pods" in ran.err or "not allowed to list pods" in ran.err
    assert "torchnet attach watched" in ran.err
    assert launcher.training(2), "the job goes on"
    assert launcher.run("down", "-n", namespace, "--now").code == 0
    assert launcher.left() == []
