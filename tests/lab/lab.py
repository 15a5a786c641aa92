"""The lab as a whole, up and down: two nodes with kernels of their own, the API server, Multus and Whereabouts on them.

No kubelet runs on the nodes: `tests.lab.pods` calls the plugins as one does.
"""

from __future__ import annotations

import base64
import compileall
import io
import json
import os
import shlex
import shutil
import signal
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

from tests.cluster import control_plane, daemons, network, pki
from tests.cluster import recipes as cluster
from tests.cluster.addons import MANIFESTS
from tests.cluster.control_plane import kubectl
from tests.cluster.nodes import primary
from tests.cluster.parts import together
from tests.cluster.places import API_ADDRESS, CONTROL_PLANE, NODES, RUN, namespace_file
from tests.cluster.shell import ClusterFailure, timed, wait_until
from tests.lab import fabric, recipes
from tests.lab.nodes import Node
from tests.lab.preloaded import SOCKETS
from torchnet.k8s.objects.agent_zip import agent_zip
from torchnet.linux import namespaces

PRELOADED = Path(__file__).with_name("preloaded.py")
PLUGINS = "/opt/cni/bin"
CONFIGURATION = "/etc/cni/net.d"
MULTUS = f"{CONFIGURATION}/00-multus.conflist"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# Only what pods of the lab need: others would evict pods from nodes without a kubelet.
CONTROLLERS = (
    "serviceaccount-controller",
    "endpointslice-controller",
    "root-ca-certificate-publisher-controller",
)


class Lab:
    """The lab, while it is up. This process is in the control plane's network."""

    def __init__(self) -> None:
        self.nodes = [Node(name) for name in NODES]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


def up() -> Lab:
    """Bring it up, some 15 s; whatever fails is taken down again."""
    if not recipes.built():
        raise ClusterFailure("the lab is not built: python -m tests.lab build")
    if RUN.exists():
        raise ClusterFailure("a lab is up on this machine, or was left: python -m tests.lab down")
    if taken := network.in_the_way(fabric.NAMES):
        raise ClusterFailure(f"network namespaces of these names are there already: {', '.join(taken)}")
    lab = Lab()
    try:
        RUN.mkdir(parents=True)
        with timed("up"):
            together([fabric.make, pki.make])
            enter_control_plane()
            for node in lab.nodes:
                node.boot()
            together([_start_control_plane, *(partial(_start_node, node) for node in lab.nodes)])
            agent = _pack_agent()
            together([partial(_install, node, agent) for node in lab.nodes])
            for node in lab.nodes:
                wait_until(f"{node}'s PyTorch", 120, partial(_has_preloaded, node), 0.5)
    except BaseException:
        down()
        raise
    return lab


def _start_node(node: Node) -> None:
    node.wait()
    _preload(node, "torch")


def _preload(node: Node, what: str, *flags: str) -> None:
    words = f"{shlex.join((sys.executable, *flags, str(PRELOADED)))} serve {what}"
    node.run("sh", "-c", f"setsid {words} >/run/preloaded-{what}.log 2>&1 &")


def _has_preloaded(node: Node) -> bool:
    return all(node.ask("test", "-S", path).code == 0 for path in SOCKETS.values())


def enter_control_plane() -> None:
    """Move this thread, and those that it starts from now on, into the control plane's network."""
    descriptor = os.open(namespace_file(CONTROL_PLANE), os.O_RDONLY)
    try:
        namespaces.setns(descriptor, namespaces.NEWNET)
    finally:
        os.close(descriptor)


def down() -> None:
    """Take everything away but the built parts, also after a failure or a crash in the midst of it."""
    control_plane.down()
    daemons.end(daemons.all_ours(), signal.SIGKILL)
    fabric.remove()
    shutil.rmtree(RUN, ignore_errors=True)


def _pack_agent() -> str:
    """The modules that torchnet's pods run, compiled as the first container of a pod leaves them, in Base64."""
    folder = RUN / "agent"
    with zipfile.ZipFile(io.BytesIO(agent_zip())) as archive:
        archive.extractall(folder)
    compileall.compile_dir(folder, quiet=1)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        tar.add(folder, "agent")
    return base64.b64encode(packed.getvalue()).decode()


def _start_control_plane() -> None:
    control_plane.start_etcd()
    control_plane.start_apiserver()
    control_plane.start_controller_manager(f"--controllers={','.join(CONTROLLERS)}")
    control_plane.start_dns()
    # The DaemonSets among these have no controller here: `_install` does on each node what their pods would do.
    files = (MANIFESTS / "multus-install.yaml", MANIFESTS / "whereabouts-install.yaml")
    kubectl("apply", *(word for file in files for word in ("-f", file)))
    bodies = [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in NODES]
    kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}))
    for account in ("multus", "whereabouts"):
        wait_until("the API server's tokens", 20, lambda account=account: bool(token(account)))  # type: ignore[misc]


def token(account: str) -> str:
    return kubectl("-n", "kube-system", "create", "token", account).strip()


def _install(node: Node, agent: str) -> None:
    """What the kubelet and the pods of Multus's and Whereabouts's DaemonSets do on a node, by their own programs."""
    image = "/usr/src/multus-cni/bin"  # where Multus's image has its programs
    node.run("mkdir", "-p", PLUGINS, CONFIGURATION, ACCOUNT, "/var/lib/cni", "/run/netns", image)
    node.run("cp", *recipes.plugins.folder.iterdir(), PLUGINS)
    node.run("cp", cluster.multus.folder / "multus", cluster.multus.folder / "passthru", image)
    node.run("ln", "-sfn", "/", "/host")
    node.run("sh", "-c", "base64 -d | tar xz -C /run", input=agent)
    _preload(node, "agent", "-S")  # as it finds no other packages in an image
    node.run("ln", "-sf", "/bin/busybox", "/bin/sh")
    node.write(f"{CONFIGURATION}/10-primary.conflist", json.dumps(primary(node.name)))
    node.write(f"{ACCOUNT}/ca.crt", (pki.PKI / "ca.crt").read_text())
    environment = {
        "KUBERNETES_SERVICE_HOST": API_ADDRESS,
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PROTOCOL": "https",
    }
    node.write(f"{ACCOUNT}/token", token("multus"), 0o600)
    entry = cluster.multus.folder / "thin_entrypoint"
    folders = "--multus-autoconfig-dir=/host/etc/cni/net.d --cni-conf-dir=/host/etc/cni/net.d"
    # It would watch the token for ever.
    script = (
        f"{entry} --multus-conf-file=auto {folders} & until test -s {MULTUS}; do sleep 0.1; done; kill $!"
    )
    node.run("sh", "-c", script, env=environment)
    node.write(f"{ACCOUNT}/token", token("whereabouts"), 0o600)
    folder = cluster.whereabouts.folder
    node.run("cp", folder / "lib.sh", folder / "whereabouts", "/")
    own = {"NODENAME": node.name, "WHEREABOUTS_NAMESPACE": "kube-system", "SLEEP": "false"}
    node.run("/bin/busybox", "sh", folder / "install-cni.sh", env=environment | own)
    node.run("rm", "-rf", ACCOUNT)
