"""What happens to a cluster in mid-run: nothing missed or doubled, and who is lost is named."""

from __future__ import annotations

from tests.cluster.launched import Launched
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
    with Launched(launcher, "restarted", TICKS, "--log-dir", "logs") as job:
        for tick in (10, 40):
            job.wait_for(f"tick {tick}$", on="stdout")
            version = launcher.version()
            # Something else changes, so that the version that the launcher's watch has is older than the new memory.
            launcher.cluster.kubectl("create", "configmap", f"at-{version}", "-n", launcher.namespace)
            launcher.cluster.restart_apiserver()
            assert '"code":410' in launcher.changes_since(version)
        done = job.finish()
    assert done.code == 0, done.stderr
    for rank in (0, 1):
        lines = (launcher.folder / "logs" / "restarted" / f"rank-{rank}.log").read_text().splitlines()
        assert lines == [f"tick {number}" for number in range(100)]
    assert done.stderr.count("receipt of") == 1
    assert launcher.left() == []
