"""From `kubectl apply` to the script's first line in all pods: torchnet's job, and the same without torchnet in it.

    uv run -m tests.cluster exec uv run -m benchmarks.pods --namespace NS --image IMAGE --network NAD [LAUNCH FLAGS]

Needs kubectl, a kubeconfig, and a namespace with an attachment; `tests.cluster exec` gives the first two on the test
cluster. The other job has the same objects; its init container does nothing, and its worker prints at once. Beside
it stands torchnet's own time, which the agents log: both containers' parts, without waiting for others.
"""

from __future__ import annotations

import copy
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import facts, summary

Json = dict[str, Any]
FIRST_LINE = 'import time\nprint("first line at", time.time(), flush=True)\n'
PAIRS, NODES, SECONDS = 5, 4, 120.0


def kubectl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=True)
    return done.stdout


def objects(folder: str, run: str, flags: Sequence[str]) -> list[Json]:
    """What `torchnet launch` would make for a script of one line."""
    command = [sys.executable, "-m", "torchnet", "launch", "--on", "kubernetes", "--nnodes", str(NODES)]
    command += ["--run-id", run, *flags, "--dry-run", "-o", "json", f"{folder}/first.py"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return list(found["items"] if isinstance(found, dict) else found)


def bare(found: list[Json]) -> list[Json]:
    """The same objects without torchnet's work in the pods."""
    made = copy.deepcopy(found)
    (job,) = (one for one in made if one["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    pod["initContainers"][0]["command"] = ["true"]
    pod["containers"][0]["command"] = ["python3", "-c", FIRST_LINE]
    # The file that only torchnet's init container makes.
    mounts = pod["containers"][0]["volumeMounts"]
    pod["containers"][0]["volumeMounts"] = [one for one in mounts if one["mountPath"] != "/etc/hosts"]
    return made


def once(found: list[Json], run: str, namespace: str) -> tuple[float, float]:
    """Seconds from the apply to the last pod's first line, and torchnet's own in the slowest pod."""
    chosen = f"torchnet/run={run}"
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": found})
    began = time.time()
    try:
        kubectl("apply", "--server-side", "-f", "-", text=text)
        while True:
            names = kubectl("-n", namespace, "get", "pods", "-l", chosen, "-o", "name").split()
            phases = kubectl("-n", namespace, "get", "pods", "-l", chosen, "-o", "jsonpath={..phase}").split()
            if phases.count("Succeeded") == NODES:
                break
            if time.time() > began + SECONDS:
                raise TimeoutError(f"{run}: {phases}")
            time.sleep(0.5)
        logs = [kubectl("-n", namespace, "logs", name, "--all-containers") for name in names]
    finally:
        kubectl("-n", namespace, "delete", "--wait=true", ",".join(kinds(found)), "-l", chosen)
    firsts = [float(re.findall(r"first line at ([0-9.]+)", log)[0]) for log in logs]
    own = [sum(map(float, re.findall(r"own time: ([0-9.]+) s", log))) for log in logs]
    return max(firsts) - began, max(own)


def kinds(found: list[Json]) -> list[str]:
    return sorted({one["kind"].lower() for one in found})


def main(flags: list[str]) -> None:
    place = {"-n", "--namespace"}
    namespace = next((flags[number + 1] for number, flag in enumerate(flags) if flag in place), "default")
    ours, theirs, own = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "first.py").write_text(FIRST_LINE)
        for pair in range(PAIRS + 1):
            run = f"first-{int(time.time())}"
            found = objects(folder, run, flags)
            seconds, spent = once(found, run, namespace)
            without, _ = once(bare(found), run, namespace)
            if pair:  # the first one warms the nodes up
                ours.append(seconds)
                theirs.append(without)
                own.append(spent)
    more = [a - b for a, b in zip(ours, theirs, strict=True)]
    print(facts())
    print(f"torchnet's job          {summary(ours)}")
    print(f"an empty init container {summary(theirs)}")
    print(f"torchnet's own time     {summary(own)}")
    print(
        f"more                    {statistics.median(more):.2f} s (from {min(more):.2f} to {max(more):.2f})"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
