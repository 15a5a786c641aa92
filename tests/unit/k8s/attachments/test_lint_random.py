"""Random attachments and annotations: the rules never fail, and what they correct has nothing left to correct."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.attachments import HOST_LOCAL, TUNING, Body, config, plugin, single
from torchnet.cli.network_output import lint_document, lint_text
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.lint import lint
from torchnet.k8s.attachments.lint_documents import read_documents
from torchnet.k8s.attachments.request_rules import Request
from torchnet.yaml_io import YamlError

# 10,000 examples took 100 s: these tests run in CI with few, and beside them a plain generator with 10,000.
EXAMPLES = int(os.environ.get("TESTS_OF_TORCHNET_EXAMPLES", "60"))

ADDRESSES = (
    "10.9.0.0/24",
    "10.9.0.5",
    "fd00::/64",
    "fd00::1",
    "fcbb:0:0800:ffff::/64",
    "fd00::/127",
    "::/0",
    "0.0.0.0/0",
)
ODD = (
    "",
    "x",
    "10.9.0.0/33",
    "10.9.0.1-10.9.0.9/24",
    "fd00::9-fd00::1/64",
    "\u202e",
    "-",
    "/",
    "1.1.1.1/255.0.0.0",
)
WORDS = (
    "ipvlan",
    "macvlan",
    "bridge",
    "tuning",
    "bandwidth",
    "whereabouts",
    "host-local",
    "static",
    "dhcp",
    "net",
)
KEYS = (
    *(
        "cniVersion",
        "name",
        "type",
        "plugins",
        "ipam",
        "master",
        "mode",
        "mtu",
        "bridge",
        "vlan",
        "capabilities",
    ),
    *(
        "sysctl",
        "range",
        "range_start",
        "range_end",
        "exclude",
        "ipRanges",
        "gateway",
        "routes",
        "ranges",
        "subnet",
    ),
    *(
        "rangeStart",
        "rangeEnd",
        "addresses",
        "address",
        "node_slice_size",
        "network_name",
        "dst",
        "ips",
        "interface",
    ),
)
words = st.sampled_from((*ADDRESSES, *ODD, *WORDS, "1.0.0", "l3", "ens5", "/80", "32")) | st.text(max_size=8)
numbers = st.integers(-2, 1 << 70) | st.floats(allow_nan=False, allow_infinity=False)
keys = st.sampled_from(KEYS) | words
junk = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these fields, now and then with a value of any kind."""
    return st.fixed_dictionaries(
        {}, optional={key: value | value | value | junk for key, value in fields.items()}
    )


part = some(range=words, range_start=words, range_end=words, exclude=st.lists(words, max_size=2))
subnet = some(subnet=words, rangeStart=words, rangeEnd=words, gateway=words)
ipams = some(
    type=st.sampled_from(("whereabouts", "host-local", "static", "dhcp")),
    **dict.fromkeys(
        ("range", "range_start", "range_end", "gateway", "node_slice_size", "network_name"), words
    ),
    exclude=st.lists(words, max_size=3),
    ipRanges=st.lists(part, max_size=2),
    ranges=st.lists(st.lists(subnet, max_size=2), max_size=2),
    addresses=st.lists(some(address=words), max_size=2),
    routes=st.lists(some(dst=words), max_size=2),
    enable_ipv6=st.booleans(),
)
settings_ = st.sampled_from(
    ("net.core.rmem_max", "net/core/somaxconn", "net.ipv6.conf.IFNAME.accept_ra", "kernel.x")
)
plugins = some(
    type=st.sampled_from(("ipvlan", "macvlan", "bridge", "tuning", "bandwidth", "other")),
    master=words,
    mode=st.sampled_from(("l2", "l3", "l3s", "bridge", "passthru", "")),
    mtu=st.integers(-1, 9000),
    bridge=words,
    vlan=st.integers(-1, 5000),
    capabilities=some(ips=st.booleans(), bandwidth=st.booleans()),
    sysctl=st.dictionaries(words | settings_, words | numbers, max_size=2),
    ingressRate=numbers,
    Master=words,
    ipam=ipams,
)
versions = st.sampled_from(("1.0.0", "1.1.0", "0.3.0", "0.2.0", "", "2"))
heads = some(cniVersion=versions, name=words, plugins=st.lists(plugins, max_size=3))
configs = heads | st.builds(lambda head, main: {**head, **main}, heads, plugins)
texts = configs.map(json.dumps) | junk.map(json.dumps) | st.text(max_size=40)
entries = some(
    name=words,
    namespace=words,
    interface=words | st.just("eth0"),
    mac=words,
    ips=st.lists(words, max_size=2),
    bandwidth=some(ingressRate=numbers),
) | st.fixed_dictionaries({"infiniband-guid": words})
networks = st.lists(entries, max_size=3).map(json.dumps) | texts


@settings(max_examples=EXAMPLES)
@given(
    st.lists(texts, max_size=3),
    st.lists(networks, max_size=2),
    st.none() | st.sampled_from([("a",), ("a", "b")]),
)
def test_the_rules_never_fail(found: list[str], asked: list[str], nodes: tuple[str, ...] | None) -> None:
    definitions = [Definition("ml", f"net{number}", text) for number, text in enumerate(found)]
    definitions += [Definition("ml", "files", "", {"a": text, "b": found[0]}) for text in found[:1]]
    definitions += [
        Definition("", name, text, in_file=True) for text in found[:1] for name in ("a.conf", "a.conflist")
    ]
    requests = [Request(f"Pod {number}", "ml", text) for number, text in enumerate(asked)]
    result = lint(definitions, requests, nodes=nodes, is_complete=lambda _: True)
    assert lint_text(result).replace("\n", "").isprintable()
    assert json.loads(json.dumps(lint_document(result)))
    for one in result.findings:
        assert one.text
        assert one.consequence
        assert one.level == "fault" or not one.blocks
        assert one.level == "warning" or one.changes or one.fix


@settings(max_examples=EXAMPLES)
@given(texts)
def test_a_corrected_attachment_needs_no_other_correction(text: str) -> None:
    for body in lint([Definition("ml", "net", text)]).corrections.values():
        again = lint([Definition("ml", "net", json.dumps(body))])
        assert again.corrections == {}, [one.sentence for one in again.findings]


@settings(max_examples=EXAMPLES)
@given(networks)
def test_a_corrected_annotation_needs_no_other_correction(text: str) -> None:
    for body in lint([], [Request("Pod", "ml", text)]).corrections.values():
        again = lint([], [Request("Pod", "ml", json.dumps(body))])
        assert again.corrections == {}, [one.sentence for one in again.findings]


@settings(max_examples=EXAMPLES)
@given(
    st.binary(max_size=60)
    | texts.map(str.encode)
    | junk.map(lambda value: json.dumps({"spec": value}).encode())
)
def test_files_never_fail(data: bytes) -> None:
    try:
        found = read_documents("FILE", data)
    except YamlError:
        return
    lint_text(lint(found.definitions, found.requests))


# -- 10,000 of a fixed seed ----------------------------------------------------------------------------------------

SEED, COUNT = 15, 10_000
VALID = (
    config(),
    single(),
    config(plugin("macvlan", ipam=HOST_LOCAL, mtu=9000)),
    config(plugin("bridge", ipam={"type": "static"}, capabilities={"ips": True}, vlan=7)),
    config(plugin(mode="l3", ipam=HOST_LOCAL | {"routes": [{"dst": "10.0.0.0/8", "gw": "10.9.0.1"}]})),
    config(
        plugin(
            ipam={
                "type": "whereabouts",
                "range": "10.9.0.0/24",
                "exclude": ["10.9.0.1/32"],
                "gateway": "10.9.0.1",
            }
        )
    ),
    config(plugin(), TUNING | {"mtu": 9000}, {"type": "bandwidth", "ingressRate": 0}),
)
PLAIN = (None, True, False, -1, 0, 7, 1 << 70, 1.5, "1.0.0", "l3", "ens5", "/80", *ADDRESSES, *ODD, *WORDS)


def any_value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random() if depth < 4 else 1.0
    if kind < 0.15:
        return {chance.choice(KEYS): any_value(chance, depth + 1) for _ in range(chance.randrange(4))}
    if kind < 0.3:
        return [any_value(chance, depth + 1) for _ in range(chance.randrange(3))]
    return chance.choice(PLAIN)


def places(body: Any) -> Iterator[tuple[Any, Any]]:
    """Each object or list within, with each of its keys or indices."""
    keys: Any = list(body) if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ()
    for key in keys:
        yield body, key
        yield from places(body[key])


def random_text(chance: random.Random) -> str:
    """A valid configuration with up to four changes; one of twenty is not even JSON."""
    body: Body = json.loads(json.dumps(chance.choice(VALID)))
    for _ in range(chance.randrange(5)):
        holder, key = chance.choice(list(places(body)) or [(body, "type")])
        if chance.random() < 0.2:
            del holder[key]
        elif isinstance(holder, dict) and chance.random() < 0.4:
            holder[chance.choice(KEYS)] = any_value(chance)
        else:
            holder[key] = any_value(chance)
    text = json.dumps(body)
    return text if chance.random() < 0.95 else text[: chance.randrange(len(text))]


def test_ten_thousand_random_attachments() -> None:
    chance = random.Random(SEED)
    faulty = blocked = corrected = 0
    for number in range(COUNT):
        text = random_text(chance)
        asked = [Request("Pod p", "ml", json.dumps([any_value(chance)]))] if number % 4 == 0 else []
        nodes = chance.choice((None, ("a",), ("a", "b")))
        found = lint([Definition("ml", "net", text)], asked, nodes=nodes, is_complete=lambda _: True)
        assert lint_text(found).replace("\n", "").isprintable(), text
        assert json.dumps(lint_document(found)), text
        for one in found.faults:
            assert all((one.text, one.consequence, one.changes or one.fix)), (text, one)
        faulty += bool(found.faults)
        blocked += any(one.blocks for one in found.faults)
        if "ml/net" in found.corrections:
            corrected += 1
            again = lint([Definition("ml", "net", json.dumps(found.corrections["ml/net"]))], nodes=nodes)
            assert again.corrections == {}, text
            assert len(again.faults) == found.remaining.get("ml/net", 0), text
    # It reaches what it should: attachments of each kind.
    assert min(COUNT - faulty, faulty - blocked, blocked, corrected) > COUNT / 50
