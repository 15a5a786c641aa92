"""What happens to a cluster in mid-run: nothing missed or doubled, and who is lost is named."""

from __future__ import annotations

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
    process = launcher.started(TICKS.replace("100", "1000"), "--grace", "2", "--run-id", "shrunk")
    time.sleep(3)
    name = next(one["metadata"]["name"] for one in launcher.pods() if "-1-" in one["metadata"]["name"])
    launcher.cluster.kubectl("delete", "pod", name, "-n", launcher.namespace, "--grace-period=0", "--force")
    began = time.monotonic()
    ran = launcher.ended(process, began)
    assert ran.code == 70, ran.err
    assert "lost shrunk-1 (node rank 1" in ran.err
    assert ran.seconds < 40
    assert launcher.left() == []
