"""Attachments in the lab, installed as `torchnet manifests` prints them or as people write them by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml

from tests.cluster.addons import ROOT
from tests.cluster.control_plane import kubectl
from tests.cluster.parts import together
from tests.cluster.shell import ClusterFailure, run
from tests.lab.lab import Lab
from tests.lab.nodes import Node

NAME = "backend-network"
SLICES_FOLDER = "/slices"


@dataclass(frozen=True)
class Refusal:
    """What torchnet says instead of printing an attachment."""

    text: str


def printed(*words: str) -> list[dict[str, Any]] | Refusal:
    """The objects that `torchnet manifests backend-network` prints with these words."""
    try:
        text = run(sys.executable, "-m", "torchnet", "manifests", NAME, *words, cwd=ROOT)
    except ClusterFailure as failure:
        return Refusal(str(failure).partition("\n")[2])
    return [body for body in yaml.safe_load_all(text) if body]


def by_hand(config: dict[str, Any]) -> list[dict[str, Any]]:
    """An attachment with this configuration."""
    body = {"cniVersion": "1.0.0", "name": NAME, **config}
    return [
        {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": NAME, "namespace": "default"},
            "spec": {"config": json.dumps(body)},
        }
    ]


@contextmanager
def installed(lab: Lab, objects: list[dict[str, Any]]) -> Iterator[None]:
    """Apply the attachment; what a DaemonSet does on each node, its own command does here."""
    kinds = {body["kind"]: body for body in objects}
    attachment = json.dumps(kinds["NetworkAttachmentDefinition"])
    kubectl("apply", "-f", "-", input=attachment)
    daemon = kinds.get("DaemonSet")
    routes = {node.name: _routes(node) for node in lab.nodes} if daemon is not None else {}
    try:
        if daemon is not None:
            together([partial(_run_daemon, node, daemon, kinds["ConfigMap"]) for node in lab.nodes])
        yield
    finally:
        kubectl("delete", "--ignore-not-found", "-f", "-", input=attachment)
        for node in lab.nodes:
            node.run("rm", "-rf", "/etc/cni/multus/net.d", SLICES_FOLDER)
            if node.name in routes:
                for added in _routes(node) - routes[node.name]:
                    node.run("ip", "-6", "route", "delete", added)


def _routes(node: Node) -> set[str]:
    """The ranges to which the node's card has a route via another node."""
    found = json.loads(node.run("ip", "-json", "-6", "route", "show", "dev", "ens5") or "[]")
    return {str(one["dst"]) for one in found if "gateway" in one}


def _run_daemon(node: Node, daemon: dict[str, Any], config_map: dict[str, Any]) -> None:
    """Run the pod's container until it is ready, with the ConfigMap's files and busybox in place of Alpine's."""
    for name, text in config_map["data"].items():
        node.write(f"{SLICES_FOLDER}/{name}", text)
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value", node.name) for one in container["env"]}
    node.run("mkdir", "-p", environment["TARGET"].rpartition("/")[0])
    environment["SCRIPT"], environment["PROBE"] = (
        container["command"][2],
        container["readinessProbe"]["exec"]["command"][2],
    )
    # Without the streams: what it leaves asleep would keep them open.
    script = (
        'busybox sh -c "$SCRIPT" >/dev/null 2>&1 & until busybox sh -c "$PROBE"; do sleep 0.1; done; kill $!'
    )
    node.run("busybox", "sh", "-c", script, env=environment)
