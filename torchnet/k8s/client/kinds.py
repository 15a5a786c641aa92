"""The API paths of the kinds that a run consists of, and the label selector that finds its objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from torchnet.constants import LABEL_PREFIX, OLD_LABEL_PREFIX, OLD_RUN_LABEL, RUN_LABEL
from torchnet.k8s.client.api_errors import ApiCall


@dataclass(frozen=True)
class Kind:
    """A kind of object: ``api`` is its apiVersion (``batch/v1``), ``plural`` its name in paths."""

    api: str
    name: str
    plural: str
    is_namespaced: bool = True

    @property
    def resource(self) -> str:
        """The name that RBAC and kubectl use: ``jobs.batch``."""
        group = self.api.partition("/")[0] if "/" in self.api else ""
        return f"{self.plural}.{group}" if group else self.plural

    def path(self, namespace: str, name: str = "", sub: str = "") -> str:
        """Return the path of the collection, of one object, or of its subresource; without ``namespace``, of all."""
        root = f"/apis/{self.api}" if "/" in self.api else f"/api/{self.api}"
        where = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        return "/".join([root + where, self.plural, *(quote(part, safe="") for part in (name, sub) if part)])

    def call(self, verb: str, namespace: str, name: str = "", sub: str = "") -> ApiCall:
        """Describe an operation on the same path, for error messages."""
        everywhere = self.is_namespaced and not namespace
        return ApiCall(verb, f"{self.resource}/{sub}" if sub else self.resource, namespace, name, everywhere)


RBAC = "rbac.authorization.k8s.io/v1"
POD = Kind("v1", "Pod", "pods")
JOB = Kind("batch/v1", "Job", "jobs")
JOBSET = Kind("jobset.x-k8s.io/v1alpha2", "JobSet", "jobsets")
EVENT = Kind("v1", "Event", "events")
NODE = Kind("v1", "Node", "nodes", is_namespaced=False)
DAEMONSET = Kind("apps/v1", "DaemonSet", "daemonsets")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
NAD = Kind("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "network-attachment-definitions")
IP_POOL = Kind("whereabouts.cni.cncf.io/v1alpha1", "IPPool", "ippools")

MULTI_NETWORK_POLICY = Kind("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy", "multi-networkpolicies")
SECRET = Kind("v1", "Secret", "secrets")

# Only runs of earlier versions have these. Not every user may list them.
FORMER_KINDS = (
    Kind(RBAC, "RoleBinding", "rolebindings"),
    Kind(RBAC, "Role", "roles"),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
)
# In deletion order: kinds that create pods first, kinds that pods use last.
KINDS = (
    JOBSET,
    JOB,
    POD,
    MULTI_NETWORK_POLICY,
    NETWORK_POLICY,
    *FORMER_KINDS,
    Kind("v1", "Service", "services"),
    SECRET,
    Kind("v1", "ConfigMap", "configmaps"),
)
WORKLOADS = (JOB, JOBSET, POD)
# Deleted only once the pods are gone: until then, their ports are protected by these.
PROTECTION = (MULTI_NETWORK_POLICY, NETWORK_POLICY, SECRET)
_BY_TYPE = {(kind.api, kind.name): kind for kind in KINDS}


def kind_of(body: dict[str, Any]) -> Kind:
    """Return the kind of an object.

    For a kind that torchnet does not render, the plural is the name in lower case with an "s", as for nearly all kinds.
    """
    api, name = str(body["apiVersion"]), str(body["kind"])
    return _BY_TYPE.get((api, name)) or Kind(api, name, f"{name.lower()}s")


RUN_LABELS = (RUN_LABEL, OLD_RUN_LABEL)


def selector(run: str, label: str = RUN_LABEL) -> str:
    """Return the label selector that finds all objects of a run; ``label`` is one of `RUN_LABELS`."""
    return f"{label}={run}"


def run_of(meta: Mapping[str, Any]) -> tuple[str, str]:
    """Return an object's run, and the label that names it; ("", `RUN_LABEL`) if it belongs to none."""
    labels = meta.get("labels") or {}
    label = next((one for one in RUN_LABELS if labels.get(one)), RUN_LABEL)
    return str(labels.get(label) or ""), label


def own(entries: Mapping[str, str] | None, key: str) -> str | None:
    """Return a label or annotation of torchnet's, ``key``, also where an earlier version has set it."""
    entries = entries or {}
    return entries.get(key, entries.get(f"{OLD_LABEL_PREFIX}{key.removeprefix(LABEL_PREFIX)}"))
