"""A real two-node Kubernetes cluster on this machine, with Multus and Whereabouts.

uv run -m tests.cluster build             builds its parts, once: some 9 minutes, 5 GB
uv run -m tests.cluster up                brings it up: some 20 s, 2 GB of memory; builds first where needed
uv run -m tests.cluster kubectl get pods  kubectl as its administrator
uv run -m tests.cluster exec COMMAND      a command that reaches its API server: torchnet, a shell
uv run -m tests.cluster node NODE COMMAND a command on a node
uv run -m tests.cluster jobset            installs JobSet's controller in it
uv run -m tests.cluster status            whether it is built and up, and how to use it
uv run -m tests.cluster down              takes it away; only the built parts stay

TESTS_OF_TORCHNET_CACHE=FOLDER      where the built parts are; /var/cache/torchnet-cluster
TESTS_OF_TORCHNET_NAME=NAME         another cluster beside the first
TESTS_OF_TORCHNET_USE_CLUSTER=1     pytest uses the one that is up, and leaves it up
"""

from __future__ import annotations

import os
import sys

from tests.cluster import addons, cluster, control_plane, golang, kueue, machine, nodes, recipes
from tests.cluster.places import CACHE, KUBECONFIG, NODES
from tests.cluster.shell import ClusterFailure, say, timed
from tests.cluster.versions import WORKER_IMAGE


def use() -> str:
    """How people reach the cluster."""
    prefix = " ".join(control_plane.PREFIX)
    return f"""\
kubeconfig     {KUBECONFIG}
reach it with  {prefix} env KUBECONFIG={KUBECONFIG} COMMAND
               or: python -m tests.cluster exec COMMAND
kubectl        python -m tests.cluster kubectl get pods -A
worker image   {WORKER_IMAGE}
nodes          {", ".join(NODES)}: python -m tests.cluster node {NODES[0]} ip addr
take it down   python -m tests.cluster down"""


def build() -> None:
    if found := machine.obstacles():
        raise ClusterFailure("the cluster cannot be built on this machine:\n  " + "\n  ".join(found))
    with timed(f"built in {CACHE}"):
        recipes.build()
        kueue.build()


def status() -> None:
    for part in (*recipes.PARTS, kueue.PART):
        print(f"{part.name:14} {'built' if part.built else 'not built'}")
    print(use() if cluster.is_up() else "not up")


def become(*command: str) -> None:
    """Run ``command`` in this process's place, with its terminal."""
    if not cluster.is_up():
        raise ClusterFailure("the cluster is not up: python -m tests.cluster up")
    os.execvp(command[0], command)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["build"]:
            build()
        case ["up"]:
            if not cluster.is_up():  # which `cluster.up` refuses, without waiting for somebody's build
                build()
            cluster.up()
            print(use())
        case ["down"]:
            with timed("down"):
                cluster.down()
        case ["go"]:  # for .ci/run: whether there is one that can build it
            print(golang.go())
        case ["status"]:
            status()
        case ["jobset"]:
            addons.install_jobset()
        case ["kubectl", *words]:
            become(*control_plane.kubectl_command(), *words)
        case ["exec", *words] if words:
            become(*control_plane.PREFIX, "env", f"KUBECONFIG={KUBECONFIG}", *words)
        case ["node", node, *words] if node in NODES and words:
            become(*nodes.inside(node), *words)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ClusterFailure as failure:
        say(f"error: {failure}")
        sys.exit(1)
