"""Time from `kubectl apply` to the script's first line in all pods: torchnet's job, and the same job without torchnet.

    uv run -m tests.cluster exec uv run -m benchmarks.pods --namespace NS --image IMAGE --network NAD [LAUNCH FLAGS]

The job has two workers, or as many as `--nnodes` says. A round's figures differ by up to 1 s: the kubelet notices only
once a second that the init container has ended. So the mean of many rounds counts.

Needs kubectl, a kubeconfig, and a namespace with a network attachment; `tests.cluster exec` provides the first two on
the test cluster. The other three jobs have the same objects, and their worker prints at once. The init container of the
first does nothing. That of the second starts Python, which says how long that took since the container's creation, as
the worker does. That of the third waits until net1's address is usable, as any program that uses net1 must: the kernel
detects duplicate addresses for 1 to 2 s (RFC 4862, 5.4).

Torchnet's own time is what the agents log: the work of both containers since their creation, without waiting for
others. What Python alone takes since then is also the container runtime's time.
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
# Seconds since this process was created, before the container runtime let it execute Python (starttime in proc(5)).
AGE = """
import os, time
with open("/proc/self/stat") as file:
    ticks = int(file.read().rpartition(")")[2].split()[19])
print(f"own time: {time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK'):.3f} s", flush=True)
"""
# An address of net1 that is not link-local (scope 00) and not tentative (IFA_F_TENTATIVE, 0x40); or an IPv4 route,
# since IPv4 has no duplicate address detection.
USABLE = """
import time
def usable():
    rows = [line.split() for line in open("/proc/net/if_inet6")]
    six = any(row[5] == "net1" and row[3] == "00" and not int(row[4], 16) & 0x40 for row in rows)
    return six or any(line.startswith("net1") for line in open("/proc/net/route"))
while not usable():
    time.sleep(0.02)
"""
ROUNDS, NODES, SECONDS = 24, "2", 120


def kubectl(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run(["kubectl", *arguments], input=text, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def objects(folder: str, run: str, flags: Sequence[str]) -> list[Json]:
    """Return the objects that `torchnet launch` would create for a script of one line."""
    command = [sys.executable, "-m", "torchnet", "launch", "--on", "kubernetes"]
    command += ["--run-id", run, *flags, "--dry-run", "-o", "json", f"{folder}/first.py"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return list(found["items"] if isinstance(found, dict) else found)


def bare(found: list[Json], init: Sequence[str]) -> list[Json]:
    """Return the same objects without torchnet's work in the pods, and with this command in their init container."""
    copied = copy.deepcopy(found)
    (job,) = (one for one in copied if one["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    pod["initContainers"][0]["command"] = list(init)
    pod["containers"][0]["command"] = ["python3", "-c", AGE + FIRST_LINE]
    # Only torchnet's init container creates these files.
    del pod["containers"][0]["startupProbe"]
    mounts = pod["containers"][0]["volumeMounts"]
    pod["containers"][0]["volumeMounts"] = [one for one in mounts if one["mountPath"] != "/etc/hosts"]
    return copied


def once(found: list[Json], run: str, namespace: str) -> tuple[float, float]:
    """Return the seconds from the apply to the last pod's first line, and the own time in the slowest pod."""
    chosen = f"torchnet.alt/run={run}"
    (job,) = (one["metadata"]["name"] for one in found if one["kind"] == "Job")
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": found})
    began = time.time()
    try:
        kubectl("apply", "--server-side", "-f", "-", text=text)
        # One process that mostly sleeps: to ask again and again takes a share of a small machine.
        kubectl("-n", namespace, "wait", f"job/{job}", "--for=condition=complete", f"--timeout={SECONDS}s")
        names = kubectl("-n", namespace, "get", "pods", "-l", chosen, "-o", "name").split()
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
    flags = flags if "--nnodes" in flags else ["--nnodes", NODES, *flags]
    ours, empty, waiting, own, python = [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "first.py").write_text(FIRST_LINE)
        for number in range(ROUNDS + 1):
            run = f"first-{int(time.time())}"
            found = objects(folder, run, flags)
            seconds, spent = once(found, run, namespace)
            without, _ = once(bare(found, ["true"]), run, namespace)
            _, interpreter = once(bare(found, ["python3", "-c", AGE]), run, namespace)
            usable, _ = once(bare(found, ["python3", "-c", USABLE]), run, namespace)
            if number:  # the first round warms the nodes up
                ours.append(seconds)
                empty.append(without)
                waiting.append(usable)
                own.append(spent)
                python.append(interpreter)
    print(facts())
    print(f"torchnet's job                                {summary(ours)}")
    print(f"an init container that does nothing           {summary(empty)}")
    print(f"an init container that waits for net1         {summary(waiting)}")
    print(f"torchnet's own time                           {summary(own)}")
    print(f"Python's in the same containers               {summary(python)}")
    for words, theirs in (("does nothing", empty), ("waits for net1", waiting)):
        more = [a - b for a, b in zip(ours, theirs, strict=True)]
        middle, error = statistics.mean(more), statistics.stdev(more) / len(more) ** 0.5
        spread = f"median {statistics.median(more):.2f}, from {min(more):.2f} to {max(more):.2f}"
        print(
            f"more than one that {words:<27}{middle:.2f} s ± {error:.2f} (mean and its standard error; {spread})"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
