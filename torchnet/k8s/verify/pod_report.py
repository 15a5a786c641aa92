"""What a test pod reports, validated, and the checks of one pod (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchnet import constants
from torchnet.errors import NetworkError
from torchnet.k8s.verify.check import Check
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.network_status import parse
from torchnet.text import listed, printable

Object = dict[str, Any]
NO_PYTHON = "set --image to an image that has Python and that the nodes can pull"
_LINK = "check that node's network card, its cable and its switch port: ip link show"
_LARGEST = 1 << 16  # bytes of a packet
_LONGEST = 500  # characters of a text


@dataclass(frozen=True)
class PathResult:
    """What a pod reports of the path to another pod over one rail.

    Attributes:
        size: Bytes of the packets that were sent; None if unknown.
        reached: Whether a packet of this size came back.
        problem: Why not; "" if it did.
        there: TCP to the partner, in bytes per second; None if not measured.
        back: TCP from the partner.
        bandwidth_problem: Why the bandwidth could not be measured; "" if it could, or was not to be.
    """

    partner: str
    rail: str
    size: int | None
    reached: bool
    problem: str
    there: float | None = None
    back: float | None = None
    bandwidth_problem: str = ""


@dataclass(frozen=True)
class PodReport:
    """What a pod reports; whatever has an invalid type is left out.

    Attributes:
        addresses: Addresses in the kernel, by rail.
        mtus: MTU in bytes, by rail; None if unknown.
        blocked: Why a rail did not become usable, so that the pod tested nothing; "" if all did.
        problem: Why there is no report; "" if there is one.
    """

    interfaces: tuple[str, ...] = ()
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mtus: Mapping[str, int | None] = field(default_factory=dict)
    blocked: str = ""
    problem: str = ""
    results: tuple[PathResult, ...] = ()


def read_report(report: Object) -> PodReport:
    """Read a line that a pod printed, or ``{"problem": TEXT}`` in place of one."""
    rails = {name: _object(value) for name, value in _object(report.get("rails")).items()}
    results = report.get("results")
    return PodReport(
        interfaces=tuple(sorted(set(_texts(report.get("interfaces"))))),
        addresses={name: tuple(_texts(one.get("addresses"))) for name, one in rails.items()},
        mtus={name: _bytes(one.get("mtu")) for name, one in rails.items()},
        blocked=_text(report.get("blocked")),
        problem=_text(report.get("problem")),
        results=tuple(_result(one) for one in results if isinstance(one, dict))
        if isinstance(results, list)
        else (),
    )


def _result(one: Object) -> PathResult:
    size = _bytes(one.get("size"))
    reached = one.get("reached") is True and size is not None
    return PathResult(
        partner=_text(one.get("partner")),
        rail=_text(one.get("rail")),
        size=size,
        reached=reached,
        problem="" if reached else _text(one.get("problem")) or "no result",
        there=_rate(one.get("there")),
        back=_rate(one.get("back")),
        bandwidth_problem=_text(one.get("bandwidth_problem")),
    )


def check_pod(body: Object, report: PodReport, networks: Sequence[NetworkAttachment]) -> Iterator[Check]:
    """Yield the checks of one pod: its interfaces, its addresses, and whether its links are up.

    Args:
        body: The pod, as the API server has it.
        networks: The attachments, one for each rail.

    Raises:
        NetworkError: The pod's network-status is missing, is invalid, or has no address on a rail.
    """
    name, node = str(body["metadata"]["name"]), node_of(body)
    if not report.interfaces:
        why = report.problem or "no result"
        yield Check("interfaces", False, f"{name} on {node} reported nothing: {why}", NO_PYTHON)
        return
    if not {"eth0", *(one.interface for one in networks)} <= set(report.interfaces):
        shown = [
            f"kubectl get network-attachment-definition {one.name} -n {one.namespace} -o yaml"
            for one in networks
            if one.interface not in report.interfaces
        ]
        fix = "; ".join([*dict.fromkeys(shown), f"check the Multus log on {node}"])
        yield Check("interfaces", False, f"{name} on {node} has {listed(report.interfaces, limit=8)}", fix)
        return
    for one in networks:
        address, own = address_of(body, one), report.addresses.get(one.interface, ())
        evidence = f"{name}: eth0 and {one.interface}, {address} in network-status and in the kernel"
        if address not in own:
            evidence = f"{name}: network-status has {address}, but the kernel {listed(own) or 'no address'}"
        fix = f"check the Multus log on {node}: the status is outdated, or the pod lost the address"
        yield Check("addresses", address in own, evidence, fix)
    if report.blocked:
        yield check_blocked(body, report)


def check_blocked(body: Object, report: PodReport) -> Check:
    """Return the failed check of a pod with a rail that did not become usable."""
    return Check("link", False, f"{body['metadata']['name']} on {node_of(body)}: {report.blocked}", _LINK)


def node_of(body: Object) -> str:
    """Return the name of the pod's node, escaped."""
    return printable(str((body.get("spec") or {}).get("nodeName")), 80)


def address_of(body: Object, network: NetworkAttachment) -> str:
    """Return the pod's address on an attachment according to its network-status.

    Raises:
        NetworkError: The network-status is missing, is invalid, or has no such address.
    """
    meta = body["metadata"]
    text = (meta.get("annotations") or {}).get(constants.STATUS_ANNOTATION)
    if not text:
        raise NetworkError(
            f"{meta['name']} has no network-status: Multus did not run on "
            f"{(body.get('spec') or {}).get('nodeName')}",
            fix="the first file in that node's /etc/cni/net.d must be Multus's (Cilium: cni.exclusive=false)",
        )
    for entry in parse(text):
        if entry.name == network.path and entry.interface == network.interface and entry.ips:
            return str(entry.ips[0])
    raise NetworkError(
        f"{meta['name']}'s network-status has no address of {network.path} on {network.interface}",
        fix="the attachment's cniVersion must be 0.3.0 or newer, and it needs an ipam",
    )


def _object(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return printable(value, _LONGEST) if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _bytes(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST:
        return value
    return None


def _rate(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    return None
