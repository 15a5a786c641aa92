"""The table of attachments, each cell an all-reduce that ran or a refusal, and what belongs to it: routes, MAC filters.

One boot for all; for a row one launch of four workers, two pods on each node. Its receipt has the bytes of each pair,
so that it fills both cells: pairs on one node, and pairs across nodes. Where that launch is refused, two workers on one
node are launched beside it. Most experiments use the pods of a row.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.addons import ROOT
from tests.cluster.control_plane import kubectl
from tests.cluster.places import RUN
from tests.cluster.shell import ClusterFailure, say, timed
from tests.lab import attachments, kubelets, lab, launches, nodes, pods, samples
from tests.lab.all_reduce import STARTED
from tests.lab.attachments import Refusal
from tests.lab.cases import (
    BEHIND_ROUTER,
    HOST_LOCAL,
    IPAMS,
    KIND_NAMES,
    NAMES,
    ROWS,
    SEGMENT,
    WIDE,
    Case,
    behind_router,
    case,
    named,
    only_known_macs,
    promiscuous,
    sliced,
)
from tests.lab.lab import PLUGINS, Lab
from tests.lab.launches import Outcome
from tests.lab.pods import Pod, ask_all
from torchnet.errors import NetworkError

CALLS = Path(__file__).with_name("plugin_calls.py")
TRAIN = ROOT / "launch" / "train.py"
NET = ROOT / "torchnet" / "k8s" / "addons" / "example_scripts" / "net.py"
_COMMAND = re.compile(r"on (node[0-9]+) run:\n +(ip \S.* via (ADDRESS_OF_(NODE[0-9]+)))$", re.MULTILINE)
_PATHS = re.compile(r"([0-9]+)/([0-9]+) paths at ([0-9]+) bytes")


class Table:
    """The rows, written to a file after each one; what the file has already is kept or replaced."""

    def __init__(self, up: Lab, file: Path) -> None:
        self.lab, self.file = up, file
        self.number = 0
        before = json.loads(file.read_text()) if file.exists() else {}
        versions = _versions(up)
        if before.get("versions", versions) != versions:
            raise ClusterFailure(
                f"{file} has results of other versions: {before['versions']}, not {versions}"
            )
        self.found: dict[str, Any] = {"rows": [], "experiments": {}, **before, "versions": versions}

    def save(self) -> None:
        self.file.write_text(json.dumps(self.found, indent=1) + "\n")

    @contextmanager
    def job(self, made: Case) -> Iterator[list[Pod]]:
        """Four pods, two on each node, on an attachment that is installed; DEL has succeeded at the end."""
        self.number += 1
        run = f"job{self.number}"
        launches.create_service(run, 4)
        with made.prepared(self.lab), attachments.installed(self.lab, made.objects):
            bodies = launches.of_kind(launches.rendered(run, 4), "Pod")
            four = [
                Pod(body, self.lab.nodes[rank // 2], tuple(made.ips[rank : rank + 1]))
                for rank, body in enumerate(bodies)
            ]
            try:
                pods.start(four)
                yield four
            finally:
                pods.end(four)
        if left := [*_pools(), *(one for node in self.lab.nodes for one in _left(node))]:
            raise ClusterFailure(f"DEL has left {', '.join(left)}")

    def row(self, made: Case) -> None:
        """Fill both cells, and what ``EXPERIMENTS`` has for this row."""
        began = time.monotonic()
        found: dict[str, Any] = {"kind": made.kind, "mode": made.mode, "ipam": made.ipam, "note": made.note}
        found["command"] = made.command
        if made.refused_manifest:
            found["refused_manifest"] = made.refused_manifest
        try:
            with self.job(made) as four:
                found["net1"] = [_net1(pod) for pod in four]
                found["late"] = [line for pod in four for line in pod.late]
                found["start"] = round(time.monotonic() - began, 1)
                outcome = launches.launch(four)
                found["launch"] = round(outcome.seconds, 1)
                if made.name == "ipvlan l3 host-local":
                    outcome = self._with_routes(four, outcome, found)
                found["counted"] = _counted(four)
                found |= cells(four, outcome)
                if outcome.code:
                    found["refusal"] = ending(outcome)
                    alone = launches.launch(four[:2])
                    found["alone"] = cells(four[:2], alone)
                    found["same"] = found["alone"]["same"]
                for name, experiment in EXPERIMENTS.get(made.name, {}).items():
                    self.experiment(name, partial(experiment, self, four))
        except Exception as failure:
            if not RUN.exists():  # somebody has taken the lab down
                raise
            # The other rows are worth their time.
            found["error"] = f"{type(failure).__name__}: {failure}"
        found["seconds"] = round(time.monotonic() - began, 1)
        rows = {named(row["kind"], row["mode"], row["ipam"]): row for row in self.found["rows"]}
        rows[made.name] = found
        self.found["rows"] = [rows[name] for name in NAMES if name in rows]
        self.save()
        shown = {name: found.get(name) for name in ("same", "across", "error", "start", "launch", "seconds")}
        say(f"{made.name}: {shown}")

    def _with_routes(self, four: list[Pod], refused: Outcome, found: dict[str, Any]) -> Outcome:
        """Run the commands that the refusal names, each on the node that it names, and launch again."""
        commands = _COMMAND.findall(refused.failure)
        found["without_routes"] = {
            **ending(refused),
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
        except Exception as failure:
            if not RUN.exists():
                raise
            found["error"] = f"{type(failure).__name__}: {failure}"
        self.save()
        say(f"{name}: {json.dumps(found)[:600]}")

    def filtered(self, four: list[Pod], found: dict[str, Any]) -> None:
        """A port that passes only the card's own MAC address: macvlan, without and with promiscuous mode."""
        found["promiscuity"] = {node.name: _promiscuity(node) for node in self.lab.nodes}
        with only_known_macs():
            found["macvlan"] = ending(launches.launch(four[::2]))
            with promiscuous(self.lab):
                found["macvlan_promiscuous"] = ending(launches.launch(four[::2]))

    def filtered_ipvlan(self, four: list[Pod], found: dict[str, Any]) -> None:
        """The same port: ipvlan."""
        found["promiscuity_of_ipvlan"] = {node.name: _promiscuity(node) for node in self.lab.nodes}
        with only_known_macs():
            found["ipvlan"] = ending(launches.launch(four[::2]))

    def looked(self, four: list[Pod], found: dict[str, Any]) -> None:
        """What the guide looks at: the pods' net1, and a ping."""
        two = four[::2]
        addresses = [pod.status_entry("net1")["ips"][0] for pod in two]
        path = r"{.metadata.annotations.k8s\.v1\.cni\.cncf\.io/network-status}"
        about_pod = ("get", "pod", two[0].name, "-o", f"jsonpath={path}")
        found["addresses"] = addresses
        found["looks"] = {
            "kubectl get network-attachment-definitions": kubectl("get", "network-attachment-definitions"),
            f"kubectl get pod {two[0].name} -o jsonpath='{path}'": kubectl(*about_pod),
            "ip addr show dev net1": two[0].inside("ip", "addr", "show", "dev", "net1"),
            "python3 net.py show": two[0].inside(sys.executable, "-S", str(NET), "show"),
            f"python3 net.py probe {addresses[1]}": two[0].inside(
                sys.executable, "-S", str(NET), "probe", addresses[1]
            ),
            f"ping6 -c 3 {addresses[1]}": two[0].inside("ping6", "-c", "3", addresses[1]),
        }

    def trained(self, found: dict[str, Any]) -> None:
        """`torchnet launch launch/train.py` on kubelets, over the attachment that torchnet prints by default.

        The last experiment: from now on, the nodes' pods are the kubelets'.
        """
        kubelets.start(self.lab)
        found["nodes"] = kubectl("get", "nodes", "-o", "wide")
        objects = attachments.printed("--namespace", "default")
        if isinstance(objects, Refusal):
            raise ClusterFailure(objects.text)
        kubectl("apply", "-f", "-", input="\n---\n".join(map(json.dumps, objects)))
        with tempfile.TemporaryDirectory() as folder:
            receipt = Path(folder, "receipt.json")
            before = {node.name: _sent(node) for node in self.lab.nodes}
            done = kubelets.launch("--json", receipt, TRAIN, "--epochs", "4", folder=Path(folder))
            found |= {"code": done.returncode, "out": done.stdout, "err": done.stderr}
            found["ens5"] = {node.name: _sent(node) - before[node.name] for node in self.lab.nodes}
            found["receipt"] = json.loads(receipt.read_text())
        found["left"] = kubectl("get", "pods,jobs,configmaps,secrets", "-l", "torchnet.alt/run", "-o", "name")

    def routed(self, found: dict[str, Any]) -> None:
        """A router between the nodes' segments, each a /64 of its own: l3, with the routes on the router."""
        made = case("ipvlan", "l3", "host-local")
        objects = attachments.printed("--mode", "l3", "--range", WIDE, *sliced(BEHIND_ROUTER))
        assert not isinstance(objects, Refusal)
        made.objects, made.prepared = objects, behind_router
        with self.job(made) as four:
            outcome = launches.launch(four)
            found |= cells(four, outcome) | ending(outcome)

    def sampled(self, found: dict[str, Any]) -> None:
        """Single attachments, which the plugins are called with on a node: what lint has said of each, and they."""
        drawn = samples.all_samples()
        asked = [
            {"name": f"sample{number}", "config": json.dumps(one.config), "ips": one.ips}
            for number, one in enumerate(drawn)
        ]
        count = len(self.lab.nodes)

        def call(node: nodes.Node) -> list[dict[str, Any]]:
            own = json.dumps(asked[self.lab.nodes.index(node) :: count])
            said = node.run(sys.executable, "-S", CALLS, input=own, timeout=240)
            return json.loads(said)  # type: ignore[no-any-return]

        with ThreadPoolExecutor(count) as pool:
            answers = {one["name"]: one for answer in pool.map(call, self.lab.nodes) for one in answer}
        found["samples"] = [
            {
                "kind": one.kind,
                "usable": one.usable,
                "config": one.config,
                "lint": one.why,
                **answers[request["name"]],
            }
            for one, request in zip(drawn, asked, strict=True)
        ]
        if left := [*_pools(), *(one for node in self.lab.nodes for one in _left(node))]:
            raise ClusterFailure(f"DEL has left {', '.join(left)}")


# By row; they use its pods.
EXPERIMENTS: dict[str, dict[str, Callable[[Table, list[Pod], dict[str, Any]], None]]] = {
    "ipvlan l2 whereabouts": {"guide": Table.looked},
    "ipvlan l2 static": {"mac filter ipvlan": Table.filtered_ipvlan},
    "macvlan bridge static": {"mac filter": Table.filtered},
}


def cells(four: list[Pod], outcome: Outcome) -> dict[str, Any]:
    """Both cells of a launch: pairs on one node, and pairs across nodes."""
    if outcome.code:
        return {
            "across": {
                "result": "refused" if outcome.code == NetworkError.exit_code else "failed",
                "reason": outcome.failure or outcome.logs[0][-600:],
            },
            "same": {"result": "?"},
        }
    # A worker of a launch in some of a row's pods has its rank's name, not its pod's.
    run = launches.run_of(four[0])
    place = {f"{run}-{rank}": pod.node.name for rank, pod in enumerate(four)}
    paths = _PATHS.search(outcome.logs[0])
    found: dict[str, Any] = {
        "mtu": int(paths[3]) if paths else None,
        "share": outcome.receipt["backend_share"],
        "codes": outcome.codes,
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


def ending(outcome: Outcome) -> dict[str, Any]:
    """How it ended, when, and whether any script had started by then."""
    started = [rank for rank, log in enumerate(outcome.logs) if STARTED in log]
    return {
        "code": outcome.code,
        "codes": outcome.codes,
        "failure": outcome.failure,
        "seconds": outcome.receipt.get("duration_s"),
        "wall_seconds": round(outcome.seconds, 1),
        "scripts": started,
    }


def _counted(four: list[Pod]) -> dict[str, int]:
    """The bytes that the kernel's own counters have for the pods' interfaces, sent since their start."""
    shown = ask_all(four, lambda pod: json.loads(pod.node.run("ip", "-n", pod.name, "-s", "-json", "link")))
    counted = {"net1": 0, "eth0": 0}
    for one in (one for links in shown for one in links if one["ifname"] in counted):
        counted[one["ifname"]] += one["stats64"]["tx"]["bytes"]
    return counted


def _sent(node: nodes.Node) -> int:
    """The bytes that the node's card has sent since its start."""
    (shown,) = json.loads(node.run("ip", "-s", "-json", "link", "show", "dev", "ens5"))
    return int(shown["stats64"]["tx"]["bytes"])


def _net1(pod: Pod) -> dict[str, Any]:
    shown = pod.net1()
    about = shown.get("linkinfo", {})
    addresses = [one["local"] for one in shown["addr_info"] if one["scope"] == "global"]
    entry = pod.status_entry("net1")
    if entry.get("ips") != addresses:
        raise ClusterFailure(f"{pod.name}: network-status has {entry.get('ips')}, the kernel {addresses}")
    mode = about.get("info_data", {}).get("mode", "")
    return {"kind": about.get("info_kind", ""), "mode": mode, "mtu": shown["mtu"], "ips": addresses}


def _pools() -> list[str]:
    """Whereabouts' pools that have leases."""
    pools = json.loads(kubectl("get", "ippools", "-n", "kube-system", "-o", "json"))["items"]
    return [f"addresses in {one['metadata']['name']}" for one in pools if one["spec"]["allocations"]]


def _left(node: nodes.Node) -> list[str]:
    """host-local's leases and the ends of pods' interfaces on a node."""
    found = node.run("sh", "-c", f"find {HOST_LOCAL} -type f 2>/dev/null || true").split()
    leases = [path for path in found if path.rpartition("/")[2][0].isdigit() or ":" in path]
    links = json.loads(node.run("ip", "-json", "link", "show"))
    ends = [one["ifname"] for one in links if one["ifname"].startswith("veth")]
    return [f"{one} on {node}" for one in (*leases, *ends)]


def _promiscuity(node: nodes.Node) -> int:
    """How many have asked for all packets of the node's card: people, a bridge, the kernel itself.

    ``PROMISC`` among the flags says only what people have set.
    """
    (shown,) = json.loads(node.run("ip", "-json", "-d", "link", "show", "dev", "ens5"))
    return int(shown["promiscuity"])


def _versions(up: Lab) -> dict[str, str]:
    """Of what runs: the programs are asked."""
    node = up.nodes[0]

    def version(program: str, *words: str) -> str:
        answer = node.ask(f"{PLUGINS}/{program}", *words)
        found = re.search(r"\bv[0-9]+\.[0-9.]*[0-9]", answer.stdout + answer.stderr)
        if found is None:
            raise ClusterFailure(f"{program} does not say its version: {answer}")
        return found[0]

    found = {"kernel": node.run("uname", "-r").strip(), "multus": version("multus", "--version")}
    plugins = {name: version(name) for name in (*KIND_NAMES, *IPAMS)}
    found["whereabouts"] = plugins.pop("whereabouts")
    (found["plugins"],) = set(plugins.values())
    return found


def run(file: Path, parts: Sequence[str] = ()) -> None:
    """Bring the lab up, fill the table, take it down; with ``parts`` only rows whose names have one."""

    def wanted(name: str) -> bool:
        return not parts or any(part in name for part in parts)

    began = time.monotonic()
    up = lab.up()
    try:
        for node in up.nodes:
            node.run("ip", "address", "add", f"{SEGMENT[node.name]}/64", "dev", "ens5", "nodad")
        table = Table(up, file)
        if wanted("samples"):
            with timed("samples"):
                table.experiment("samples", table.sampled)
        with timed("all rows"):
            for made in (case(*row) for row in ROWS if wanted(named(*row))):
                table.row(made)
        if wanted("router"):
            with timed("router"):
                table.experiment("router", table.routed)
        if wanted("training"):
            with timed("training"):
                table.experiment("training", table.trained)
        table.found["seconds"] = round(time.monotonic() - began, 1)
        table.save()
    finally:
        lab.down()
