"""The rows of the table: attachments as torchnet prints them or by hand, and what the nodes need for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.cluster import network
from tests.lab import attachments, fabric
from tests.lab.attachments import Refusal
from tests.lab.lab import Lab

SEGMENT = {"node1": "fcbb::11", "node2": "fcbb::12"}  # the nodes' own addresses on the one segment
RANGE = "fcbb:0:800:ffff::/64"
PARTS = {"node1": "fcbb:0:800:ffff:1::/80", "node2": "fcbb:0:800:ffff:2::/80"}
STATIC = [f"fcbb:0:800:ffff:8000::{number}/64" for number in range(51, 55)]
WIDE = "fcbb:0:800::/48"  # in the l3 modes each node has a range of its own in it
WIDE_PARTS = {"node1": "fcbb:0:800:1::/64", "node2": "fcbb:0:800:2::/64"}
WIDE_STATIC = ["fcbb:0:800:1::51/64", "fcbb:0:800:1::52/64", "fcbb:0:800:2::51/64", "fcbb:0:800:2::52/64"]
BEHIND_ROUTER = {"node1": "fcbb:0:800:101::/64", "node2": "fcbb:0:800:102::/64"}
KINDS = (("ipvlan", "l2"), ("ipvlan", "l3"), ("ipvlan", "l3s"), ("macvlan", "bridge"), ("bridge", ""))
IPAMS = ("whereabouts", "host-local", "static")
ROUTED = ("l3", "l3s")
KIND_NAMES = tuple(dict.fromkeys(kind for kind, _ in KINDS))
ROWS = [(kind, mode, ipam) for kind, mode in KINDS for ipam in IPAMS]
HOST_LOCAL = "/var/lib/cni/networks"  # where host-local has its leases on a node


@dataclass
class Case:
    """A row: an attachment, and what the nodes need for it."""

    kind: str
    mode: str
    ipam: str
    objects: list[dict[str, Any]]
    ips: list[str] = field(default_factory=list)
    refused_manifest: str = ""  # what torchnet says instead of printing this one
    note: str = ""
    command: str = ""  # that prints the attachment
    prepared: Callable[[Lab], Any] = lambda _lab: nullcontext()

    @property
    def name(self) -> str:
        return named(self.kind, self.mode, self.ipam)


def named(kind: str, mode: str, ipam: str) -> str:
    """``ipvlan l2 static``, ``bridge static``."""
    return " ".join(filter(None, (kind, mode, ipam)))


NAMES = [named(*row) for row in ROWS]


def expected(kind: str, mode: str, ipam: str) -> list[str]:
    """The networks that the addresses of the four pods must be in."""
    wide = mode in ROUTED
    if ipam == "static":
        return [one.partition("/")[0] for one in (WIDE_STATIC if wide else STATIC)]
    if ipam == "whereabouts":
        return [RANGE] * 4
    return [part for part in (WIDE_PARTS if wide else PARTS).values() for _ in range(2)]


def sliced(parts: dict[str, str], *, gateways: dict[str, str] | None = None) -> list[str]:
    found = []
    for node, part in parts.items():
        found += ["--slice", f"{node}={part}" + (f",via={gateways[node]}" if gateways else "")]
    return found


def case(kind: str, mode: str, ipam: str) -> Case:
    """The row as torchnet prints its attachment; where it refuses to, one by hand that shows why, or what works."""
    words = ["--type", kind, *(["--mode", mode] if mode else []), "--ipam", ipam]
    words += ["--mtu", "9000"] if kind == "bridge" else []  # its plugin does not look at the bridge's
    made = Case(kind, mode, ipam, [])
    if mode not in ROUTED:
        words += sliced(PARTS) if ipam == "host-local" else []
        made.ips = STATIC if ipam == "static" else []
    elif ipam == "host-local":
        # l3 without gateways: the launch names the missing routes; l3s with them: the manifest adds them.
        words += ["--range", WIDE, *sliced(WIDE_PARTS, gateways=SEGMENT if mode == "l3s" else None)]
        made.note = (
            "its manifest adds the routes (`via=`)"
            if mode == "l3s"
            else "works once the routes named by the refusal exist"
        )
    objects = attachments.printed(*words)
    made.command = " ".join(words)
    if isinstance(objects, Refusal):
        made.refused_manifest = objects.text
        main: dict[str, Any] = {"type": kind, "master": "ens5", "mode": mode}
        if ipam == "static":
            main |= {"capabilities": {"ips": True}, "ipam": {"type": "static", "routes": [{"dst": WIDE}]}}
            made.ips, made.prepared = WIDE_STATIC, partial(routes_between, WIDE_PARTS)
            made.note = (
                "attachment written by hand; each node's pods in a range of its own, routes on the nodes"
            )
        else:
            main |= {"ipam": {"type": "whereabouts", "range": RANGE}}
            made.note = "attachment written by hand"
        objects = attachments.by_hand({"plugins": [main]})
    made.objects = objects
    if kind == "bridge":
        made.prepared = bridged
    return made


@contextmanager
def routes_between(parts: dict[str, str], up: Lab) -> Iterator[None]:
    """Routes on each node to the other one's part."""
    todo = [
        (node, part, SEGMENT[other])
        for node in up.nodes
        for other, part in parts.items()
        if other != node.name
    ]
    for node, part, gateway in todo:
        node.run("ip", "-6", "route", "replace", part, "via", gateway, "dev", "ens5")
    try:
        yield
    finally:
        for node, part, _ in todo:
            node.ask("ip", "-6", "route", "delete", part)


@contextmanager
def bridged(up: Lab) -> Iterator[None]:
    """A bridge on each node, with its card as a port."""
    for node in up.nodes:
        node.run("ip", "link", "add", "br-backend", "mtu", "9000", "type", "bridge")
        node.run("ip", "link", "set", "ens5", "master", "br-backend")
        node.run("ip", "link", "set", "br-backend", "up")
    try:
        yield
    finally:
        for node in up.nodes:
            node.ask("ip", "link", "delete", "br-backend")


@contextmanager
def only_known_macs() -> Iterator[None]:
    try:
        for node in SEGMENT:
            fabric.only_known_mac(node, enabled=True)
        yield
    finally:
        for node in SEGMENT:
            fabric.only_known_mac(node, enabled=False)


@contextmanager
def promiscuous(up: Lab) -> Iterator[None]:
    try:
        for node in up.nodes:
            node.run("ip", "link", "set", "ens5", "promisc", "on")
        yield
    finally:
        for node in up.nodes:
            node.ask("ip", "link", "set", "ens5", "promisc", "off")


@contextmanager
def behind_router(up: Lab) -> Iterator[None]:
    """Each node's card in a segment of its own, with a router between the two that knows the pods' ranges."""
    for node in up.nodes:
        number = fabric.number(node.name)
        own, part = f"fcbb:0:800:{number}::11", BEHIND_ROUTER[node.name]
        fabric.connect(node.name, f"back{number}")
        node.run("ip", "address", "add", f"{own}/64", "dev", "ens5", "nodad")
        gateway = fabric.router_address(node.name)
        node.run("ip", "-6", "route", "add", WIDE, "via", gateway, "dev", "ens5")
        network.ip(fabric.ROUTER, f"route replace {part} via {own}")
    try:
        yield
    finally:
        for node in up.nodes:
            node.ask("ip", "-6", "route", "delete", WIDE)
            node.ask(
                "ip", "address", "delete", f"fcbb:0:800:{fabric.number(node.name)}::11/64", "dev", "ens5"
            )
            fabric.connect(node.name, "back")
