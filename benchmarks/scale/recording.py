"""What two real workers left in the API, from which KWOK makes any number of workers: their status, and their logs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import kwok
from tests.cluster.launcher import Launcher
from tests.cluster.shell import wait_until
from torchnet.constants import INDEX_LABEL, NODE_RANK_LABEL, PREPARE, RUN_LABEL, STATUS_ANNOTATION, WORKER

Json = dict[str, Any]
RUN = "scale"  # the name of all runs: the receipt in the log is valid for a run of this name alone
STEPS = 120
SCRIPT = f"""\
import time
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
ones = torch.ones(1024)
for step in range({STEPS}):
    dist.all_reduce(ones)
    print("step", step, flush=True)
    time.sleep(0.05)
dist.destroy_process_group()
"""
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
_STEP = re.compile(r"\[0\] step \d+$")
_VARIABLES = (
    "{{ $labels := .metadata.labels }}"
    f'{{{{ $rank := or (index $labels "{INDEX_LABEL}") (index $labels "{NODE_RANK_LABEL}") }}}}'
)
_ADDRESS = "PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace"


@dataclass(frozen=True)
class Recording:
    """Two workers: ``running`` and ``ended`` are their pods by rank, ``logs`` rank 0's lines by container."""

    running: list[Json]
    ended: list[Json]
    logs: dict[str, list[str]]

    def run_stages(self) -> list[Json]:
        """Stages that let a pod of any run get its addresses, start, and go when it is deleted."""
        ours = {f'.metadata.labels["{RUN_LABEL}"]': "Exists", ".metadata.deletionTimestamp": "DoesNotExist"}
        status = f'.metadata.annotations["{STATUS_ANNOTATION}"]'
        annotation = json.dumps({"annotations": {STATUS_ANNOTATION: _network_status(self.running[1])}})
        patch = {"root": "metadata", "type": "merge", "template": _VARIABLES + annotation}
        return [
            kwok.stage("pod-network", {**ours, status: "DoesNotExist"}, {"patches": [patch]}),
            kwok.stage(
                "pod-run",
                {**ours, status: "Exists", ".status.podIP": "DoesNotExist"},
                {"statusTemplate": _by_rank(self.running)},
            ),
            kwok.stage("pod-delete", {".metadata.deletionTimestamp": "Exists"}, {"delete": True}),
        ]

    def end_stages(self) -> list[Json]:
        """The stage that lets all running pods end as the real ones did."""
        running = {f'.metadata.labels["{RUN_LABEL}"]': "Exists", ".status.phase": ["Running"]}
        return [kwok.stage("pod-end", running, {"statusTemplate": _by_rank(self.ended)})]


def record(launcher: Launcher) -> Recording:
    """Run two real workers, and remove them."""
    words = launcher.words("--run-id", RUN, "--keep", nnodes=2)
    process = launcher.start(*words, launcher.script(SCRIPT))
    wait_until("the training", 120, lambda: launcher.training(2))
    running = _by_node_rank(launcher.pods())
    ran = launcher.ended(process, time.monotonic())
    if ran.code:
        raise RuntimeError(f"the run to record ended with {ran.code}\n{ran.err}")
    # The kubelet reports the end of the containers before the end of the pod.
    phases = lambda: {pod["status"]["phase"] for pod in launcher.pods()}  # noqa: E731
    wait_until("the end of the pods", 30, lambda: phases() == {"Succeeded"})
    ended = _by_node_rank(launcher.pods())
    name, where = running[0]["metadata"]["name"], launcher.namespace
    read = {
        one: launcher.cluster.kubectl("logs", name, "-n", where, "-c", one, "--timestamps").splitlines()
        for one in (PREPARE, WORKER)
    }
    launcher.run("down", RUN, "-n", where)
    return Recording(running, ended, read)


def split(lines: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The lines before the first step, the steps, and the lines after the last one."""
    steps = [number for number, line in enumerate(lines) if _STEP.search(line)]
    first, last = steps[0], steps[-1] + 1
    return list(lines[:first]), list(lines[first:last]), list(lines[last:])


def append(file: Path, lines: Sequence[str]) -> None:
    """Append lines that kubectl read with their time stamps, as if they were written now, in the CRI's format."""
    now = time.time_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
    with file.open("a") as stream:
        for number, line in enumerate(lines):
            nanoseconds = min(now % 10**9 + number, 10**9 - 1)
            stream.write(f"{stamp}.{nanoseconds:09}Z stdout F {line.partition(' ')[2]}\n")


def template(pod: Json, value: object) -> str:
    """Part of a real pod as a template for pods of any rank: JSON, in which names, addresses and times are KWOK's."""
    rank, text = pod["metadata"]["labels"][INDEX_LABEL], json.dumps(value)
    replaced = {
        pod["metadata"]["name"]: "{{ .metadata.name }}",
        f"{RUN}-{rank}": f"{RUN}-{{{{ $rank }}}}",
        pod["status"]["podIP"]: "{{ $address }}",
        pod["status"]["hostIP"]: "{{ NodeIP }}",
        # Within the termination message, which is JSON in JSON: its rank, and the only key of its exit codes.
        f'\\"node_rank\\":{rank}': '\\"node_rank\\":{{ $rank }}',
        f'{{\\"{rank}\\":0}}': '{\\"{{ $rank }}\\":0}',
    }
    for old, new in replaced.items():
        text = text.replace(old, new)
    return _STAMP.sub("{{ Now }}", text)


def _by_rank(pods: Sequence[Json]) -> str:
    """Rank 0's status, and rank 1's for all others."""
    first, second = (template(pod, pod["status"]) for pod in pods)
    address = f"{{{{ $address := or .status.podIP ({_ADDRESS}) }}}}"
    return f'{_VARIABLES}{address}{{{{ if eq $rank "0" }}}}{first}{{{{ else }}}}{second}{{{{ end }}}}'


def _network_status(pod: Json) -> str:
    """Rank 1's network status for all ranks, with a backend address of its own for each."""
    found = json.loads(pod["metadata"]["annotations"][STATUS_ANNOTATION])
    for one in found:
        if one["interface"] == "net1":
            one["ips"] = ["fcbb:0:800::{{ $rank }}"]  # ranks up to 9999 are hexadecimal digits, too
    return json.dumps(found, indent=4)


def _by_node_rank(pods: list[Json]) -> list[Json]:
    return sorted(pods, key=lambda pod: int(pod["metadata"]["labels"][INDEX_LABEL]))
