"""The product's command against the cluster: started as people start it, in a folder with a script of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ("--cpus", "20m:1", "--memory", "96Mi:1Gi")


@dataclass
class Ran:
    """A command that has ended. ``seconds``: how long it took from start, or from the signal that it was sent."""

    code: int
    out: str
    err: str
    seconds: float


class Launcher:
    """Commands in one namespace, with ``folder`` as the working directory."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace, self.folder = cluster, namespace, folder

    def script(self, text: str, name: str = "train.py") -> str:
        (self.folder / name).write_text(textwrap.dedent(text))
        return name

    def words(
        self, *words: str, nnodes: int = 4, network: str = "backend-network", image: str = ""
    ) -> list[str]:
        """``launch`` with what every one of these tests needs."""
        return [
            *("launch", "--on", "kubernetes", "-n", self.namespace, "--nnodes", str(nnodes)),
            *("--image", image or self.cluster.worker_image, "--network", network, *SMALL, *words),
        ]

    def start(self, *words: str, program: str = "", **environ: str) -> subprocess.Popen[str]:
        """``program``: a Python script in the folder, in place of the command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TORCHNET_")}
        kept |= self.cluster.environment() | {
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(self.folder / "xdg"),
        }
        return subprocess.Popen(
            [
                *self.cluster.nsenter_prefix,
                sys.executable,
                *([program] if program else ["-m", "torchnet"]),
                *words,
            ],
            cwd=self.folder,
            env=kept | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *words: str, timeout: float = 180, **environ: str) -> Ran:
        began = time.monotonic()
        return self.ended(self.start(*words, **environ), began, timeout)

    def ended(self, process: subprocess.Popen[str], began: float, timeout: float = 180) -> Ran:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()
        assert "Traceback" not in err, err
        return Ran(process.returncode, out, err, time.monotonic() - began)

    def signalled(self, process: subprocess.Popen[str], number: int) -> Ran:
        """How a launch ends that is sent this signal."""
        began = time.monotonic()
        process.send_signal(number)
        return self.ended(process, began)

    def left(self) -> list[str]:
        """Objects of runs that are still in the namespace."""
        return self.cluster.run_objects(namespace=self.namespace)

    def pods(self) -> list[dict[str, Any]]:
        words = ("get", "pods", "-n", self.namespace, "-l", "torchnet.alt/run", "-o", "json")
        found: list[dict[str, Any]] = json.loads(self.cluster.kubectl(*words))["items"]
        return found

    def version(self) -> str:
        """The resourceVersion of the namespace's list of pods, from which a watch would go on."""
        listed = json.loads(self.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods"))
        return str(listed["metadata"]["resourceVersion"])

    def changes_since(self, version: str) -> str:
        """What a watch on the namespace's pods is told that goes on from this version, within a second."""
        query = f"watch=1&timeoutSeconds=1&resourceVersion={version}"
        return self.cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods?{query}")

    def training(self, count: int) -> bool:
        """Whether the cluster says of so many workers that their scripts have started, and not ended."""
        found = [one["status"].get("containerStatuses", [{}])[0] for one in self.pods()]
        return sum("running" in one.get("state", {}) and bool(one.get("started")) for one in found) == count
