"""Kueue's controller, a part of the cluster that only some tests need: built by itself, and installed for them alone.

Only namespaces with the label of :data:`SELECTOR` are its business: its webhooks fail closed, and the jobs of other
tests must not depend on it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import golang, recipes
from tests.cluster import versions as v
from tests.cluster.control_plane import kubectl
from tests.cluster.images import Image, pack
from tests.cluster.nodes import inside
from tests.cluster.parts import Part, locked
from tests.cluster.places import NODES
from tests.cluster.shell import run, wait_until

NAMESPACE, DEPLOYMENT = "kueue-system", "deployment/kueue-controller-manager"
SELECTOR = {"matchLabels": {"tests.torchnet/queues": "true"}}
LABEL = "tests.torchnet/queues=true"
API = "v1beta2"
FRAMEWORKS = ["batch/job", "jobset.x-k8s.io/jobset", "pod"]
CONFIGURATION = "controller_manager_config.yaml"
NODE = NODES[0]  # on which its image is
HOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
# Kinds of its own API that its webhooks check and that no namespace has.
CLUSTER_WIDE = {"clusterqueues", "resourceflavors", "cohorts", "topologies"}


def _kueue(folder: Path) -> None:
    """The image as an archive, and the manifests as text."""
    source = golang.module_folder(v.KUEUE_MODULE, v.KUEUE_VERSION)
    golang.build_module(source, "./cmd/kueue", folder / "manager")
    image = Image(
        (v.KUEUE_IMAGE,),
        files={"/manager": folder / "manager"},
        entrypoint=("/manager",),
        user="65532:65532",
    )
    pack(image, folder / "image.tar")
    (folder / "manager").unlink()
    configuration = source / "config" / "default"
    text = run(recipes.kubernetes.folder / "kubectl", "kustomize", configuration)
    (folder / "kueue.yaml").write_text(text)


_RECIPE = (v.KUEUE_VERSION, v.KUEUE_IMAGE, *(inspect.getsource(one) for one in (_kueue, golang.build_module)))
PART = Part("kueue", "\n".join(_RECIPE), _kueue, needs=[recipes.kubernetes])


def build() -> None:
    """Build it unless it is there: some 4 minutes."""
    if not PART.built:
        with locked():
            PART.build()


def _objects() -> list[dict[str, Any]]:
    """Its manifests, for this cluster."""
    import yaml

    found = [body for body in yaml.safe_load_all((PART.folder / "kueue.yaml").read_text()) if body]
    # The API of its queue's positions: while it does not answer, no namespace can be deleted.
    found = [body for body in found if body["kind"] != "APIService"]
    for body in found:
        if body["kind"] in HOOKS:
            for hook in body["webhooks"]:
                kinds = {kind for rule in hook["rules"] for kind in rule["resources"]}
                if not kinds & CLUSTER_WIDE:
                    hook["namespaceSelector"] = SELECTOR
        elif body["kind"] == "ConfigMap" and CONFIGURATION in body["data"]:
            settings = yaml.safe_load(body["data"][CONFIGURATION])
            settings["leaderElection"] = {"leaderElect": False}
            settings["managedJobsNamespaceSelector"] = SELECTOR
            settings["integrations"] = {"frameworks": FRAMEWORKS}
            body["data"][CONFIGURATION] = yaml.safe_dump(settings)
        elif body["kind"] == "Deployment":
            spec = body["spec"]["template"]["spec"]
            spec["nodeSelector"] = {"kubernetes.io/hostname": NODE}
            (container,) = spec["containers"]
            container |= {"image": v.KUEUE_IMAGE, "imagePullPolicy": "IfNotPresent"}
            container["resources"] = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    return found


@contextmanager
def installed() -> Iterator[None]:
    """Install it on the cluster that is up, and remove it but for its kinds, of which no object may be left."""
    build()
    run(*inside(NODE), "ctr", "--namespace", "k8s.io", "images", "import", PART.folder / "image.tar")
    objects = _objects()
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    kubectl("apply", "--server-side", "-f", "-", input=document)
    try:
        wait()
        yield
    finally:
        names = [
            f"{body['kind'].lower()}/{body['metadata']['name']}" for body in objects if body["kind"] in HOOKS
        ]
        kubectl("delete", *names)
        kubectl("-n", NAMESPACE, "delete", DEPLOYMENT)


def wait() -> None:
    """Until its webhooks answer."""
    kubectl("-n", NAMESPACE, "rollout", "status", DEPLOYMENT, "--timeout=120s", timeout=130)
    flavor = {"apiVersion": f"kueue.x-k8s.io/{API}", "kind": "ResourceFlavor", "metadata": {"name": "try"}}
    words = ("create", "--dry-run=server", "-f", "-")
    wait_until("Kueue's webhooks", 60, lambda: bool(kubectl(*words, input=json.dumps(flavor))))


def scale(replicas: int) -> None:
    """End its only process, or start it again; returns when that is done."""
    kubectl("-n", NAMESPACE, "scale", DEPLOYMENT, f"--replicas={replicas}")
    if replicas:
        wait()
    else:
        words = ("-n", NAMESPACE, "get", "pods", "-o", "name")
        wait_until("the end of Kueue's controller", 60, lambda: not kubectl(*words))


def queue(namespace: str, name: str, cpu: str, topology: str = "") -> list[dict[str, Any]]:
    """A ClusterQueue of its own for one LocalQueue: so many CPUs, in which a higher priority preempts.

    Args:
        topology: the node label that is the only level of its topology; "" for none.
    """
    unique = f"{namespace}-{name}"
    placed = {"topologyName": unique, "nodeLabels": {"kubernetes.io/os": "linux"}}
    flavor: dict[str, Any] = placed if topology else {}
    quotas = {"cpu": cpu, "memory": "100Gi", "ephemeral-storage": "100Gi"}
    group = {
        "coveredResources": list(quotas),
        "flavors": [
            {
                "name": unique,
                "resources": [{"name": key, "nominalQuota": value} for key, value in quotas.items()],
            }
        ],
    }
    specs: list[tuple[str, str, dict[str, Any]]] = [
        ("ResourceFlavor", unique, flavor),
        (
            "ClusterQueue",
            unique,
            {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [group],
            },
        ),
        ("LocalQueue", name, {"clusterQueue": unique}),
    ]
    if topology:
        specs.insert(0, ("Topology", unique, {"levels": [{"nodeLabel": topology}]}))
    return [
        {
            "apiVersion": f"kueue.x-k8s.io/{API}",
            "kind": kind,
            "metadata": {"name": called} | ({"namespace": namespace} if kind == "LocalQueue" else {}),
            "spec": spec,
        }
        for kind, called, spec in specs
    ]


@contextmanager
def queues(namespace: str, objects: list[dict[str, Any]]) -> Iterator[None]:
    """These queues in a namespace that is Kueue's business while they are there."""
    kubectl("label", "namespace", namespace, LABEL)
    high = {
        "apiVersion": f"kueue.x-k8s.io/{API}",
        "kind": "WorkloadPriorityClass",
        "metadata": {"name": f"{namespace}-high"},
        "value": 1000,
    }
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*objects, high]})
    kubectl("create", "-f", "-", input=document)
    try:
        yield
    finally:
        kubectl("delete", "--wait", "-f", "-", input=document, timeout=120)
