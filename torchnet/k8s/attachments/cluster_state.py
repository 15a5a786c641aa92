"""Reads what the rules and the table of addresses need from the cluster; notes what this user may not read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torchnet.constants import NETWORKS_ANNOTATION, STATUS_ANNOTATION
from torchnet.errors import NetworkError
from torchnet.k8s.attachments.address_pool import Pool, read_pool
from torchnet.k8s.attachments.address_table import Pods
from torchnet.k8s.attachments.definition import Definition, read_definition, slices_name
from torchnet.k8s.attachments.request_rules import Request
from torchnet.k8s.client.api_client import METADATA, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, is_permission_error
from torchnet.k8s.client.kinds import IP_POOL, NAD, NODE, POD, Kind
from torchnet.k8s.objects.builders import SYSTEM

Object = dict[str, Any]
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
_PAGE = 500
_PATIENCE = 10.0  # seconds
_NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


class ClusterState:
    """Reads from the cluster.

    Args:
        known: Attachments that have been read, by NAMESPACE/NAME.

    Attributes:
        skipped: A line for each thing that this user may not read.
    """

    def __init__(self, client: ApiClient, known: Mapping[str, Object] | None = None) -> None:
        self._client = client
        self._known = known or {}
        self._files: dict[str, Object | ApiRefusal] = {}
        self._late: dict[str, tuple[str, ...]] = {}
        self.skipped: list[str] = []
        self.listed: set[str] = set()
        """The namespaces whose attachments have been listed; "" for all."""

    def definitions(self, namespace: str, concerns: Collection[str] | None = None) -> list[Definition]:
        """Return the attachments of all namespaces, or of one if this user may not list more.

        Args:
            concerns: The paths of those whose files on the nodes are read, too; None for all.

        Raises:
            NetworkError: Multus is not installed.
            ApiRefusal: Not even those of the namespace may be listed.
        """
        try:
            bodies = self._list(NAD, "")
            self.listed.add("")
        except ApiRefusal as error:
            if error.status == 404:
                raise NetworkError(
                    "Multus is not installed: the cluster has no network attachments",
                    fix="torchnet manifests multus | kubectl apply -f -",
                ) from None
            self._skip(error, "attachments of other namespaces are not compared")
            bodies = self._list(NAD, namespace)
            self.listed.add(namespace)
        found = [read_definition(body) for body in bodies]
        return [
            self._with_files(one, is_own=one.namespace == namespace)
            if concerns is None or one.path in concerns
            else one
            for one in found
        ]

    def is_complete(self, namespace: str) -> bool:
        """Whether all attachments of a namespace have been listed."""
        return "" in self.listed or namespace in self.listed

    def definition(self, namespace: str, name: str) -> Definition:
        """Return one attachment.

        Raises:
            ApiRefusal: It does not exist, or may not be read.
        """
        body = self._known.get(f"{namespace}/{name}") or self._get(NAD, namespace, name)
        meta = {**(body.get("metadata") or {}), "name": name, "namespace": namespace}
        return self._with_files(read_definition({**body, "metadata": meta}))

    def _with_files(self, definition: Definition, *, is_own: bool = True) -> Definition:
        """Add the files of the nodes, if ``torchnet manifests backend-network --slice`` has rendered them.

        Args:
            is_own: Whether to note that they may not be read.
        """
        if definition.config or definition.not_text:
            return definition
        name = slices_name(definition.name)
        config_map = self._files_of(name)
        if isinstance(config_map, ApiRefusal):
            if config_map.status != 404 and is_own:
                self._skip(config_map, f"{definition.path}: the files of the nodes are not checked")
            return definition
        body: Object = {"metadata": {"name": definition.name, "namespace": definition.namespace}}
        found = read_definition(body, {name: config_map})
        if name not in self._late:
            self._late[name] = tuple(self._unready(name))
        return replace(found, nodes_without_file=self._late[name])

    def _files_of(self, name: str) -> Object | ApiRefusal:
        """Return the ConfigMap of the nodes' files: attachments of one name in several namespaces share it."""
        if name not in self._files:
            try:
                self._files[name] = self._get(CONFIG_MAP, SYSTEM, name)
            except ApiRefusal as error:
                self._files[name] = error
        return self._files[name]

    def _unready(self, app: str) -> list[str]:
        """Return the nodes whose pod of the DaemonSet ``app`` is not Ready: it has not written their file."""
        try:
            pods = self._list(POD, SYSTEM, labels=f"app={app}")
        except ApiRefusal as error:
            self._skip(error, f"whether {app} has written its files is not known")
            return []
        return sorted(
            str((one.get("spec") or {}).get("nodeName") or "") for one in pods if not _is_ready(one)
        )

    def nodes(self) -> list[str] | None:
        """Return the names of all nodes; None if this user may not list them."""
        try:
            return [str(one["metadata"]["name"]) for one in self._list(NODE, "", metadata=True)]
        except ApiRefusal as error:
            self._skip(error, "the number of nodes is taken to be more than one")
            return None

    def requests(self, namespace: str) -> list[Request]:
        """Return the annotations of the pods of a namespace; equal ones of pods with one owner count once.

        Pods that have ended are left out: their attachments need not exist any more.
        """
        try:
            bodies = self._list(POD, namespace, metadata=True, fields=_NOT_ENDED)
        except ApiRefusal as error:
            self._skip(error, "the pods' annotations are not checked")
            return []
        found: dict[tuple[str, str], Request] = {}
        for body in bodies:
            meta = body["metadata"]
            text = (meta.get("annotations") or {}).get(NETWORKS_ANNOTATION)
            owners = [one.get("uid") for one in meta.get("ownerReferences") or ()]
            owner = next(iter(owners), None) or meta.get("name")
            if isinstance(text, str) and text:
                where = f"Pod {meta.get('namespace') or namespace}/{meta.get('name')}"
                found.setdefault((str(owner), text), Request(where, namespace, text))
        return list(found.values())

    def pools(self) -> list[Pool] | None:
        """Return the pools of Whereabouts; None if this user may not read them."""
        bodies: Sequence[Object] = ()
        for namespace in ("", SYSTEM):
            try:
                bodies = self._list(IP_POOL, namespace)
                break
            except ApiRefusal as error:
                if error.status == 404:
                    return []
                if namespace:
                    self._skip(error, "Whereabouts' pools are not read")
                    return None
                if not is_permission_error(error.status, error.message):
                    raise
        return [pool for pool in map(read_pool, bodies) if pool is not None]

    def pools_of(self, names: Iterable[str]) -> list[Pool] | None:
        """Return the pools of these names; None if this user may not read them. One that does not exist is empty."""
        bodies: list[Object] = []
        for name in dict.fromkeys(names):
            try:
                bodies.append(self._get(IP_POOL, SYSTEM, name))
            except ApiRefusal as error:
                if error.status != 404:
                    self._skip(error, "Whereabouts' pools are not read")
                    return None
                bodies += self._pools_elsewhere(name)
        return [pool for pool in map(read_pool, bodies) if pool is not None]

    def _pools_elsewhere(self, name: str) -> list[Object]:
        """Whereabouts may have been installed in another namespace; [] if this user may not search it."""
        try:
            return self._list(IP_POOL, "", fields=f"metadata.name={name}")
        except ApiRefusal as error:
            if error.status != 404 and not is_permission_error(error.status, error.message):
                raise
            return []

    def pods(self, namespaces: Iterable[str]) -> Pods:
        """Return the pods of all namespaces, or of those of ``namespaces`` that this user may list."""
        try:
            return Pods(_by_name(self._list(POD, "", reduce=_pod_extract)), everywhere=True)
        except ApiRefusal as error:
            if not is_permission_error(error.status, error.message):
                raise
        return self.pods_of(namespaces)

    def pods_of(self, namespaces: Iterable[str]) -> Pods:
        """Return the pods of those of ``namespaces`` that this user may list."""
        bodies: dict[str, Object] = {}
        known = set()
        for namespace in sorted(set(namespaces)):
            try:
                bodies |= _by_name(self._list(POD, namespace, reduce=_pod_extract), namespace)
                known.add(namespace)
            except ApiRefusal as error:
                self._skip(error, f"the pods of {namespace} are unknown")
        return Pods(bodies, frozenset(known))

    def _get(self, kind: Kind, namespace: str, name: str) -> Object:
        path, call = kind.path(namespace, name), kind.call("get", namespace, name)
        return self._client.call("GET", path, call, patience=_PATIENCE)

    def _list(
        self,
        kind: Kind,
        namespace: str,
        *,
        metadata: bool = False,
        labels: str = "",
        fields: str = "",
        reduce: Callable[[Object], Object] = lambda body: body,
    ) -> list[Object]:
        """List objects in pages.

        Args:
            reduce: Returns what is kept of an object.

        Raises:
            ApiRefusal: This user may not list them.
        """
        found: list[Object] = []
        rest = ""
        accept = METADATA if metadata else "application/json"
        while True:
            query: dict[str, object] = {"limit": _PAGE}
            more = (("continue", rest), ("labelSelector", labels), ("fieldSelector", fields))
            query |= {key: value for key, value in more if value}
            path, call = kind.path(namespace), kind.call("list", namespace)
            answer = self._client.call("GET", path, call, query=query, accept=accept, patience=_PATIENCE)
            found += map(reduce, answer.get("items") or ())
            rest = str((answer.get("metadata") or {}).get("continue") or "")
            if not rest:
                return found

    def _skip(self, error: ApiRefusal, what: str) -> None:
        """Note what is left out.

        Raises:
            ApiRefusal: The error has another reason than missing rights.
        """
        if not is_permission_error(error.status, error.message):
            raise error
        self.skipped.append(f"{what}: not allowed to {error.call}")


def _is_ready(body: Object) -> bool:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _pod_extract(body: Object) -> Object:
    """Return what the table of addresses needs of a pod: a large cluster has some 10 kB for each."""
    meta = body.get("metadata") or {}
    kept = {key: meta[key] for key in ("name", "namespace", "deletionTimestamp") if key in meta}
    status = (meta.get("annotations") or {}).get(STATUS_ANNOTATION)
    return {
        "metadata": kept | {"annotations": {STATUS_ANNOTATION: status} if status else {}},
        "spec": {"nodeName": (body.get("spec") or {}).get("nodeName")},
        "status": {"phase": (body.get("status") or {}).get("phase")},
    }


def _by_name(bodies: Sequence[Object], namespace: str = "") -> dict[str, Object]:
    return {
        f"{one['metadata'].get('namespace') or namespace}/{one['metadata']['name']}": one for one in bodies
    }
