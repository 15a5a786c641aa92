"""Where the cluster keeps what: the built parts, which stay, and what is there while it is up."""

from __future__ import annotations

import os
from pathlib import Path

# Not TORCHNET_…: torchnet warns of such a variable when it is not one of its own.
CACHE_VARIABLE = "TESTS_OF_TORCHNET_CACHE"

CACHE = Path(os.environ.get(CACHE_VARIABLE) or "/var/cache/torchnet-cluster")
PARTS = CACHE / "parts"
# Several clusters can stand side by side, each under a name of its own.
NAME = os.environ.get("TESTS_OF_TORCHNET_NAME") or "torchnet"
# The nodes' disks: on one file system with the built containerd store, whose blobs they hold by hard links.
DISKS = CACHE / f"{NAME}-disks"

RUN = Path(f"/run/{NAME}-cluster")
KUBECONFIG = RUN / "admin.kubeconfig"
CGROUP = "k8s.io"  # the parent of the containers' control groups, as containerd names it

NODES = ("node1", "node2")
CONTROL_PLANE = "cp"
FABRIC = "fabric"
NETNS = Path("/run/netns")
CP_ADDRESS = "172.31.0.1"
API_ADDRESS = "10.96.0.1"  # of the service `kubernetes`
DNS_ADDRESS = "10.96.0.10"  # of the name server, in the pods' resolv.conf
SERVICES = "10.96.0.0/16"


def namespace(host: str) -> str:
    """The name of a host's network namespace, as `ip netns` lists it: ``cp`` -> ``torchnet-cp``."""
    return f"{NAME}-{host}"


def namespace_file(host: str) -> Path:
    return NETNS / namespace(host)


def node_address(node: str) -> str:
    """``node1`` -> 172.31.0.11, on eth0."""
    return f"172.31.0.{10 + int(node.removeprefix('node'))}"


def pod_range(node: str) -> str:
    """``node1`` -> 10.244.1.0/24, the addresses of its pods on eth0."""
    return f"10.244.{int(node.removeprefix('node'))}.0/24"
