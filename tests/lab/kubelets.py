"""A real kubelet and containerd on each of the lab's nodes, with the shipped manifests as they are: for one launch.

The table's pods are made without them: on these kernels, a kubelet takes 10 s from a pod to its first container, and
each worker would import PyTorch anew, for 10 s and more.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.cluster import addons, control_plane, recipes
from tests.cluster.nodes import CONTAINERD, SNAPSHOTS, STORE, kubelet_configuration
from tests.cluster.parts import together
from tests.cluster.pki import PKI
from tests.cluster.places import KUBECONFIG, RUN, node_address
from tests.cluster.shell import wait_until
from tests.cluster.versions import WORKER_IMAGE
from tests.lab.attachments import NAME
from tests.lab.lab import CONFIGURATION, PLUGINS, Lab
from tests.lab.nodes import Node

FILES = "/etc/kubernetes"
# What `tests.lab.lab` has put there by hand is now the DaemonSets' to install.
_INSTALLED = " ".join(
    (
        f"{CONFIGURATION}/00-multus.conflist",
        f"{CONFIGURATION}/*.d",
        *(f"{PLUGINS}/{name}" for name in ("multus", "passthru", "whereabouts")),
    )
)
# These kernels have no cpuset controller, which a kubelet can do without, and do not say the processor's clock, which
# it cannot. Layers cannot be written on the node's own root, which is an overlay itself.
_PREPARE = f"""
mount -t cgroup2 cgroup2 /sys/fs/cgroup
(sed '/^$/d' /proc/cpuinfo; echo 'cpu MHz : 1000.000'; echo) >/run/cpuinfo
mount --bind /run/cpuinfo /proc/cpuinfo
rm -rf {_INSTALLED} /host
mkdir -p /{STORE} /var/lib/kubelet /var/log/pods /var/log/containers
mount -t tmpfs tmpfs /{STORE}
mount -t tmpfs tmpfs /var/lib/kubelet
cd $store
for name in *; do
    case $name in
        *.content) mkdir /{STORE}/$name; mount --bind $name /{STORE}/$name;;
        *.overlayfs) mkdir -p /{STORE}/{SNAPSHOTS}; cp $name/*.db /{STORE}/$name;;
        *) cp -a $name /{STORE};;
    esac
done
for path in $store/{SNAPSHOTS}/*; do
    mkdir /{STORE}/{SNAPSHOTS}/${{path##*/}}
    mount --bind $path /{STORE}/{SNAPSHOTS}/${{path##*/}}
done
mount --make-rshared /
setsid containerd --config {FILES}/containerd.toml >/run/containerd.log 2>&1 &
until grep -q 'Start streaming server' /run/containerd.log; do sleep 0.2; done
setsid $kubelet --config={FILES}/kubelet.json --kubeconfig={FILES}/kubeconfig --root-dir=/var/lib/kubelet \\
    --hostname-override=$name_of --node-ip=$address >/run/kubelet.log 2>&1 &
"""


def start(lab: Lab) -> None:
    """Make the lab a cluster: kubelets, all controllers, a scheduler; Multus and Whereabouts run when it returns."""
    together([partial(_start, node) for node in lab.nodes])
    for node in lab.nodes:
        wait_until(f"{node} to be ready", 60, partial(_is_ready, node), 0.5)
    control_plane.restart_controller_manager()
    control_plane.start_scheduler()
    addons.wait_for_networks(180)


def launch(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """`torchnet launch` as people call it, on two nodes and the attachment of the default namespace."""
    command = [
        sys.executable,
        "-m",
        "torchnet",
        "launch",
        "--on",
        "kubernetes",
        "-n",
        "default",
        "--nnodes",
        "2",
    ]
    command += ["--image", WORKER_IMAGE, "--network", NAME, "--cpus", "20m:1", "--memory", "96Mi:1Gi"]
    environment = os.environ | {"KUBECONFIG": str(KUBECONFIG), "PYTHONPATH": str(addons.ROOT)}
    return subprocess.run(
        [*command, *map(str, words)],
        cwd=folder,
        env=environment,
        timeout=600,
        capture_output=True,
        text=True,
        check=False,
    )


def _start(node: Node) -> None:
    files = {
        "kubelet.json": json.dumps(kubelet_configuration(node.name)),
        "containerd.toml": CONTAINERD,
        "resolv.conf": "nameserver 127.0.0.1\n",
        "kubeconfig": (RUN / f"{node.name}.kubeconfig").read_text(),
    }
    files |= {name: (PKI / name).read_text() for name in ("ca.crt", f"{node.name}.crt", f"{node.name}.key")}
    for name, text in files.items():
        node.write(f"{FILES}/{name}", text)
    values = {
        "store": recipes.image_store.folder,
        "kubelet": recipes.kubernetes.folder / "kubelet",
        "name_of": node.name,
        "address": node_address(node.name),
    }
    lines = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())
    node.run("sh", "-ec", f"{lines}{_PREPARE}", timeout=120)


def _is_ready(node: Node) -> bool:
    words = ("get", "node", node.name, "-o")
    return control_plane.kubectl(*words, 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == "True"
