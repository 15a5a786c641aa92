"""docs/attachments.md: the lab's results as a page."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from typing import Any

from tests.lab.cases import ROWS
from tests.lab.samples import is_usable
from torchnet.errors import NetworkError
from torchnet.k8s.attachments.cni_config import CniConfig
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.lint import lint
from torchnet.receipt import table
from torchnet.receipt.receipt_model import Receipt

FILE = "docs/attachments.md"
LEAST_SHARE = 0.99
REFUSED = NetworkError.exit_code
WIDTH = 120
VERSIONS = "Tried with "
_KERNEL = re.compile(
    rf"^({VERSIONS}Linux) \S+,", re.MULTILINE
)  # which may differ from one machine to another
FIGURES = "<!-- Of one run: the next one has other figures. -->"  # before a block that may differ
_FIGURES = re.compile(rf"^{re.escape(FIGURES)}\n.*?^```$", re.MULTILINE | re.DOTALL)

_HEAD = f"""\
# Attachments

<!-- Written by the tests (tests/lab/page.py): TESTS_OF_TORCHNET_UPDATE_GOLDEN=1 python -m pytest tests/lab -->

Each cell ran on two nodes with kernels of their own (user-mode Linux), where the real Multus, Whereabouts and CNI
plugins were called as a container runtime calls them: ADD and DEL. No kubelet took part, but for the last section.
(Where Multus waited in vain for the API server, ADD was called again, as a kubelet does.) The attachments are those
that `torchnet manifests backend-network` prints, unless the last column says otherwise. The pods are those that
`torchnet launch --dry-run` prints: the test created them, and ran their containers' commands with their environment and
volumes, as root. In the rows of `static`, the test added the `ips` to the pods' annotations, without `--static-ips`.
What `torchnet launch` checks before it creates anything was not part of it. PyTorch and torchnet's agent were
imported beforehand, once on each node: scripts and agents are forks of these processes.

*Works* means: the preflight reached each peer in packets of the full MTU, an all-reduce over Gloo had the right result,
and at least {LEAST_SHARE:.0%} of the bytes between the workers went over `net1`. *Refused* means: the workers ended
with exit code 4 before a script started.
"""
_L3 = """\
## ipvlan in mode l3 or l3s

In these modes the node routes, and pods do not answer neighbour discovery. So each node needs a range of its own, and a
route to the range of each other node. Pods cannot see their node's routes; if the preflight gets no answer, torchnet
compares what both ends saw. Without the routes, the workers in the table above refused to start, with:
"""
_VIA = """\
The next launch worked after these commands, with the address in place of the placeholder. `torchnet manifests
backend-network` adds the routes itself if it gets each node's own address on the backend, as for `l3s` in the table:

```sh
{command}
```

The routes stay when the DaemonSet is deleted; `ip -6 route delete RANGE` removes one.
"""


class Contradiction(Exception):
    """The page's words say something else than the results."""


def _require(holds: bool, words: str) -> None:
    if not holds:
        raise Contradiction(f"docs/attachments.md would say: {words}")


def render(found: dict[str, Any]) -> str:
    """The page. Figures that differ from run to run are in blocks after ``FIGURES`` alone."""
    rows = found["rows"]
    lines = [
        _HEAD,
        "| `--type` | `--mode` | `--ipam` | Pods on one node | Pods on two nodes | How |",
        "|---|---|---|---|---|---|",
    ]
    keys = [(row["kind"], row["mode"], row["ipam"]) for row in rows]
    missing = [key for key in ROWS if key not in keys]
    not_tried = [dict(zip(("kind", "mode", "ipam"), key, strict=True), note="") for key in missing]
    for row in sorted(
        [*rows, *not_tried], key=lambda row: ROWS.index((row["kind"], row["mode"], row["ipam"]))
    ):
        words = [f"`{row['kind']}`", f"`{row['mode']}`" if row["mode"] else "", f"`{row['ipam']}`"]
        cells = [_cell(row, "same"), _cell(row, "across")]
        lines.append(f"| {' | '.join([*words, *cells, row['note']])} |".replace("|  |", "| |"))
    versions, tried = found["versions"], found["experiments"]
    filtered = {**tried.get("mac_filter", {}), **tried.get("mac_filter_ipvlan", {})}
    lines += [
        "",
        f"{VERSIONS}Linux {versions['kernel']}, CNI plugins {versions['plugins']}, Multus {versions['multus']}, ",
    ]
    lines[-1] += f"Whereabouts {versions['whereabouts']}."
    lines += [
        "",
        *_about_l3(rows),
        *_about_manifests(rows),
        *_about_filter(filtered),
    ]
    lines += _about_router(tried.get("router"))
    lines += _about_samples(tried.get("samples"))
    lines += _about_guide(tried.get("guide"))
    lines += _about_training(tried.get("training"))
    return "\n".join(lines).rstrip() + "\n"


def same(one: str, other: str) -> bool:
    """Whether two pages say the same, but for the versions and what differs from run to run."""
    left, right = (_FIGURES.sub("", _KERNEL.sub(r"\1", text)) for text in (one, other))
    return left == right


def _cell(row: dict[str, Any], name: str) -> str:
    cell = row.get(name, {})
    if cell.get("result") != "works":
        return str(cell.get("result", "failed" if "seconds" in row else "not tried"))
    return "works" if cell["share"] >= LEAST_SHARE else f"works, {cell['share']:.1%} on net1"


def causes(failure: str) -> list[str]:
    """The lines that a refusal concludes from all workers' views; those of one cause but the first are indented."""
    found, is_cause = [], False
    for line in failure.removeprefix("preflight: ").splitlines():
        is_first = line.startswith(("no answer from the pods", "nothing that pods sent"))
        is_cause = is_first or (is_cause and line.startswith("  "))
        found += [line] if is_cause else []
    return [re.sub(r"\bjob[0-9]+-", "worker-", line) for line in found]


def _quoted(failure: str) -> list[str]:
    return ["```text", *causes(failure), "```", ""]


def _about_l3(rows: list[dict[str, Any]]) -> list[str]:
    found = {(row["mode"], row["ipam"]): row for row in rows}
    row, with_routes = found.get(("l3", "host-local"), {}), found.get(("l3s", "host-local"), {})
    if "without_routes" not in row or not with_routes.get("command"):
        return []
    _require(row["without_routes"]["code"] == REFUSED, "without the routes, the workers refused to start")
    for one in (row, with_routes):
        _require(_cell(one, "across") == "works", f"{one['mode']} works with the routes")
    words = f"torchnet manifests backend-network {with_routes['command']}"
    via = _VIA.format(
        command=words.replace(" --range", " \\\n  --range").replace(" --slice", " \\\n  --slice")
    )
    return [_L3, *_quoted(row["without_routes"]["failure"]), via]


def _about_manifests(rows: list[dict[str, Any]]) -> list[str]:
    for row in rows:
        if row["ipam"] == "whereabouts" and row.get("refused_manifest"):
            said = [line for line in row["refused_manifest"].splitlines() if "--mode" in line]
            _require(_cell(row, "across") == "refused", f"{row['mode']} with one range is refused")
            return [
                "One range for all nodes, as with Whereabouts, cannot work in these modes. torchnet prints no such "
                "attachment:",
                "",
                *("```text", *(line.strip() for line in said), "```", ""),
                "With one that was written by hand, the workers refuse to start:",
                "",
                *_quoted(row.get("across", {}).get("reason", "")),
            ]
    return []


def _about_filter(found: dict[str, Any]) -> list[str]:
    if (
        not {"macvlan", "macvlan_promiscuous", "ipvlan", "promiscuity", "promiscuity_of_ipvlan"}
        <= found.keys()
    ):
        return []
    macvlan, promiscuous, ipvlan = (
        _result(found[one]) for one in ("macvlan", "macvlan_promiscuous", "ipvlan")
    )
    _require(
        (macvlan, promiscuous, ipvlan) == ("refused", "refused", "works"), "a filter stops macvlan alone"
    )
    counts = set(found["promiscuity"].values())
    _require(
        0 not in counts and set(found["promiscuity_of_ipvlan"].values()) == {0},
        "the kernel made the cards promiscuous for macvlan, and not for ipvlan",
    )
    texts = (
        "macvlan gives each pod a MAC address of its own. Does it need promiscuous mode on the nodes' cards? Nobody "
        "has to turn it on: here, with macvlan pods, the kernel had done so by itself (`ip -d link` shows `promiscuity "
        f"{', '.join(map(str, sorted(counts)))}`, and 0 with ipvlan pods), because the driver of these cards cannot "
        "filter by several addresses. Not tried: a card whose driver can, to which the kernel gives the addresses.",
        "What stops macvlan is a filter between the nodes, as many hypervisors and clouds have it: a switch port that "
        "passes only the card's own MAC address. There, promiscuous mode does not help, and ipvlan works, since its "
        "pods share the card's address.",
    )
    return [
        "## macvlan and promiscuous mode",
        "",
        *(line for text in texts for line in (textwrap.fill(text, WIDTH), "")),
        "| Port that passes only the card's own MAC address | Pods on two nodes |",
        "|---|---|",
        f"| `macvlan` | {macvlan} |",
        f"| `macvlan`, `ip link set ens5 promisc on` on the nodes | {promiscuous} |",
        f"| `ipvlan`, `l2` | {ipvlan} |",
        "",
        "The refusal:",
        "",
        *_quoted(found["macvlan"]["failure"]),
    ]


def _result(tried: dict[str, Any]) -> str:
    return {0: "works", REFUSED: "refused"}.get(tried["code"], "failed")


def _about_router(found: dict[str, Any] | None) -> list[str]:
    if not found:
        return []
    text = (
        "With each node's card in a /64 of its own and a router in between, ipvlan l3 with a slice per node: "
        f"{_cell(found, 'across')}. The router has a route to each node's slice, via that node; each node has one to "
        "the whole range, via the router. `via=` is for nodes on one segment."
    )
    return ["## A router between the nodes", "", textwrap.fill(text, WIDTH)]


def _about_samples(found: dict[str, Any] | None) -> list[str]:
    if not found or "samples" not in found:
        return []
    _require(all(is_usable(one) is one["usable"] for one in found["samples"]), "lint and the plugins agree")
    count = Counter(one["kind"] for one in found["samples"])
    text = (
        "Random attachments were linted as on a cluster of one node, and the plugins called on one. They accepted the "
        f"{count['passed']} that lint passed, and the {count['corrected']} that it had corrected without a remaining "
        f"fault. They accepted none of the {count['refused']} with a fault with which no pod gets a usable interface. "
        "Other faults were not tried. `torchnet network lint FILE` does not know the nodes and assumes several: there, "
        f"{_refused_on_several(found['samples'])} of the {count['passed']} have a fault, because host-local has one "
        f"range for all nodes. Of the guide's {count['guide']} combinations of snippets, the plugins accepted each as "
        "corrected, and none as it stands. *Accepted* means: ADD and DEL succeeded, and CHECK where the IPAM plugin "
        "has it (Whereabouts has none); the result had an interface and addresses, so that Multus writes its "
        "network-status; `net1` had the type, mode, MTU and addresses. The plugins were called as Multus calls them."
    )
    return ["", "## Lint and the plugins", "", textwrap.fill(text, WIDTH)]


def _refused_on_several(samples: list[dict[str, Any]]) -> int:
    """How many of those that lint passes on one node have a fault on several: one range of host-local for all."""
    refused = 0
    for config in (one["config"] for one in samples if one["kind"] == "passed"):
        faults = lint([Definition("default", "net", json.dumps(config))]).faults
        refused += bool(faults)
        is_shared = CniConfig(config).ipam_type == "host-local" and not any(one.blocks for one in faults)
        _require(not faults or is_shared, "host-local has one range for all nodes")
    return refused


def _about_training(found: dict[str, Any] | None) -> list[str]:
    if not found or "receipt" not in found:
        return []
    _require(found["code"] == 0 and found["nodes"].count(" Ready ") == 2, "the training ran on two kubelets")
    text = (
        "Finally, each node got a real kubelet and containerd, and the cluster the manifests of Multus and Whereabouts "
        "as they are in [manifests](../manifests), and the attachment that `torchnet manifests backend-network` prints "
        "by default. `torchnet launch` of [launch/train.py](../launch/train.py) on two nodes ended with exit code "
        f"{found['code']}. Its receipt:"
    )
    receipt = table.render(Receipt.model_validate(found["receipt"]), columns=WIDTH)
    lines = [
        "",
        "## A training over ipvlan",
        "",
        textwrap.fill(text, WIDTH),
        "",
        *_figures(receipt.splitlines()),
    ]
    said = found["out"].splitlines()[-3:]
    return [*lines, "", "Its last lines of output:", "", *_figures(said), ""]


def _about_guide(found: dict[str, Any] | None) -> list[str]:
    if not found or "looks" not in found:
        return []
    text = (
        "In pods of the table's first row, [the guide's](../manifests/multus-guide.md#verifying-the-setup) commands "
        "for the pods and their networks printed this. `net.py` of the example pods is for images that have no `ip` "
        "and no `ping`."
    )
    looks: list[str] = []
    for command, printed in found["looks"].items():
        looks += ["", f"$ {command}", *(line.rstrip() for line in printed.rstrip().splitlines())]
    return ["", "## The guide's commands", "", textwrap.fill(text, WIDTH), "", *_figures(looks[1:])]


def _figures(lines: list[str]) -> list[str]:
    return [FIGURES, "```text", *lines, "```"]
