"""A node: its network namespace, mounts of its own where Kubernetes keeps its files, containerd and kubelet.

hostPath volumes then work as on a machine of its own, and all mounts go when the last process in them has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

from tests.cluster import cgroups, recipes
from tests.cluster.daemons import log, pid, start, stop
from tests.cluster.pki import PKI
from tests.cluster.places import CGROUP, DISKS, DNS_ADDRESS, RUN, namespace_file, node_address, pod_range
from tests.cluster.shell import ClusterFailure, wait_until
from tests.cluster.versions import PAUSE_IMAGE

# Folders of the machine that a node sees with changes of its own, and what in them belongs to it alone: that is on
# its disk. Overlays first, so that no mount point has to be made on the machine.
SEEN = ("etc", "opt", "var/lib", "var/log")
OWN = (
    "etc/cni",
    "etc/kubernetes",
    "opt/cni",
    "var/lib/cni",
    "var/lib/containerd",
    "var/lib/kubelet",
    "var/log/containers",
    "var/log/pods",
)
STORE = "var/lib/containerd"
SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs/snapshots"
# The kubelet sets these for the whole machine; it finds files with the values that it wants.
SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
SOCKET = "/run/containerd/containerd.sock"


def up(node: str) -> None:
    """Start a node; it registers by itself a moment later."""
    disk = DISKS / node
    _fill(node, disk)
    _hold(node, disk)
    start(f"{node}-containerd", *inside(node), "containerd", "--config", "/etc/kubernetes/containerd.toml")
    # A kubelet that asks earlier gives up.
    wait_until(f"{node}'s containerd", 30, lambda: "Start streaming server" in log(f"{node}-containerd"))
    start_kubelet(node)


def inside(node: str) -> tuple[str, ...]:
    """The command prefix for a process on the node: its network, its mounts, its name."""
    holder = pid(f"{node}-holder")
    if holder is None:
        raise ClusterFailure(f"{node} is not up")
    return ("nsenter", f"--target={holder}", "--net", "--mount", "--uts", "--")


def start_kubelet(node: str) -> None:
    """Start the kubelet, which runs beside containerd on a node that is up."""
    program = recipes.kubernetes.folder / "kubelet"
    files = ("--config=/etc/kubernetes/kubelet.json", "--kubeconfig=/etc/kubernetes/kubeconfig")
    name = (f"--hostname-override={node}", f"--node-ip={node_address(node)}")
    start(f"{node}-kubelet", *inside(node), program, *files, *name, "--root-dir=/var/lib/kubelet")


def down(node: str) -> None:
    """End the node's processes, its containers last, and remove its disk."""
    for name in ("kubelet", "containerd"):
        stop(f"{node}-{name}", signal.SIGKILL)
    # The disk knows them, also where containerd has been killed: it names their control groups by their ids.
    known = DISKS / node / STORE / "io.containerd.grpc.v1.cri"
    cgroups.end(
        [f"{CGROUP}/{path.name}" for kind in ("containers", "sandboxes") for path in known.glob(f"{kind}/*")]
    )
    cgroups.forget(CGROUP)
    stop(f"{node}-holder", signal.SIGKILL)
    shutil.rmtree(DISKS / node, ignore_errors=True)


def _hold(node: str, disk: Path) -> None:
    """A process that keeps the node's namespaces. Mounts are private until all are laid, then the node's own."""
    settings = "; ".join(
        f"echo {value} >/run/settings/{name.replace('/', '.')}; "
        f"mount --bind /run/settings/{name.replace('/', '.')} /proc/sys/{name}"
        for name, value in SETTINGS.items()
    )
    script = f"""
        hostname {node}
        cd {disk}
        for path in {" ".join(SEEN)}; do
            mkdir -p changes/$path work/$path
            mount -t overlay -o lowerdir=/$path,upperdir=changes/$path,workdir=work/$path seen /$path
        done
        for path in {" ".join(OWN)}; do mkdir -p /$path; mount --bind $path /$path; done
        for path in {recipes.image_store.folder / SNAPSHOTS}/*; do
            unpacked=/{STORE}/{SNAPSHOTS}/${{path##*/}}
            mount --bind $path $unpacked
            mount -o remount,bind,ro $unpacked
        done
        cd /
        mount -t tmpfs -o mode=755 run /run
        mkdir -p /run/netns /run/settings
        {settings}
        mount --make-rshared /
        touch {disk}/held
        exec sleep infinity"""
    prefix = (
        "nsenter",
        f"--net={namespace_file(node)}",
        "unshare",
        "--mount",
        "--uts",
        "--propagation",
        "private",
    )
    start(f"{node}-holder", *prefix, "sh", "-ec", script)
    try:
        wait_until(f"{node}'s mounts", 10, (disk / "held").exists, 0.02)
    except ClusterFailure as failure:
        raise ClusterFailure(f"{failure}\n{log(f'{node}-holder')}") from None


def _fill(node: str, disk: Path) -> None:
    """The node's disk: the store by hard links, the CNI plugins, its configuration, and the primary network."""
    shutil.rmtree(disk, ignore_errors=True)
    for path in OWN:
        (disk / path).mkdir(parents=True)
    _fill_store(disk / STORE)
    shutil.copytree("/usr/lib/cni", disk / "opt/cni/bin")
    files = {
        "etc/cni/net.d/10-primary.conflist": json.dumps(primary(node), indent=1),
        "etc/kubernetes/kubelet.json": json.dumps(kubelet_configuration(node), indent=1),
        "etc/kubernetes/containerd.toml": CONTAINERD,
        # Names that nobody serves fail at once.
        "etc/kubernetes/resolv.conf": "nameserver 127.0.0.1\n",
    }
    for name, text in files.items():
        (disk / name).parent.mkdir(exist_ok=True)
        (disk / name).write_text(text)
    for name in ("ca.crt", f"{node}.crt", f"{node}.key"):
        shutil.copy(PKI / name, disk / "etc/kubernetes" / name)
    shutil.copy(RUN / f"{node}.kubeconfig", disk / "etc/kubernetes/kubeconfig")


def _fill_store(root: Path) -> None:
    """containerd's root: the built store's folders, its blobs by hard links, its databases as copies.

    The images' unpacked files are not copied: they are mounted, see ``_hold``.
    """
    store = recipes.image_store.folder
    for folder, below, names in os.walk(store):
        here = root / Path(folder).relative_to(store)
        here.mkdir(parents=True, exist_ok=True)
        for name in names:
            copy = shutil.copyfile if name.endswith(".db") else os.link
            copy(Path(folder, name), here / name)
        if Path(folder) == store / SNAPSHOTS:
            for name in below:
                (here / name).mkdir()
            below.clear()


def primary(node: str) -> dict[str, object]:
    """eth0 of the pods: a bridge on each node, static routes between them. A list, as Cilium's."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": pod_range(node)}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "primary", "plugins": [bridge, ports]}


def kubelet_configuration(node: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node_address(node),
        "tlsCertFile": f"/etc/kubernetes/{node}.crt",
        "tlsPrivateKeyFile": f"/etc/kubernetes/{node}.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": "/etc/kubernetes/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "resolvConf": "/etc/kubernetes/resolv.conf",
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        # Two nodes on one machine: neither owns its control groups or its disk.
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "nodeLeaseDurationSeconds": 8,
        "nodeStatusUpdateFrequency": "2s",
    }


CONTAINERD = f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
