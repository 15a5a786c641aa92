"""Attachments, pools and pods in a server that keeps objects."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.api_store import Store
from torchnet.k8s.addons import network_attachment
from torchnet.k8s.addons.addon_options import BACKEND, parse

NAD = "network-attachment-definitions"
_PLURALS = {"NetworkAttachmentDefinition": NAD, "IPPool": "ippools"}


def put(store: Store, kind: str, name: str, api: str = "v1", namespace: str = "ml", **fields: Any) -> None:
    plural = _PLURALS.get(kind, f"{kind.lower()}s")
    body = {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        **fields,
    }
    root = "/api/v1" if api == "v1" else f"/apis/{api}"
    where = "" if kind == "Node" else f"/namespaces/{namespace}"
    store.objects[f"{root}{where}/{plural}/{name}"] = body


def attach(store: Store, body: object, name: str = "net", namespace: str = "ml") -> None:
    spec = {"config": json.dumps(body)}
    put(store, "NetworkAttachmentDefinition", name, "k8s.cni.cncf.io/v1", namespace, spec=spec)


def sliced(store: Store, *slices: str, name: str = "net", **given: Any) -> None:
    """An attachment that is a file on each node, and the ConfigMap that the files are made of."""
    options = parse(BACKEND, {"namespace": "ml", "name": name, "slices": slices, **given})
    for one in network_attachment.manifests(options)[:2]:
        body, meta = dict(one.body), one.body["metadata"]
        put(store, body["kind"], meta["name"], body["apiVersion"], meta["namespace"], data=body.get("data"))


def pool(store: Store, *holders: str, name: str = "10.9.0.0-28", network: str = "10.9.0.0/28") -> None:
    allocations = {
        str(number + 1): {"id": "s", "podref": one, "ifname": "net1"} for number, one in enumerate(holders)
    }
    spec = {"range": network, "allocations": allocations}
    put(store, "IPPool", name, "whereabouts.cni.cncf.io/v1alpha1", "kube-system", spec=spec)


def running(store: Store, *names: str, phase: str = "Running") -> None:
    for name in names:
        put(store, "Pod", name, status={"phase": phase}, spec={})
