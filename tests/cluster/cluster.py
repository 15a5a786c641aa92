"""The cluster as a whole, up and down, and what tests do with it."""

from __future__ import annotations

import functools
import ipaddress
import json
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGKILL

from tests.cluster import addons, control_plane, daemons, network, nodes, pki, recipes
from tests.cluster.parts import together
from tests.cluster.places import DISKS, KUBECONFIG, NODES, RUN
from tests.cluster.shell import ClusterFailure, run, timed, wait_until
from tests.cluster.versions import WORKER_IMAGE

RUN_KINDS = "pods,jobs,configmaps,secrets,services,serviceaccounts,roles,rolebindings,networkpolicies"

# Where they are installed.
RUN_KINDS_ON_TOP = ("jobsets.jobset.x-k8s.io", "multi-networkpolicies.k8s.cni.cncf.io")


@dataclass(frozen=True)
class Octets:
    """What an interface has carried, in bytes."""

    sent: int
    received: int


class Cluster:
    """A running cluster: two nodes with Multus and Whereabouts, everything in namespaces of its own."""

    kubeconfig: Path = KUBECONFIG
    nodes = NODES
    worker_image = WORKER_IMAGE
    # For processes that talk to the API server: the network of the control plane, the machine's own files.
    nsenter_prefix = control_plane.PREFIX

    def __init__(self) -> None:
        self.deleted_namespaces: list[str] = []

    def kubectl(self, *arguments: str | Path, input: str | None = None, timeout: float = 120) -> str:  # noqa: A002
        """kubectl as the administrator: its standard output, or ClusterFailure with what it said."""
        return control_plane.kubectl(*arguments, input=input, timeout=timeout)

    def environment(self) -> dict[str, str]:
        """What a process needs beside ``nsenter_prefix`` to reach the cluster."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    @contextmanager
    def namespace(
        self,
        *,
        enforce: str = "restricted",
        attachment: bool = True,
        range_: str = "",
        keeps_runs: bool = False,
    ) -> Iterator[str]:
        """The name of a fresh namespace under Pod Security ``enforce``, with the attachment ``backend-network``.

        Its addresses come from ``range_`` or from a range of its own, in which no pod of another test is.
        AssertionError if the block leaves objects of a run there, unless it ``keeps_runs``. The namespace controller
        waits 5 s before it deletes anything, so the end of the deletion is waited for once: :meth:`wait_for_deleted`.
        """
        unique = uuid.uuid4().hex
        name, range_ = f"test-{unique[:8]}", range_ or f"fcbb:0:801:{unique[-4:]}::/64"
        labels = {"pod-security.kubernetes.io/enforce": enforce}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        manifest = json.dumps(body) + (
            f"\n---\n{addons.attachment(name, range_=range_)}" if attachment else ""
        )
        try:
            self.kubectl("create", "-f", "-", input=manifest)
            # Pods are refused until the controllers have made these two.
            for one in ("serviceaccount/default", "configmap/kube-root-ca.crt"):
                wait_until(f"{name}'s {one}", 30, partial(_there, "-n", name, one))
            yield name
            if not keeps_runs:
                left = self.run_objects(namespace=name)
                assert left == [], f"the test left objects of a run: {left}"
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
            self.deleted_namespaces.append(name)

    def wait_for_deleted(self, seconds: float = 120) -> None:
        """Until each namespace that has been deleted is gone, with the pods in it."""

        def gone() -> bool:
            listed = self.kubectl("get", "namespaces", "-o", "name").split()
            there = sorted({f"namespace/{name}" for name in self.deleted_namespaces} & set(listed))
            if there:
                raise ClusterFailure(f"still there: {', '.join(there)}")
            return True

        wait_until("the deletion of the tests' namespaces", seconds, gone, 0.5)

    def run_objects(self, selector: str = "torchnet.alt/run", namespace: str = "") -> list[str]:
        """All objects that carry a run's label, as kind/name: in one namespace, or in all."""
        where = ("-n", namespace) if namespace else ("--all-namespaces",)
        return self.kubectl("get", run_kinds(), *where, "--selector", selector, "-o", "name").split()

    def on_node(self, node: str, *command: str, timeout: float = 120) -> str:
        """A command's output, run as on the node itself."""
        return run(*nodes.inside(node), *command, timeout=timeout)

    def given_back(self) -> set[str]:
        """Addresses that pods still have on net1, though Whereabouts would give them to another pod.

        It gives an address back first and takes away the interface after it, up to 3 s later: whoever gets the address
        meanwhile fails its duplicate address detection.
        """
        look = "for one in /var/run/netns/*; do nsenter --net=$one ip -6 -o address show net1; done 2>/dev/null; true"
        there: set[str] = set()
        for node in self.nodes:
            words = self.on_node(node, "sh", "-c", look).split()
            there |= {word.partition("/")[0] for word in words if word.startswith("fcbb:") and "/" in word}
        kept = set()
        for pool in json.loads(self.kubectl("get", "ippools", "-A", "-o", "json"))["items"]:
            first = int(ipaddress.ip_interface(pool["spec"]["range"]).network[0])
            kept |= {str(ipaddress.ip_address(first + int(number))) for number in pool["spec"]["allocations"]}
        return there - kept

    def ens5_counters(self, node: str) -> Octets:
        """The backend card's own counters: what all pods of the node sent to and received from others."""
        (link,) = json.loads(self.on_node(node, "ip", "-json", "-stats", "link", "show", "ens5"))
        count = link["stats64"]
        return Octets(count["tx"]["bytes"], count["rx"]["bytes"])

    def cut_cable(self, node: str) -> None:
        """Pull the cable of the node's ens5: net1 of its pods has no carrier any more."""
        network.set_cable(node, connected=False)

    def mend_cable(self, node: str) -> None:
        network.set_cable(node, connected=True)

    def restart_apiserver(self) -> None:
        """Kill the API server and start it anew, some 3 s: open watches end without a word."""
        control_plane.restart_apiserver()

    def kill_kubelet(self, node: str) -> None:
        """The node falls silent: NotReady after some 9 s, its pods are replaced after 20 s; containers run on."""
        daemons.stop(f"{node}-kubelet", SIGKILL)

    def start_kubelet(self, node: str) -> None:
        nodes.start_kubelet(node)


@functools.cache
def run_kinds() -> str:
    """The kinds of a run's objects, in kubectl's words, as far as the cluster knew them at the first call."""
    words = ("get", "customresourcedefinitions", *RUN_KINDS_ON_TOP, "--ignore-not-found", "-o", "name")
    known = [name.partition("/")[2] for name in control_plane.kubectl(*words).split()]
    return ",".join([RUN_KINDS, *known])


def is_up() -> bool:
    return daemons.pid("apiserver") is not None


def up(*, networks: bool = True) -> Cluster:
    """Bring it up, some 15 s; whatever fails is taken down again."""
    if not recipes.built():
        raise ClusterFailure("the cluster is not built: python -m tests.cluster build")
    run_kinds.cache_clear()  # of an earlier cluster
    if RUN.exists():
        raise ClusterFailure("a cluster is up on this machine, or was left: python -m tests.cluster down")
    if taken := network.in_the_way():
        raise ClusterFailure(f"network namespaces of these names are there already: {', '.join(taken)}")
    try:
        RUN.mkdir(parents=True)
        DISKS.mkdir(parents=True, exist_ok=True)
        with timed("up"):
            _start(networks)
    except BaseException:
        down()
        raise
    return Cluster()


def _there(*words: str) -> bool:
    return bool(control_plane.kubectl("get", *words, "-o", "name"))


def _start(networks: bool) -> None:
    together([network.make, pki.make])
    # The nodes' disks are laid while the API server starts.
    failures: list[BaseException] = []

    def start_nodes() -> None:
        try:
            together([partial(nodes.up, node) for node in NODES])
        except BaseException as failure:
            failures.append(failure)

    beside = threading.Thread(target=start_nodes)
    beside.start()
    try:
        control_plane.up()
        if networks:
            addons.apply_networks()
    finally:
        beside.join()
    if failures:
        raise failures[0]
    for node in NODES:
        wait_until(f"{node} to register", 60, partial(_there, f"node/{node}"))
    control_plane.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
    if networks:
        addons.wait_for_networks()


def down() -> None:
    """Take everything away but the built parts, also after a failure or a crash in the midst of it."""
    for node in NODES:
        daemons.stop(f"{node}-kubelet", SIGKILL)
    control_plane.down()
    for node in NODES:
        nodes.down(node)
    daemons.end(daemons.all_ours())
    network.remove()
    shutil.rmtree(DISKS, ignore_errors=True)
    shutil.rmtree(RUN, ignore_errors=True)
