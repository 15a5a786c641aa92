"""What two test pods of ``torchnet verify`` prove (pure).

What they said comes from pods: it is typed before it is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torchnet import names
from torchnet.errors import NetworkError
from torchnet.network.status import parse
from torchnet.network.text import listed, printable
from torchnet.runtimes.kubernetes.installed import Check
from torchnet.runtimes.kubernetes.verify_pods import INTERFACE

Object = dict[str, Any]
NO_PYTHON = "--image IMAGE: one with Python that the nodes can pull"
_UNKNOWN = "unknown"
_LARGEST = 1 << 16  # bytes of a packet


def judge(tried: Sequence[tuple[Object, Object]], network: tuple[str, str], apart: bool) -> Iterator[Check]:
    """The checks, from the pods as the API has them and what each said, or ``{"problem": TEXT}``.

    Raises:
        NetworkError: a pod's network-status is missing, cannot be read, or has no address on the backend.
    """
    nodes = [printable(str((one.get("spec") or {}).get("nodeName")), 80) for one, _ in tried]
    if apart:
        yield Check("test pods", nodes[0] != nodes[1], f"on {nodes[0]} and {nodes[1]}", "kubectl get nodes")
    else:
        evidence = f"both on {nodes[0]}, the only node: nothing is known of a way between nodes"
        yield Check("test pods", True, evidence)
    for (body, said), node in zip(tried, nodes, strict=True):
        name = body["metadata"]["name"]
        there = sorted(set(_texts(said.get("interfaces"))))
        if not there:
            yield Check("interfaces", False, f"{name} on {node} told nothing: {_problem(said)}", NO_PYTHON)
            continue
        if not {"eth0", INTERFACE} <= set(there):
            definition = f"kubectl get network-attachment-definition {network[1]} -n {network[0]} -o yaml"
            fix = f"{definition}; Multus's log on {node}"
            yield Check("interfaces", False, f"{name} on {node} has {listed(there, limit=8)}", fix)
            continue
        told, own = address_of(body, network), _texts(said.get("addresses"))
        evidence = f"{name}: eth0 and {INTERFACE}, {told} in network-status and in the kernel"
        if told not in own:
            evidence = f"{name}: network-status says {told}, the kernel {listed(own) or 'nothing'}"
        fix = f"Multus's log on {node}: the status is old, or the address was taken from the pod"
        yield Check("addresses", told in own, evidence, fix)
    yield _full_size(nodes, tried[0][1], tried[1][1])


def _full_size(nodes: Sequence[str], first: Object, second: Object) -> Check:
    size = _bytes(second.get("size"))
    reached = second.get("reached") is True and size != _UNKNOWN
    evidence = f"{size} bytes there and back between {nodes[0]} and {nodes[1]}"
    if not reached:
        evidence = f"{_problem(second)} (MTU {_bytes(first.get('mtu'))} and {_bytes(second.get('mtu'))})"
    fix = "the same MTU on every node's card and on the switches between them"
    return Check("full size, both ways", reached, evidence, fix)


def address_of(body: Object, network: tuple[str, str]) -> str:
    """The pod's address on the backend as network-status has it.

    Raises:
        NetworkError: it has none.
    """
    meta = body["metadata"]
    text = (meta.get("annotations") or {}).get(names.STATUS_ANNOTATION)
    if not text:
        raise NetworkError(
            f"{meta['name']} runs without a network-status: Multus was passed by on "
            f"{(body.get('spec') or {}).get('nodeName')}",
            fix="the first file in that node's /etc/cni/net.d must be Multus's (Cilium: cni.exclusive=false)",
        )
    for entry in parse(text):
        if entry.name == "/".join(network) and entry.interface == INTERFACE and entry.ips:
            return str(entry.ips[0])
    raise NetworkError(
        f"{meta['name']}'s network-status has no address of {'/'.join(network)} on {INTERFACE}",
        fix="the attachment's cniVersion must be 0.3.1 or newer, and it needs an ipam",
    )


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _bytes(value: object) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST
    return str(value) if good else _UNKNOWN


def _problem(said: Object) -> str:
    text = said.get("problem")
    return printable(text, 500) if isinstance(text, str) and text else "it left no result"
