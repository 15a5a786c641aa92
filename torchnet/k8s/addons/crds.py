"""The definitions of the four custom resources that multus-cni v4.3.0 and whereabouts v0.9.4 read and write.

The fields come from deployments/multus-daemonset.yml and pkg/api/whereabouts.cni.cncf.io/v1alpha1 of the two projects
(both Apache-2.0); the descriptions are torchnet's.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "type": "string"}


def _object(
    description: str, properties: dict[str, Any], required: list[str] | None = None
) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": description, "type": "object", "properties": properties}
    return schema | {"required": required} if required else schema


def _crd(
    group: str,
    version: str,
    kind: str,
    names: dict[str, Any],
    schema: dict[str, Any],
    columns: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    served: dict[str, Any] = {"name": version, "served": True, "storage": True}
    if columns:
        served["additionalPrinterColumns"] = columns
    served["schema"] = {"openAPIV3Schema": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names | {"kind": kind, "listKind": f"{kind}List"},
            "versions": [served],
        },
    }


def _resource(description: str, parts: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    envelope = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": {"type": "object"}}
    return _object(description, envelope | parts, required)


def attachments() -> dict[str, Any]:
    """Return the definition of NetworkAttachmentDefinition.

    ``spec`` is optional: without it, the configuration is a file on each node.
    """
    config = _text("A CNI configuration or configuration list, as JSON.")
    return _crd(
        "k8s.cni.cncf.io",
        "v1",
        "NetworkAttachmentDefinition",
        {
            "plural": "network-attachment-definitions",
            "singular": "network-attachment-definition",
            "shortNames": ["nad", "net-attach-def"],
        },
        _resource(
            "A further network that pods can be attached to: the Network Plumbing Working Group's standard, "
            "https://github.com/k8snetworkplumbingwg/multi-net-spec.",
            {"spec": _object("How a pod is attached.", {"config": config})},
        ),
    )


_GROUP, _VERSION = "whereabouts.cni.cncf.io", "v1alpha1"
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def pools() -> dict[str, Any]:
    """Return the definition of IPPool: the allocated addresses of one range."""
    taken = _object(
        "Who holds an address.",
        {
            "id": _text("The pod's sandbox."),
            "ifname": _text("The interface in the pod."),
            "podref": _text("NAMESPACE/NAME of the pod."),
        },
        ["id", "podref"],
    )
    allocations = {
        "description": "By the address's offset in the range, as a decimal number.",
        "type": "object",
        "additionalProperties": taken,
    }
    return _crd(
        _GROUP,
        _VERSION,
        "IPPool",
        {"plural": "ippools", "singular": "ippool"},
        _resource(
            "The addresses of one range that are taken.",
            {
                "spec": _object(
                    "The range and its allocations.",
                    {"allocations": allocations, "range": _text("The range, as CIDR.")},
                    ["allocations", "range"],
                )
            },
        ),
        [{"name": "Range", "type": "string", "jsonPath": ".spec.range"}, _AGE],
    )


def reservations() -> dict[str, Any]:
    """Return the definition of OverlappingRangeIPReservation.

    It reserves an address that no overlapping range may allocate again.
    """
    return _crd(
        _GROUP,
        _VERSION,
        "OverlappingRangeIPReservation",
        {"plural": "overlappingrangeipreservations", "singular": "overlappingrangeipreservation"},
        _resource(
            "An address that is taken in all ranges that overlap; it is the object's name.",
            {
                "spec": _object(
                    "Who holds it.",
                    {
                        "containerid": _text("The pod's sandbox."),
                        "ifname": _text("The interface in the pod."),
                        "podref": _text("NAMESPACE/NAME of the pod."),
                    },
                    ["podref"],
                )
            },
            ["spec"],
        ),
        [{"name": "Pod", "type": "string", "jsonPath": ".spec.podref"}, _AGE],
    )


def slice_pools() -> dict[str, Any]:
    """Return the definition of NodeSlicePool: which node allocates from which part of a range."""
    allocation = _object(
        "A part of the range.",
        {"nodeName": _text("Its node; empty: free."), "sliceRange": _text("The part, as CIDR.")},
        ["nodeName", "sliceRange"],
    )
    return _crd(
        _GROUP,
        _VERSION,
        "NodeSlicePool",
        {"plural": "nodeslicepools", "singular": "nodeslicepool"},
        _resource(
            "A range that is divided among the nodes.",
            {
                "spec": _object(
                    "The range and the size of its parts.",
                    {"range": _text("The whole range, as CIDR."), "sliceSize": _text("Prefix length.")},
                    ["range", "sliceSize"],
                ),
                "status": _object(
                    "Who has which part.",
                    {"allocations": {"type": "array", "items": allocation}},
                    ["allocations"],
                ),
            },
        ),
        [{"name": "Range", "type": "string", "jsonPath": ".spec.range"}, _AGE],
    )
