"""The table of attachments, each cell an all-reduce that ran or a refusal, and what belongs to it: routes, MAC filters.

One boot for all; for a row one launch of four workers, two pods on each node. Its receipt has the bytes of each pair,
so that it fills both cells: pairs on one node, and pairs across nodes. Where that launch is refused, two workers on one
node are launched beside it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import kubectl
from tests.cluster.shell import ClusterFailure, say, timed
from tests.lab import attachments, fabric, lab, launches, nodes, pods
from tests.lab import versions as v
from tests.lab.attachments import Refusal
from tests.lab.lab import Lab
from tests.lab.launches import Outcome
from tests.lab.pods import Pod
from torchnet.k8s.addons.images import MULTUS, WHEREABOUTS

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
_COMMAND = re.compile(r"on (node[0-9]+) run: (ip \S.*? via (ADDRESS_OF_(NODE[0-9]+)))(?=,)")
_PATHS = re.compile(r"([0-9]+)/([0-9]+) paths at ([0-9]+) bytes")


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
    prepared: Callable[[Lab], Any] = lambda _lab: nullcontext()


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
            else "after the routes that the refusal names"
        )
    objects = attachments.printed(*words)
    if isinstance(objects, Refusal):
        made.refused_manifest = objects.text
        main: dict[str, Any] = {"type": kind, "master": "ens5", "mode": mode}
        if ipam == "static":
            main |= {"capabilities": {"ips": True}, "ipam": {"type": "static", "routes": [{"dst": WIDE}]}}
            made.ips, made.prepared = WIDE_STATIC, partial(routes_between, WIDE_PARTS)
            made.note = "by hand: each node's pods in a range of its own, routes on the nodes"
        else:
            main |= {"ipam": {"type": "whereabouts", "range": RANGE}}
            made.note = "by hand, as in the guide"
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


class Table:
    """The rows, written to a file after each one; what the file has already is kept or replaced."""

    def __init__(self, up: Lab, file: Path) -> None:
        self.lab, self.file = up, file
        self.number = 0
        before = json.loads(file.read_text()) if file.exists() else {}
        self.found: dict[str, Any] = {"rows": [], "experiments": {}, **before, "versions": _versions(up)}

    def save(self) -> None:
        self.file.write_text(json.dumps(self.found, indent=1) + "\n")

    @contextmanager
    def job(self, made: Case) -> Iterator[list[Pod]]:
        """Four pods, two on each node, on an attachment that is installed; DEL has succeeded at the end."""
        self.number += 1
        run = f"job{self.number}"
        launches.service(run)
        with made.prepared(self.lab), attachments.installed(self.lab, made.objects):
            four = [
                Pod(
                    f"{run}-{rank}",
                    self.lab.nodes[rank // 2],
                    rank,
                    run,
                    ips=tuple(made.ips[rank : rank + 1]),
                )
                for rank in range(4)
            ]
            try:
                pods.start(four)
                yield four
            finally:
                pods.end(four)
        left = json.loads(kubectl("get", "ippools", "-n", "kube-system", "-o", "json"))["items"]
        held = [pool["metadata"]["name"] for pool in left if pool["spec"]["allocations"]]
        if held:
            raise ClusterFailure(f"DEL has left addresses in {held}")

    def row(self, made: Case) -> None:
        began = time.monotonic()
        name = " ".join(filter(None, (made.kind, made.mode, made.ipam)))
        found: dict[str, Any] = {"kind": made.kind, "mode": made.mode, "ipam": made.ipam, "note": made.note}
        if made.refused_manifest:
            found["refused_manifest"] = made.refused_manifest
        try:
            with self.job(made) as four:
                found["net1"] = [_net1(pod) for pod in four]
                outcome = launches.launch(four)
                if (made.kind, made.mode, made.ipam) == ("ipvlan", "l3", "host-local"):
                    outcome = self._with_routes(four, outcome, found)
                found |= cells(four, outcome)
                if outcome.code:
                    alone = launches.launch(four[:2])
                    found["same"] = cells(four[:2], alone)["same"]
        except ClusterFailure as failure:
            found["error"] = str(failure)
        found["seconds"] = round(time.monotonic() - began, 1)
        keys = ("kind", "mode", "ipam")
        others = [row for row in self.found["rows"] if any(row[key] != found[key] for key in keys)]
        order = [(kind, mode, ipam) for kind, mode in KINDS for ipam in IPAMS]
        self.found["rows"] = sorted(
            [*others, found], key=lambda row: order.index(tuple(row[key] for key in keys))
        )
        self.save()
        say(
            f"{name}: {found.get('same')} {found.get('across')} {found.get('error', '')} ({found['seconds']} s)"
        )

    def _with_routes(self, four: list[Pod], refused: Outcome, found: dict[str, Any]) -> Outcome:
        """Run the commands that the refusal names, each on the node that it names, and launch again."""
        commands = _COMMAND.findall(refused.failure)
        found["without_routes"] = {
            "code": refused.code,
            "failure": refused.failure,
            "seconds": refused.receipt.get("duration_s"),
            "commands": [f"{node}: {command}" for node, command, _, _ in commands],
        }
        for node, command, placeholder, other in commands:
            address = own_address(self.lab.node(other.lower()))
            self.lab.node(node).run(*command.replace(placeholder, address).split())
        try:
            return launches.launch(four)
        finally:
            for node, command, _, _ in commands:
                self.lab.node(node).ask("ip", "-6", "route", "delete", command.split()[4])

    def experiment(self, name: str, run: Callable[[dict[str, Any]], None]) -> None:
        """Fill what ``run`` is given; a failure is a result, too."""
        found: dict[str, Any] = {}
        self.found["experiments"][name.replace(" ", "_")] = found
        try:
            run(found)
        except ClusterFailure as failure:
            found["error"] = str(failure)
        self.save()
        say(f"{name}: {json.dumps(found)[:2000]}")

    def filtered(self, found: dict[str, Any]) -> None:
        """A port that passes only the card's own MAC address: macvlan, without and with promiscuous mode; ipvlan."""
        made = case("macvlan", "bridge", "static")
        with self.job(made) as four:
            found["promiscuous"] = {node.name: _promiscuous(node) for node in self.lab.nodes}
            with only_known_macs():
                found["macvlan"] = _summary(launches.launch(four))
                for node in self.lab.nodes:
                    node.run("ip", "link", "set", "ens5", "promisc", "on")
                found["macvlan_promiscuous"] = _summary(launches.launch(four))
                for node in self.lab.nodes:
                    node.run("ip", "link", "set", "ens5", "promisc", "off")
        with self.job(case("ipvlan", "l2", "static")) as four, only_known_macs():
            found["ipvlan"] = _summary(launches.launch(four))

    def routed(self, found: dict[str, Any]) -> None:
        """A router between the nodes' segments, each a /64 of its own: l3, with the routes on the router."""
        made = case("ipvlan", "l3", "host-local")
        objects = attachments.printed("--mode", "l3", "--range", WIDE, *sliced(BEHIND_ROUTER))
        assert not isinstance(objects, Refusal)
        made.objects, made.prepared = objects, behind_router
        with self.job(made) as four:
            outcome = launches.launch(four)
            found |= cells(four, outcome) | _summary(outcome)


@contextmanager
def only_known_macs() -> Iterator[None]:
    for node in SEGMENT:
        fabric.only_known_mac(node, enabled=True)
    try:
        yield
    finally:
        for node in SEGMENT:
            fabric.only_known_mac(node, enabled=False)


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
        fabric.ip(fabric.ROUTER, f"route replace {part} via {own}")
    try:
        yield
    finally:
        for node in up.nodes:
            node.ask("ip", "-6", "route", "delete", WIDE)
            node.ask(
                "ip", "address", "delete", f"fcbb:0:800:{fabric.number(node.name)}::11/64", "dev", "ens5"
            )
            fabric.connect(node.name, "back")


def cells(four: list[Pod], outcome: Outcome) -> dict[str, Any]:
    """Both cells of a launch: pairs on one node, and pairs across nodes."""
    if outcome.code:
        return {
            "across": {"result": "refused", "reason": outcome.failure or outcome.logs[0][-600:]},
            "same": {"result": "?"},
        }
    place = {pod.name: pod.node.name for pod in four}
    paths = _PATHS.search(outcome.logs[0])
    found: dict[str, Any] = {
        "mtu": int(paths[3]) if paths else None,
        "share": outcome.receipt["backend_share"],
    }
    found["all_paths"] = paths is not None and paths[1] == paths[2]
    for cell, across in (("same", False), ("across", True)):
        carried = {"net1": 0, "other": 0}
        for one in outcome.receipt["nodes"]:
            for peer in one["peers"]:
                if (place[one["node"]] != place[peer["node"]]) == across:
                    where = "net1" if peer["interface"] == "net1" else "other"
                    carried[where] += peer["sent_bytes"] + peer["received_bytes"]
        total = sum(carried.values())
        share = carried["net1"] / total if total else None
        found[cell] = {"result": "works" if total else "?", "bytes": carried["net1"], "share": share}
    return found


def own_address(node: nodes.Node) -> str:
    """The node's own address on the backend."""
    shown = json.loads(node.run("ip", "-json", "-6", "address", "show", "dev", "ens5", "scope", "global"))
    return str(shown[0]["addr_info"][0]["local"])


def _summary(outcome: Outcome) -> dict[str, Any]:
    return {"code": outcome.code, "failure": outcome.failure, "seconds": outcome.receipt.get("duration_s")}


def _net1(pod: Pod) -> dict[str, Any]:
    shown = pod.net1()
    about = shown.get("linkinfo", {})
    addresses = [one["local"] for one in shown["addr_info"] if one["scope"] == "global"]
    (entry,) = [one for one in pod.status if one.get("interface") == "net1"]
    if entry.get("ips") != addresses:
        raise ClusterFailure(f"{pod.name}: network-status has {entry.get('ips')}, the kernel {addresses}")
    mode = about.get("info_data", {}).get("mode", "")
    return {"kind": about.get("info_kind", ""), "mode": mode, "mtu": shown["mtu"], "ips": addresses}


def _promiscuous(node: nodes.Node) -> bool:
    (shown,) = json.loads(node.run("ip", "-json", "link", "show", "dev", "ens5"))
    return "PROMISC" in shown["flags"]


def _versions(up: Lab) -> dict[str, str]:
    return {
        "kernel": up.nodes[0].run("uname", "-r").strip(),
        "plugins": v.PLUGINS_VERSION,
        "multus": MULTUS.rpartition(":")[2],
        "whereabouts": WHEREABOUTS.rpartition(":")[2],
    }


def run(file: Path, parts: Sequence[str] = ()) -> None:
    """Bring the lab up, fill the table, take it down; with ``parts`` only rows and experiments whose names have one."""

    def wanted(name: str) -> bool:
        return not parts or any(part in name for part in parts)

    up = lab.up()
    try:
        for node in up.nodes:
            node.run("ip", "address", "add", f"{SEGMENT[node.name]}/64", "dev", "ens5", "nodad")
        table = Table(up, file)
        for name, experiment in (("mac filter", table.filtered), ("router", table.routed)):
            if wanted(name):
                with timed(name):
                    table.experiment(name, experiment)
        with timed("all rows"):
            for kind, mode in KINDS:
                for ipam in IPAMS:
                    if wanted(f"{kind} {mode} {ipam}"):
                        table.row(case(kind, mode, ipam))
        table.save()
    finally:
        lab.down()
