"""What is installed with kubectl: Multus and Whereabouts by the project's own manifests, JobSet by its module's."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from tests.cluster import recipes
from tests.cluster.control_plane import kubectl
from tests.cluster.shell import run

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFESTS = ROOT / "manifests"
# What `torchnet manifests` is given in place of the namespace, and its own range, so that one text serves all.
PLACEHOLDER = "the-namespace"
RANGE = "fcbb:0:800:ffff::/64"
INSTALLED = ("daemonset/kube-multus-ds", "daemonset/whereabouts", "deployment/whereabouts-reconciler")


def attachment(namespace: str, *more: str, range_: str = RANGE) -> str:
    """The NetworkAttachmentDefinition as torchnet prints it, as macvlan: most machines' kernels have that."""
    return _attachment(*more).replace(PLACEHOLDER, namespace).replace(RANGE, range_)


@functools.cache
def _attachment(*more: str) -> str:
    """Rendered once for all namespaces: each time is a start of Python."""
    words = ("manifests", "backend-network", "--type", "macvlan", "--namespace", PLACEHOLDER, *more)
    return run(sys.executable, "-m", "torchnet", *words, cwd=ROOT)


def apply_networks() -> None:
    """Apply Multus and Whereabouts as the files in manifests/ are; their pods start as soon as there are nodes."""
    kubectl("apply", "-f", MANIFESTS / "multus-install.yaml", "-f", MANIFESTS / "whereabouts-install.yaml")


def wait_for_networks(seconds: float = 120) -> None:
    for name in INSTALLED:
        kubectl(
            "-n", "kube-system", "rollout", "status", name, f"--timeout={seconds:g}s", timeout=seconds + 10
        )


def install_jobset() -> None:
    """JobSet's controller with its webhooks, from the module's own configuration."""
    kubectl("apply", "--server-side", "-f", recipes.jobset_manifest.folder / "jobset.yaml")
    status = ("rollout", "status", "deployment/jobset-controller-manager", "--timeout=120s")
    kubectl("-n", "jobset-system", *status, timeout=130)
