"""Time the start of 64 local nodes, compared with the same links by `ip -batch`, and the check of all their paths.

    uv run -m benchmarks.localnet [NODES]

Both sides create the same links: two bridges, a namespace for each node with a veth, a macvlan on a veth and two
addresses. torchnet also adds permanent neighbours, a process, a /proc, a /sys and a hosts file in each node.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.machine import facts, summary
from tests import forked_nodes
from torchnet.local import topology

RUNS = 5


def ours(count: int) -> float:
    """Return the seconds from nothing to the last node's process."""
    nodes = [topology.node(rank, 1) for rank in range(count)]
    began = time.monotonic()
    running = forked_nodes.start(nodes, lambda _rank: 0, topology.SandboxShape())
    taken = time.monotonic() - began
    running.kill()
    return taken


def theirs(count: int) -> float:
    """Build the same links with iproute2, in a user and network namespace created by unshare(1); return the seconds."""
    lines = [
        "link add front type bridge",
        "link add back mtu 9000 type bridge",
        "link set front up",
        "link set back up",
    ]
    inside = {}
    for rank in range(count):
        node = topology.node(rank, 1)
        (net1,) = node.backend
        lines += [
            f"link add {node.frontend.port} type veth peer name eth0 netns n{rank}",
            f"link set {node.frontend.port} master front up",
            f"link add {net1.port} mtu 9000 type veth peer name {net1.parent}",
            f"link set {net1.port} master back up",
            f"link set {net1.parent} mtu 9000 up",
            f"link add link {net1.parent} name net1 mtu 9000 netns n{rank} type macvlan mode bridge",
        ]
        inside[rank] = [
            "link set lo up",
            f"addr add {node.frontend.address}/16 dev eth0",
            f"addr add {net1.address}/64 dev net1 nodad",
            "link set eth0 up",
            "link set net1 up",
        ]
    with tempfile.TemporaryDirectory() as folder:
        script = ["mount -t tmpfs tmpfs /run", "mkdir -p /run/netns"]
        script += [f"ip netns add n{rank}" for rank in inside]
        script.append(f"ip -batch {folder}/fabric")
        for rank, batch in inside.items():
            with open(f"{folder}/{rank}", "w") as file:
                file.write("\n".join(batch) + "\n")
            script.append(f"ip -n n{rank} -batch {folder}/{rank}")
        with open(f"{folder}/fabric", "w") as file:
            file.write("\n".join(lines) + "\n")
        began = time.monotonic()
        subprocess.run(["unshare", "-Urnm", "sh", "-ec", "\n".join(script)], check=True)
        return time.monotonic() - began


def paths(count: int) -> tuple[str, float]:
    """Return the preflight's summary for a whole job, and the duration of the job in seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "torchnet", "launch", "--nnodes", str(count), "--no-python", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"preflight: (.*)", done.stderr)
    assert found is not None, done.stderr
    return found[1], time.monotonic() - began


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    mine, other = [], []
    for _ in range(RUNS):
        mine.append(ours(count))
        other.append(theirs(count))
    checked, taken = paths(count)
    print(facts())
    print(f"{count} nodes, torchnet   {summary(mine)}")
    print(f"{count} nodes, ip -batch  {summary(other)}")
    print(f"ratio                {statistics.median(a / b for a, b in zip(mine, other, strict=True)):.2f}")
    print(f"preflight            {checked}; the whole job in {taken:.2f} s")


if __name__ == "__main__":
    main()
