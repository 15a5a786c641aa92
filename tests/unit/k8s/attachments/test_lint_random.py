"""Random attachments and annotations: the rules never fail, and what they correct has nothing left to correct."""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.cli.network_output import lint_document, lint_text
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.lint import lint
from torchnet.k8s.attachments.lint_documents import read_documents
from torchnet.k8s.attachments.request_rules import Request
from torchnet.yaml_io import YamlError

# 10,000 examples took 100 s; the same tests run in CI with few.
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
