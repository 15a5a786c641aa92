"""Pods without a kubelet: objects on the API server, and the plugins called on the nodes as a container runtime does.

A sandbox is a network namespace. Multus reads the pod's annotation from the API, calls the plugins, and writes
network-status; the rest of a kubelet's part that torchnet depends on is here: the pod's address in its status, the name
server, and the annotations as files (the downward API).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.cluster.control_plane import kubectl
from tests.cluster.parts import together
from tests.cluster.places import DNS_ADDRESS
from tests.cluster.shell import ClusterFailure
from tests.lab.lab import MULTUS, PLUGINS
from tests.lab.nodes import Answer, Node
from torchnet.constants import (
    INDEX_LABEL,
    NETWORKS_ANNOTATION,
    NETWORKS_FILE,
    RUN_LABEL,
    STATUS_ANNOTATION,
    STATUS_FILE,
)

IMAGE = "localhost/torchnet/none:1"  # nothing runs it
STATUS_DIR = "/run/pods"
ATTEMPTS = 10  # Multus waits for the API server for a second at a time, and a kubelet tries for ever


@dataclass
class Pod:
    """A pod of a job, whose number ``rank`` its label holds."""

    name: str
    node: Node
    rank: int
    run: str
    namespace: str = "default"
    network: str = "backend-network"
    ips: tuple[str, ...] = ()  # that its annotation requests
    uid: str = ""
    address: str = ""  # on the primary network
    status: list[dict[str, Any]] = field(default_factory=list)  # its network-status

    @property
    def body(self) -> dict[str, Any]:
        one: dict[str, Any] = {"name": self.network, "namespace": self.namespace, "interface": "net1"}
        if self.ips:
            one["ips"] = list(self.ips)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {RUN_LABEL: self.run, INDEX_LABEL: str(self.rank)},
                "annotations": {NETWORKS_ANNOTATION: json.dumps([one])},
            },
            "spec": {
                "nodeName": self.node.name,
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "worker", "image": IMAGE}],
            },
        }

    def plugin(self, command: str) -> Answer:
        """Call Multus as the container runtime does: ADD, CHECK or DEL."""
        listed = json.loads(self.node.run("cat", MULTUS))
        (plugin,) = listed["plugins"]
        config = {"cniVersion": listed["cniVersion"], "name": listed["name"], **plugin}
        known = f"{STATUS_DIR}/{self.name}/result"
        if command != "ADD" and (before := self.node.ask("cat", known)).code == 0:
            config["prevResult"] = json.loads(before.stdout)
        of_pod = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": self.namespace,
            "K8S_POD_NAME": self.name,
            "K8S_POD_INFRA_CONTAINER_ID": self.container,
            "K8S_POD_UID": self.uid,
        }
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": f"/run/netns/{self.name}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": PLUGINS,
            "CNI_ARGS": ";".join(f"{name}={value}" for name, value in of_pod.items()),
        }
        answer = self.node.ask(f"{PLUGINS}/multus", env=environment, input=json.dumps(config), timeout=180)
        if command == "ADD" and answer.code == 0:
            self.node.write(known, answer.stdout)
        return answer

    @property
    def container(self) -> str:
        return self.uid.replace("-", "") * 2

    def add(self) -> None:
        """Make the sandbox and its networks; ClusterFailure with the plugin's error, as often as `ATTEMPTS` times."""
        for attempt in range(ATTEMPTS):
            self.node.run("ip", "netns", "add", self.name)
            self.node.run("ip", "-n", self.name, "link", "set", "lo", "up")
            answer = self.plugin("ADD")
            if answer.code == 0:
                break
            # As the kubelet does: it tears down what there is of a sandbox, and makes another one.
            self.plugin("DEL")
            self.node.run("ip", "netns", "delete", self.name)
            if attempt == ATTEMPTS - 1:
                raise ClusterFailure(f"ADD of {self.name} on {self.node}: {answer.stdout}{answer.stderr}")
        self.address = json.loads(answer.stdout)["ips"][0]["address"].partition("/")[0]
        value = {"status": {"phase": "Running", "podIP": self.address, "podIPs": [{"ip": self.address}]}}
        patch = ("patch", "pod", self.name, "-n", self.namespace, "--subresource=status", "-p")
        body = json.loads(kubectl(*patch, json.dumps(value), "-o", "json"))
        annotations = body["metadata"]["annotations"]
        self.status = json.loads(annotations.get(STATUS_ANNOTATION, "[]"))
        for file, annotation in ((STATUS_FILE, STATUS_ANNOTATION), (NETWORKS_FILE, NETWORKS_ANNOTATION)):
            self.node.write(f"{STATUS_DIR}/{self.name}/{file}", annotations.get(annotation, ""))
        self.node.write(f"/etc/netns/{self.name}/resolv.conf", resolv_conf(self.namespace))
        # Of its own, as a container has it: the agent adds its peers.
        self.node.write(f"/etc/netns/{self.name}/hosts", f"127.0.0.1 localhost\n{self.address} {self.name}\n")

    def check(self) -> None:
        """ClusterFailure if a plugin does not find what it has made."""
        answer = self.plugin("CHECK")
        if answer.code:
            raise ClusterFailure(f"CHECK of {self.name} on {self.node}: {answer.stdout}{answer.stderr}")

    def remove(self) -> None:
        """Take it away again; ClusterFailure if a plugin fails."""
        answer = self.plugin("DEL")
        self.node.ask("ip", "netns", "delete", self.name)
        self.node.ask("rm", "-rf", f"{STATUS_DIR}/{self.name}")
        if answer.code:
            raise ClusterFailure(f"DEL of {self.name} on {self.node}: {answer.stdout}{answer.stderr}")

    def command(self, *words: str, env: Mapping[str, str], timeout: float) -> Answer:
        """Run a command in the pod's network."""
        folder = f"{STATUS_DIR}/{self.name}"
        prefix = ("ip", "netns", "exec", self.name)
        return self.node.ask(*prefix, *words, env=dict(env), timeout=timeout, cwd=folder)

    def inside(self, *words: str) -> str:
        """What a command in the pod's network prints; ClusterFailure where it fails."""
        answer = self.command(*words, env={}, timeout=60)
        if answer.code:
            raise ClusterFailure(
                f"{self.name}: code {answer.code} from {words}: {answer.stdout}{answer.stderr}"
            )
        return answer.stdout

    def status_entry(self, interface: str) -> dict[str, Any]:
        """The entry of this interface in the pod's network-status."""
        (entry,) = [one for one in self.status if one.get("interface") == interface]
        return entry

    def net1(self) -> dict[str, Any]:
        """The interface as the kernel has it: its kind, mode, MTU and addresses."""
        shown = self.node.run("ip", "-n", self.name, "-d", "-json", "address", "show", "dev", "net1")
        found: dict[str, Any] = json.loads(shown)[0]
        return found


def resolv_conf(namespace: str) -> str:
    domains = (f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local")
    return f"nameserver {DNS_ADDRESS}\nsearch {' '.join(domains)}\noptions ndots:5\n"


def start(pods: list[Pod]) -> None:
    """Create the objects, then all sandboxes at once, as the kubelets of several nodes do."""
    listed = {"apiVersion": "v1", "kind": "List", "items": [pod.body for pod in pods]}
    form = "jsonpath={.metadata.name}={.metadata.uid}{'\\n'}"
    said = kubectl("create", "-f", "-", "-o", form, input=json.dumps(listed))
    uids = dict(line.split("=") for line in said.split())
    for pod in pods:
        pod.uid = uids[pod.name]
    together([pod.add for pod in pods])
    together([pod.check for pod in pods])


def end(pods: list[Pod]) -> None:
    """Remove the sandboxes, then the objects."""
    try:
        together([pod.remove for pod in pods])
    finally:
        names = [pod.name for pod in pods]
        # No kubelet confirms that they have ended.
        words = ("--force", "--grace-period=0", "--ignore-not-found", "--wait=false")
        kubectl("delete", "pod", "-n", pods[0].namespace, *names, *words)


def ask_all(pods: list[Pod], ask: Any) -> list[Any]:
    """The results of ``ask(pod)``, for all pods at once."""
    found: dict[str, Any] = {}

    def one(pod: Pod) -> None:
        found[pod.name] = ask(pod)

    together([partial(one, pod) for pod in pods])
    return [found[pod.name] for pod in pods]
