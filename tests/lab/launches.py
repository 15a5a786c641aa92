"""A launch in the lab: what `torchnet launch --dry-run` prints, run by a kubelet's means on the nodes.

The pods' containers run one after the other in the pod's network: their command, environment and volumes. Three things
differ. The agent's archive is there as `tests.lab.lab` has unpacked it. Python is the tests' own, as root. And agent
and script are forks of Pythons that have imported them, or PyTorch (`tests.lab.preloaded`).
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.cluster.addons import ROOT
from tests.cluster.control_plane import kubectl
from tests.cluster.shell import ClusterFailure
from tests.cluster.shell import run as run_here
from tests.lab.attachments import NAME
from tests.lab.nodes import Answer
from tests.lab.pods import Pod, ask_all, volumes
from tests.lab.preloaded import AGENT

SCRIPT = Path(__file__).with_name("all_reduce.py")
PRELOADED = SCRIPT.with_name("preloaded.py")
IMAGE = "localhost/torchnet/none:1"  # nothing runs it
ARCHIVE = "/torchnet/torchnet.zip"  # in a pod
TIMEOUT = 180.0
_RUN = "name-of-the-run"
# On a busy machine a node can be silent for long.
FLAGS = ("--start-timeout", "60s", "--link-grace", "60s")
_RECEIPT = re.compile(r"^torchnet: receipt: (\{.*\})$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a launch ended: all exit codes, rank 0's first, all logs, and the job's receipt."""

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


def rendered(run: str, nnodes: int) -> list[dict[str, Any]]:
    """The objects of a run of plain pods, as `torchnet launch --dry-run` prints them."""
    return list(json.loads(_rendered(nnodes).replace(_RUN, run))["items"])


@cache
def _rendered(nnodes: int) -> str:
    """Printed once for all runs: each time is a start of Python."""
    words = ["launch", "--on", "kubernetes", "--dry-run", "-o", "json", "--kind", "pods", "--run-id", _RUN]
    words += ["--nnodes", f"{nnodes}", "-n", "default", "--network", f"default/{NAME}", *FLAGS]
    # The nodes see the machine's files: they are the image.
    words += ["--image", IMAGE, "--code", "image"]
    words += ["--no-python", sys.executable, "-S", str(PRELOADED), "run", str(SCRIPT)]
    return run_here(sys.executable, "-m", "torchnet", *words, cwd=ROOT)


def create_service(run: str, nnodes: int) -> None:
    """Create the run's Service, by whose name the workers find rank 0's pod."""
    (service,) = of_kind(rendered(run, nnodes), "Service")
    kubectl("create", "-f", "-", input=json.dumps(service))


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [body for body in objects if body["kind"] == kind]


def run_of(pod: Pod) -> str:
    """The run whose worker of rank 0 or more a pod is: RUN-RANK is its name."""
    return pod.name.rpartition("-")[0]


def launch(pods: list[Pod]) -> Outcome:
    """Run `SCRIPT` in these pods, one worker each; rank 0 is the first."""
    began = time.monotonic()
    objects = rendered(run_of(pods[0]), len(pods))
    bodies = of_kind(objects, "Pod")

    def worker(pod: Pod) -> Answer:
        return _Kubelet(pod, bodies[pods.index(pod)], objects).run()

    answers: list[Answer] = ask_all(pods, worker)
    logs = [f"{answer.stdout}{answer.stderr}" for answer in answers]
    found = _RECEIPT.search(logs[0])
    receipt = json.loads(found[1]) if found else {}
    return Outcome([answer.code for answer in answers], logs, receipt, time.monotonic() - began)


class _Kubelet:
    """Runs the containers of a rendered pod's body in a pod of the lab."""

    def __init__(self, pod: Pod, body: dict[str, Any], objects: list[dict[str, Any]]) -> None:
        self._pod, self._spec = pod, body["spec"]
        self._files = {
            (one["kind"], one["metadata"]["name"]): one.get("data", {})
            for one in objects
            if one["kind"] in ("ConfigMap", "Secret")
        }

    def run(self) -> Answer:
        """Run one container after the other, as long as they end with 0; the logs and the last one's exit code."""
        folder = volumes(self._pod.name)
        self._pod.node.run("rm", "-rf", *(f"{folder}/{name}" for name in ("state", "work")))
        for volume in self._spec["volumes"]:
            if name := volume.get("configMap", {}).get("name"):
                for file, text in self._files["ConfigMap", name].items():
                    self._pod.node.write(f"{folder}/{volume['name']}/{file}", text)
            if name := volume.get("secret", {}).get("secretName"):
                for file, text in self._files["Secret", name].items():
                    self._pod.node.write(f"{folder}/{volume['name']}/{file}", base64.b64decode(text).decode())
        out, err = "", ""
        for container in (*self._spec["initContainers"], *self._spec["containers"]):
            answer = self._container(container)
            out, err = out + answer.stdout, err + answer.stderr
            if answer.code:
                break
        return Answer(answer.code, out, err)

    def _container(self, container: dict[str, Any]) -> Answer:
        binds, folders = {}, []
        for mount in container["volumeMounts"]:
            source, target = f"{volumes(self._pod.name)}/{mount['name']}", mount["mountPath"]
            if part := mount.get("subPath"):
                source += f"/{part}"
            elif mount["name"] == "shm":
                continue  # the node's own
            else:
                folders += [source, target]
            binds[source] = target
        self._pod.node.run("mkdir", "-p", *folders)
        environment = {one["name"]: self._value(one) for one in container["env"]}
        words = [
            re.sub(r"\$\((\w+)\)", lambda found: environment[found[1]], word) for word in container["command"]
        ]
        if words[:2] != ["python3", ARCHIVE]:
            raise ClusterFailure(f"a container of torchnet's starts {words[:2]}")
        environment["PYTHONPATH"] = ""  # the node's own process needs one
        return self._pod.node.ask(
            *(AGENT, *words[2:]),
            env=environment,
            timeout=TIMEOUT,
            pod=self._pod.name,
            binds=binds,
            cwd=container.get("workingDir", "/"),
        )

    def _value(self, variable: dict[str, Any]) -> str:
        """An environment variable's value, or the pod's field that it is to have."""
        if "valueFrom" not in variable:
            return str(variable["value"])
        fields = {
            "metadata.name": self._pod.name,
            "metadata.namespace": self._pod.namespace,
            "metadata.uid": self._pod.uid,
            "status.podIP": self._pod.address,
            "spec.nodeName": self._pod.node.name,
        }
        return fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
