"""The real API server keeps the contract that the API server of the unit tests is held to."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cluster.concurrency import concurrent
from tests.cluster.launcher import Launcher
from tests.conftest import ROOT
from tests.unit.store_contract import CHECKS


@concurrent
def test_the_real_server_keeps_the_contract_of_the_store(launcher: Launcher) -> None:
    cluster = launcher.cluster
    done = subprocess.run(
        [*cluster.nsenter_prefix, sys.executable, "-m", "tests.unit.store_contract", launcher.namespace],
        cwd=ROOT,
        env={**os.environ, **cluster.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(len(CHECKS))), done.stderr
