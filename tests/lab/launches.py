"""A launch in the lab: an agent in each pod, with the flags and the environment of a pod that torchnet renders."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import kubectl
from tests.lab.lab import AGENT
from tests.lab.pods import STATUS_DIR, Pod, ask_all
from torchnet import constants
from torchnet.constants import INDEX_LABEL, RUN_LABEL

SCRIPT = Path(__file__).with_name("all_reduce.py")
PRELOADED = SCRIPT.with_name("preloaded.py")
TIMEOUT = 180.0
_RECEIPT = re.compile(r"^torchnet: receipt: (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a launch ended: rank 0's exit code, all logs, and the job's receipt."""

    codes: list[int]
    logs: list[str]
    receipt: dict[str, Any]
    seconds: float

    @property
    def code(self) -> int:
        return self.codes[0]

    @property
    def failure(self) -> str:
        found = self.receipt.get("failure") or {}
        return str(found.get("text", ""))


def service(run: str, namespace: str = "default") -> None:
    """The run's Service, by whose name the workers find rank 0's pod."""
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": run, "namespace": namespace},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {RUN_LABEL: run, INDEX_LABEL: "0"},
            "ports": [{"name": "join", "port": constants.JOIN_PORT}],
        },
    }
    kubectl("create", "-f", "-", input=json.dumps(body))


def launch(pods: list[Pod], script: Path = SCRIPT, *, start_timeout: float = 60) -> Outcome:
    """Run ``script`` in these pods, one worker each; rank 0 is the first."""
    began = time.monotonic()

    def agent(pod: Pod) -> Any:
        rank = pods.index(pod)
        words = [sys.executable, AGENT, "agent", "--nnodes", f"{len(pods)}", "--node-rank", f"{rank}"]
        words += ["--name", pod.name, "--run-id", pod.run, "--status-dir", f"{STATUS_DIR}/{pod.name}"]
        words += ["--attachment", f"{pod.namespace}/{pod.network}@net1", "--rank0-names", pod.run]
        words += ["--start-timeout", f"{start_timeout:g}", "--termination-log", ""]
        words += ["--link-grace", "60"]  # on a busy machine a node can be silent for long
        words += ["--no-python", sys.executable, "-S", str(PRELOADED), "run", str(script)]
        environment = {
            "TORCHNET_TOKEN": "of the lab",
            "POD_NAME": pod.name,
            "POD_NAMESPACE": pod.namespace,
            "POD_UID": pod.uid,
            constants.POD_IP_VARIABLE: pod.address,
            constants.HOST_VARIABLE: pod.node.name,
            "OMP_NUM_THREADS": "1",
        }
        return pod.command(*words, env=environment, timeout=TIMEOUT)

    answers = ask_all(pods, agent)
    logs = [f"{answer.stdout}{answer.stderr}" for answer in answers]
    found = _RECEIPT.search(logs[0])
    receipt = json.loads(found[1]) if found else {}
    return Outcome([answer.code for answer in answers], logs, receipt, time.monotonic() - began)
