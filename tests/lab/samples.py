"""Attachments for the plugins themselves: random ones that lint passes, refuses or corrects, and the guide's snippets.

They are drawn with a fixed seed. What depends on the nodes is as the lab's nodes have it, for lint does not know it.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.unit.k8s.attachments.test_lint_documents import HOST_LOCAL, IPVLAN, MACVLAN, WHEREABOUTS, filled
from torchnet.k8s.attachments.cni_config import CniConfig
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.lint import Lint, lint

SEED = 15
PASSED, REFUSED, CORRECTED = 16, 16, 8
MOST_ALIKE = 2  # refused for the same reason
IPS = ["fcbb:0:800:aaaa::50/64"]  # what the pod's annotation requests
TUNING = {"type": "tuning", "sysctl": {"net.ipv6.conf.IFNAME.accept_ra": "0"}}
Body = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """A configuration, and whether a pod must get a usable interface from it."""

    kind: str  # passed, refused, corrected, guide, guide corrected
    config: Body
    usable: bool
    why: str = ""  # lint's sentences

    @property
    def ips(self) -> list[str]:
        """What the pod requests, where it must."""
        return IPS if CniConfig(self.config).ipam_type == "static" else []


def ipams(chance: random.Random) -> Body:
    """One that is valid."""
    subnet = chance.choice(("10.77.{}.0/24", "fcbb:0:800:{}::/64", "10.78.{}.0/28")).format(
        chance.randrange(1, 99)
    )
    first = subnet.partition("/")[0].removesuffix("0").removesuffix("::")
    low, high = (f"{first}5", f"{first}9") if "." in subnet else (f"{first}::5", f"{first}::9")
    kind = chance.choice(("whereabouts", "whereabouts", "host-local", "static"))
    if kind == "static":
        return {"type": kind}
    if kind == "host-local":
        one: Body = {"subnet": subnet}
        one |= chance.choice(({}, {"rangeStart": low, "rangeEnd": high}, {"gateway": low}))
        return {"type": kind, "ranges": [[one]]}
    found: Body = {"type": kind, "range": subnet}
    found |= chance.choice(
        ({}, {"range_start": low, "range_end": high}, {"exclude": [f"{low}/{'32' if '.' in low else '128'}"]})
    )
    return found


def valid(chance: random.Random) -> Body:
    """A configuration without faults on nodes as the lab's."""
    kind = chance.choice(("ipvlan", "macvlan", "bridge"))
    main: Body = {"type": kind, "ipam": ipams(chance)}
    if kind == "bridge":
        main["bridge"] = "br-lab"
    else:
        main["master"] = "ens5"
        modes = ("l2", "l3", "l3s") if kind == "ipvlan" else ("bridge", "private", "vepa")
        main |= chance.choice(({}, {"mode": chance.choice(modes)}, {"mode": chance.choice(modes)}))
    main |= chance.choice(({}, {}, {"mtu": chance.choice((0, 1400, 1500, 9000))}))
    if main["ipam"]["type"] == "static" or chance.random() < 0.1:
        main["capabilities"] = {"ips": True}
    head: Body = {"cniVersion": chance.choice(("0.3.1", "0.4.0", "1.0.0", "1.0.0", "1.1.0"))}
    head |= chance.choice(({}, {"name": "net"}))
    if chance.random() < 0.3:
        return head | main
    return head | {"plugins": [main, *chance.choice(([], [TUNING], [TUNING]))]}


# Path in the main plugin, or in the head ("/"), and what is put there; None removes it.
MUTATIONS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("/cniVersion", (None, "", "0.2.0", "2", "1.0")),
    ("/name", ("a b", "-x", "_", "net.1")),
    ("type", (None, "tuning", "portmap", "ipvlan")),
    ("master", ("a/b", "", 7)),
    ("mode", ("l4", "L2", "bridge", "l3", "", "private")),
    ("bridge", ("a/b", "br-lab-of-the-tests", "")),
    ("vlan", (-1, 5000)),
    ("mtu", (-1, 1279, "9000", 1280, 68, True)),
    ("ipam", (None, {}, [], {"type": ""}, {"range": "10.9.0.0/24"})),
    ("ipam.type", (None, "", 7)),
    (
        "ipam.range",
        (
            None,
            "10.9.0.0/33",
            "x",
            "10.9.0.7/24",
            "fd00::/65",
            "10.9.0.1-10.9.0.9/24",
            "fd00::9-fd00::1/64",
            7,
        ),
    ),
    ("ipam.range_start", ("x", "10.9.0.1", 7, "")),
    ("ipam.exclude", ("x", ["x"], ["10.9.0.0/24"], [], ["fcbb:0:800::/48", "10.0.0.0/8"])),
    ("ipam.gateway", ("x", "", "fd00::1")),
    (
        "ipam.ipRanges",
        (
            [{"range": "10.9.1.0/24"}],
            [{"range": "x"}],
            {},
            [],
            [{"range": "10.9.1.0/24", "range_start": "x"}],
        ),
    ),
    ("ipam.node_slice_size", ("/80", "/x", "/20")),
    ("ipam.enable_ipv6", (True,)),
    (
        "ipam.ranges",
        (
            None,
            [],
            [{"subnet": "10.9.2.0/24"}],
            [[{"subnet": "10.9.2.7/24"}]],
            [[{"subnet": "10.9.2.0/31"}]],
            [[{"subnet": "10.9.2.0/24"}], [{"subnet": "10.9.2.0/25"}]],
            [[{"subnet": "10.9.2.0/24"}, {"subnet": "fd00::/64"}]],
            [[{"subnet": "10.9.2.0/24", "rangeStart": "10.9.3.1"}]],
            [[{"subnet": "10.9.2.0/24"}], [{"subnet": "fd01::/64"}]],
        ),
    ),
    ("ipam.subnet", ("10.9.4.0/24", "10.9.4.7/24", "x")),
    ("ipam.addresses", ([{"address": "10.9.5.1"}], [{"address": "x/24"}], {}, [])),
    ("+", ({"type": "tuning", "sysctl": {"kernel.x": "1"}}, {"type": "tuning", "sysctl": []})),
    (
        "+",
        (
            {"type": "tuning", "sysctl": {"net.core.rmem_max": "1"}},
            {"type": "tuning", "sysctl": {"net.core.somaxconn": 1}},
        ),
    ),
    ("+", ({"type": "tuning", "sysctl": {"net.core.somaxconn": "64"}}, {"sysctl": {}}, {"type": "tuning"})),
)


def mutated(body: Body, chance: random.Random) -> Body:
    body = copy.deepcopy(body)
    path, values = chance.choice(MUTATIONS)
    value = copy.deepcopy(chance.choice(values))
    if path == "+":
        if "plugins" in body:
            body["plugins"].append(value)
        return body
    place = body if path.startswith("/") else body.get("plugins", [body])[0]
    *folders, key = path.removeprefix("/").split(".")
    for folder in folders:
        place = place.get(folder)
        if not isinstance(place, dict):
            return body
    place.pop(key, None) if value is None else place.update({key: value})
    return body


def look(body: Body) -> Lint:
    # One node, as each sample has: what several nodes share is another matter.
    return lint([Definition("default", "net", json.dumps(body))], nodes=("node1",))


def blocking(found: Lint) -> str:
    """The first thing with which no pod gets a usable interface; "" without one."""
    return next((f"{one.field}: {one.text}" for one in found.faults if one.blocks), "")


def drawn() -> Iterator[Sample]:
    """Random ones, until there are enough of each kind."""
    chance = random.Random(SEED)
    left = {"passed": PASSED, "refused": REFUSED, "corrected": CORRECTED}
    reasons: Counter[str] = Counter()
    shapes: set[str] = set()
    while any(left.values()):
        body = valid(chance)
        for _ in range(chance.choice((0, 1, 1, 2))):
            body = mutated(body, chance)
        if (text := json.dumps(body, sort_keys=True)) in shapes:
            continue
        shapes.add(text)
        found = look(body)
        why = "; ".join(one.sentence for one in found.findings)
        if not found.faults and left["passed"]:
            left["passed"] -= 1
            yield Sample("passed", body, True, why)
        reason = blocking(found)
        if not reason or reasons[reason] >= MOST_ALIKE:
            continue
        if left["refused"]:
            left["refused"] -= 1
            reasons[reason] += 1
            yield Sample("refused", body, False, why)
        for corrected in found.corrections.values():
            if left["corrected"] and not look(corrected).faults:
                left["corrected"] -= 1
                yield Sample("corrected", corrected, True, why)


def of_the_guide() -> Iterator[Sample]:
    """Its snippets with its own options in place of ``{ ... }``: as they stand, and as lint corrects them."""
    for snippet in (IPVLAN, MACVLAN):
        for ipam in (WHEREABOUTS, HOST_LOCAL, '{"type": "static"}'):
            text = yaml.safe_load(filled(snippet, ipam))["spec"]["config"]
            found = lint([Definition("default", "net", text)])
            (corrected,) = found.corrections.values()
            why = "; ".join(one.sentence for one in found.findings)
            yield Sample("guide", json.loads(text), False, why)
            yield Sample("guide corrected", corrected, not look(corrected).faults, why)


def all_samples() -> list[Sample]:
    return [*of_the_guide(), *drawn()]


def is_usable(tried: dict[str, Any]) -> bool:
    """Whether ADD, CHECK and DEL succeeded, with a result of which Multus makes a status, and net1 is as configured."""
    result, net1, config = tried["result"], tried["net1"], CniConfig(tried["config"])
    # Whereabouts 0.9.4 has no CHECK, so that of the plugin that calls it fails.
    no_check = config.ipam_type == "whereabouts" and "CNI CHECK method is not implemented" in tried["CHECK"]
    if tried["ADD"] or tried["DEL"] or (tried["CHECK"] and not no_check):
        return False
    if not result.get("interfaces") or not result.get("ips"):
        return False
    about, mtu = net1["linkinfo"], config.main.body.get("mtu")
    if about["info_kind"] != ("veth" if config.main.type == "bridge" else config.main.type):
        return False
    if (config.mode and about["info_data"]["mode"] != config.mode) or (mtu and net1["mtu"] != mtu):
        return False
    kept = {f"{one['local']}/{one['prefixlen']}" for one in net1["addr_info"] if one["scope"] == "global"}
    return kept == {str(ipaddress.ip_interface(one["address"])) for one in result["ips"]}
