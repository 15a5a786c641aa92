"""Faults for a run on the cluster: of its processes, of its pods' networks, of the nodes and of what is between them.

Whatever is done to a node is undone at the end of its ``with`` block, which is given when it was done (monotonic).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cluster import network
from tests.cluster.cluster import Cluster
from tests.cluster.places import FABRIC, namespace
from tests.cluster.shell import run
from tests.jobs import environment, parent, state

Fault = contextlib.AbstractContextManager[float]


def within(seconds: float, what: str, since: float, until: float) -> None:
    """``what`` came in its time; ``pytest -rP`` shows how long it took."""
    print(f"{what}: {until - since:.1f} s, at most {seconds:g} s")
    assert until - since < seconds, f"{what}: {until - since:.1f} s"


@contextlib.contextmanager
def _until_undone(do: Callable[[], object], undo: Callable[[], object]) -> Iterator[float]:
    do()
    try:
        yield time.monotonic()
    finally:
        undo()


def cable_cut(cluster: Cluster, node: str) -> Fault:
    """The node's ens5 without carrier."""
    return _until_undone(lambda: cluster.cut_cable(node), lambda: cluster.mend_cable(node))


def packets_lost(*nodes: str) -> Fault:
    """The switch between the nodes' ens5 forwards nothing, while both have carrier."""

    def isolated(word: str) -> None:
        for node in nodes:
            port = network.cable(node, "ens5")
            run("bridge", "-n", namespace(FABRIC), "link", "set", "dev", port, "isolated", word)

    return _until_undone(lambda: isolated("on"), lambda: isolated("off"))


def mtu(cluster: Cluster, node: str, size: int) -> Fault:
    """The node's ens5 with another MTU, which the net1 of new pods takes over."""

    def give(value: int) -> None:
        cluster.on_node(node, "ip", "link", "set", "ens5", "mtu", str(value))

    return _until_undone(lambda: give(size), lambda: give(network.BACKEND_MTU))


def address(cluster: Cluster, node: str, address: str) -> Fault:
    """An address of the backend on the node's own ens5, which pods of the other node may be given, too."""

    def change(word: str, *more: str) -> None:
        cluster.on_node(node, "ip", "address", word, address, "dev", "ens5", *more)

    return _until_undone(lambda: change("add", "nodad"), lambda: change("del"))


def no_kubelet(cluster: Cluster, node: str) -> Fault:
    """The node's kubelet killed: for the cluster the node is lost. Ready again afterwards."""

    def ready() -> None:
        cluster.start_kubelet(node)
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=60s")

    return _until_undone(lambda: cluster.kill_kubelet(node), ready)


def out_of_service(cluster: Cluster, node: str) -> Fault:
    """What an administrator says of a node that is shut down: the cluster removes its pods."""
    taint = "node.kubernetes.io/out-of-service"
    return _until_undone(
        lambda: cluster.kubectl("taint", "nodes", node, f"{taint}=nodeshutdown:NoExecute"),
        lambda: cluster.kubectl("taint", "nodes", node, f"{taint}-"),
    )


def frozen(pod: str) -> Fault:
    """The pod's containerd-shim is stopped: the kubelet of its node, which stays Ready, cannot end the pod."""
    return shim_stopped(process(pod))


def shim_stopped(pid: int) -> Fault:
    """The containerd-shim that is the parent of this process is stopped, and takes nothing of its output."""
    shim = parent(pid)
    assert "containerd-shim" in Path(f"/proc/{shim}/cmdline").read_text()
    return _until_undone(lambda: os.kill(shim, signal.SIGSTOP), lambda: os.kill(shim, signal.SIGCONT))


def cordoned(cluster: Cluster, node: str) -> Fault:
    """No pod is placed on the node."""
    return _until_undone(lambda: cluster.kubectl("cordon", node), lambda: cluster.kubectl("uncordon", node))


def tainted(cluster: Cluster, taint: str) -> Fault:
    """All nodes have this taint, ``KEY=VALUE:EFFECT``, as machines with GPUs have one."""
    return _until_undone(
        lambda: cluster.kubectl("taint", "nodes", "--all", taint),
        lambda: cluster.kubectl("taint", "nodes", "--all", f"{taint}-"),
    )


def kill(pid: int) -> float:
    """kill -9, as the node's kernel does it; when that was (monotonic)."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def in_network(pid: int, *words: str) -> str:
    """A command's output, run in the network of this process's pod, with all rights there."""
    return run("nsenter", f"--net=/proc/{pid}/ns/net", *words)


def python_in_network(pid: int, text: str, *words: str) -> subprocess.Popen[str]:
    """Python with the project's modules in the network of this process's pod."""
    line = ("nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", text, *words)
    return subprocess.Popen(line, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


def process(pod: str, word: str = "", **variables: str) -> int:
    """Return the ID of the process that has these variables, in the pod with this name prefix; 0 if none has.

    Args:
        word: of its command.
    """
    for name in os.listdir("/proc"):
        if name.isdigit() and state(int(name)) not in ("", "Z"):
            if word and word not in _command(int(name)):
                continue
            found = environment(int(name))
            # Kubernetes calls the host RUN-INDEX; a pod of an Indexed Job has a suffix.
            if not (found.get("POD_NAME") or found.get("HOSTNAME", "") + "-").startswith(pod):
                continue
            if all(found.get(key) == value for key, value in variables.items()):
                return int(name)
    return 0


def _command(pid: int) -> str:
    """A process's command, its words separated by NUL; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def shaped(cluster: Cluster, *nodes: str, rate: str) -> Fault:
    """The nodes' ens5 send no faster than this, in tc's words: as a real line, and as steadily."""
    bucket = ("rate", rate, "burst", "256kb", "latency", "20ms")

    def change(*words: str) -> None:
        for node in nodes:
            cluster.on_node(node, "tc", "qdisc", *words)

    return _until_undone(
        lambda: change("add", "dev", "ens5", "root", "tbf", *bucket),
        lambda: change("del", "dev", "ens5", "root"),
    )
