"""Pods without a kubelet: objects on the API server, and the plugins called on the nodes as a container runtime does.

A sandbox is a network namespace. Multus reads the pod's annotation from the API, calls the plugins, and writes
network-status; the rest of a kubelet's part that torchnet depends on is here: the pod's address in its status, the name
server, and the annotations as files (the downward API).
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.cluster.control_plane import kubectl
from tests.cluster.parts import together
from tests.cluster.places import DNS_ADDRESS
from tests.cluster.shell import ClusterFailure
from tests.lab.lab import MULTUS, PLUGINS
from tests.lab.nodes import Answer, Node
from torchnet.constants import NETWORKS_ANNOTATION, NETWORKS_FILE, STATUS_ANNOTATION, STATUS_FILE

FOLDER = "/run/pods"
ATTEMPTS = 10  # a kubelet tries for ever
# Errors of Multus and Whereabouts that waited in vain for the API server. Only these are tried again.
_LATE = re.compile("context deadline exceeded|time limit exceeded while waiting")


@dataclass
class Pod:
    """A pod of a job: the body that torchnet renders, on a node, with the addresses that its annotation requests."""

    rendered: dict[str, Any]
    node: Node
    ips: tuple[str, ...] = ()
    uid: str = ""
    address: str = ""  # on the primary network
    status: list[dict[str, Any]] = field(default_factory=list)  # its network-status
    late: list[str] = field(default_factory=list)  # why ADD had to be tried again

    @property
    def name(self) -> str:
        return str(self.rendered["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.rendered["metadata"]["namespace"])

    @property
    def body(self) -> dict[str, Any]:
        body = copy.deepcopy(self.rendered)
        body["spec"]["nodeName"] = self.node.name
        if self.ips:
            annotations = body["metadata"]["annotations"]
            (one,) = json.loads(annotations[NETWORKS_ANNOTATION])
            annotations[NETWORKS_ANNOTATION] = json.dumps([one | {"ips": list(self.ips)}])
        return body

    def plugin(self, command: str) -> Answer:
        """Call Multus as the container runtime does: ADD or DEL. (Its CHECK looks at the primary network alone.)"""
        listed = json.loads(self.node.run("cat", MULTUS))
        (plugin,) = listed["plugins"]
        config = {"cniVersion": listed["cniVersion"], "name": listed["name"], **plugin}
        known = f"{FOLDER}/{self.name}/result"
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
        """Make the sandbox and its networks; ClusterFailure with the plugin's error.

        Where Multus has waited in vain for the API server, it is called again, and ``late`` has what it said.
        """
        for attempt in range(ATTEMPTS):
            self.node.run("ip", "netns", "add", self.name)
            self.node.run("ip", "-n", self.name, "link", "set", "lo", "up")
            answer = self.plugin("ADD")
            if answer.code == 0:
                break
            # As the kubelet does: it tears down what there is of a sandbox, and makes another one.
            self.plugin("DEL")
            self.node.run("ip", "netns", "delete", self.name)
            said = f"{answer.stdout}{answer.stderr}"
            if attempt == ATTEMPTS - 1 or not _LATE.search(said):
                raise ClusterFailure(f"ADD of {self.name} on {self.node}: {said}")
            self.late.append(said)
        self.address = json.loads(answer.stdout)["ips"][0]["address"].partition("/")[0]
        value = {"status": {"phase": "Running", "podIP": self.address, "podIPs": [{"ip": self.address}]}}
        patch = ("patch", "pod", self.name, "-n", self.namespace, "--subresource=status", "-p")
        body = json.loads(kubectl(*patch, json.dumps(value), "-o", "json"))
        annotations = body["metadata"]["annotations"]
        self.status = json.loads(annotations.get(STATUS_ANNOTATION, "[]"))
        for file, annotation in ((STATUS_FILE, STATUS_ANNOTATION), (NETWORKS_FILE, NETWORKS_ANNOTATION)):
            self.node.write(f"{volumes(self.name)}/status/{file}", annotations.get(annotation, ""))
        self.node.write(f"/etc/netns/{self.name}/resolv.conf", resolv_conf(self.namespace))
        # Of its own, as a container has it: the agent adds its peers.
        self.node.write(f"/etc/netns/{self.name}/hosts", f"127.0.0.1 localhost\n{self.address} {self.name}\n")

    def remove(self) -> None:
        """Take it away again; ClusterFailure if a plugin fails."""
        answer = self.plugin("DEL")
        self.node.ask("ip", "netns", "delete", self.name)
        self.node.ask("rm", "-rf", f"{FOLDER}/{self.name}")
        if answer.code:
            raise ClusterFailure(f"DEL of {self.name} on {self.node}: {answer.stdout}{answer.stderr}")

    def inside(self, *words: str) -> str:
        """What a command in the pod's network prints; ClusterFailure where it fails."""
        answer = self.node.ask("ip", "netns", "exec", self.name, *words)
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


def volumes(pod: str) -> str:
    """The folder on the pod's node that has a folder for each of its volumes."""
    return f"{FOLDER}/{pod}/volumes"


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
