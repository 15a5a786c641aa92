"""The example's net.py, run as a pod runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from torchnet.k8s.addons import example_pods

FOLDER = Path(example_pods.__file__).parent / "example_scripts"
# The loopback interface stands for net1: its address is ::1 on every machine.
NETWORK, INTERFACE, OWN = "ml/backend-network", "lo", "::1"
Net = Callable[..., "subprocess.CompletedProcess[str]"]


def net_in(tmp_path: Path) -> Net:
    """For a fixture: ``net("show")`` is net.py in this machine's network, with what the pod gives it."""

    def run(
        *words: str, port: int = 0, limit: float = 300, patience: float = 6, **env: str
    ) -> subprocess.CompletedProcess[str]:
        text = (FOLDER / "net.py").read_text()
        for name, usual, seconds in (("DEADLINE", 300, limit), ("PATIENCE", 6, patience)):
            assert f"\n{name} = {usual} " in text
            text = text.replace(f"\n{name} = {usual} ", f"\n{name} = {seconds} ")
        (tmp_path / "net.py").write_text(text)
        variables = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(port),
            "NETWORK": NETWORK,
            "INTERFACE": INTERFACE,
            "TOKEN_FOLDER": str(tmp_path),
            "JOB_FOLDER": str(tmp_path),
        }
        return subprocess.run(
            [sys.executable, str(tmp_path / "net.py"), *words],
            env={**os.environ, **variables, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
