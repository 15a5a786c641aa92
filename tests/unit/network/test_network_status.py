"""The network-status parser: total, typed, bounded; and the renderer, which is Multus's shape."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torchnet.errors import StatusError
from torchnet.network.network_status import MAX_SIZE, StatusEntry, canonical, parse, render

# As Multus v4.3.0 leaves it on a pod: the primary network's default route has no gateway, Go escapes < and >.
WRITTEN = """[{
    "name": "cilium",
    "interface": "eth0",
    "ips": [
        "10.244.0.7"
    ],
    "mac": "be:3c:0a:7d:5e:01",
    "default": true,
    "dns": {},
    "gateway": [
        "\\u003cnil\\u003e"
    ]
},{
    "name": "default/backend-network",
    "interface": "net1",
    "ips": [
        "fcbb:0:800:ffff::1"
    ],
    "mac": "02:42:ac:11:00:02",
    "dns": {}
}]"""
ENTRIES = (
    StatusEntry("cilium", "eth0", ("10.244.0.7",), "be:3c:0a:7d:5e:01", default=True),
    StatusEntry("default/backend-network", "net1", ("fcbb:0:800:ffff::1",), "02:42:ac:11:00:02"),
)

ADDRESSES = st.ip_addresses().map(lambda ip: canonical(str(ip)) or "")
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
STATUS_ENTRIES = st.builds(
    StatusEntry,
    name=NAMES,
    interface=st.none() | NAMES,
    ips=st.lists(ADDRESSES, max_size=3).map(tuple),
    mac=st.none() | NAMES,
    mtu=st.none() | st.integers(1, 65535),
    default=st.booleans(),
    gateway=st.lists(ADDRESSES, max_size=2).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ["name", "interface", "ips", "mac", "mtu", "default", "gateway", "dns"]
NEARLY = st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(ADDRESSES) | NAMES), max_size=3)


def refused(text: str | bytes | None) -> str:
    with pytest.raises(StatusError) as caught:
        parse(text)
    assert caught.value.fix
    return caught.value.text


def test_renders_what_multus_writes() -> None:
    assert render(ENTRIES) == WRITTEN


def test_reads_what_multus_writes() -> None:
    assert parse(WRITTEN) == ENTRIES
    assert parse(WRITTEN.encode()) == ENTRIES


@given(st.lists(STATUS_ENTRIES, max_size=4).map(tuple))
def test_round_trip(entries: tuple[StatusEntry, ...]) -> None:
    text = render(entries)
    assert parse(text) == entries
    assert parse(text.encode("utf-8")) == entries


def _total(text: str | bytes) -> None:
    said = ""
    try:
        assert all(entry.name for entry in parse(text))
    except StatusError as error:
        said = str(error)
    assert all(line.isprintable() for line in said.split("\n"))
    assert len(said) < 2000


@given(st.text(st.characters()) | st.binary())
@example("[" + "9" * 5000 + "]")
@example('[{"name":"a","mtu":1e999}]')
@example("[NaN]")
@example(b"\xff\xfe[\x00]\x00")
@example('["\\ud800"]')
@example('[{"name":"\x1b[31m","ips":["\x1b[31m"]}]')
def test_total_on_any_text(text: str | bytes) -> None:
    _total(text)


@given(JSON | NEARLY)
def test_total_on_any_json(value: Any) -> None:
    _total(json.dumps(value))


@pytest.mark.parametrize("text", [None, "", b"", "null", b"null", "  \n "])
def test_missing(text: str | bytes | None) -> None:
    assert "is missing or empty" in refused(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "at line 1, column 2"),
        ("[] x", "at line 1, column 4"),
        (b'["\xff"]', "UTF-8 at byte 2"),
        ("[NaN]", "NaN"),
        ("[" + "9" * 21 + "]", "21 digits"),
        ("[1e999]", "out of range"),
    ],
)
def test_no_json(text: str | bytes, said: str) -> None:
    assert said in refused(text)


def test_empty_array_is_no_error() -> None:
    assert parse("[]") == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "must be an array, but is an object (at $)"),
        ("x", 'must be an array, but is "x" (at $)'),
        ([1], "$[0] must be an object, but is 1"),
        ([{}], "$[0].name is missing"),
        ([{"name": 3}], "$[0].name must be a string, but is 3"),
        ([{"name": ["a"]}], "$[0].name must be a string, but is an array"),
        (
            [{"name": "a"}, {"name": "b", "interface": {}}],
            "$[1].interface must be a string, but is an object",
        ),
        ([{"name": "a", "ips": "10.0.0.1"}], '$[0].ips must be an array of addresses, but is "10.0.0.1"'),
        ([{"name": "a", "ips": ["fcbb::1", "x"]}], "$[0].ips[1] must be an IP address without prefix length"),
        (
            [{"name": "a", "ips": ["fcbb::1/64"]}],
            "$[0].ips[0] must be an IP address without prefix length, but",
        ),
        ([{"name": "a", "ips": ["fe80::1%eth0"]}], "$[0].ips[0]"),
        ([{"name": "a", "gateway": [1]}], "$[0].gateway[0]"),
        ([{"name": "a", "mac": True}], "$[0].mac must be a string, but is true"),
        ([{"name": "a", "mtu": "9000"}], '$[0].mtu must be a number of bytes, but is "9000"'),
        ([{"name": "a", "mtu": True}], "$[0].mtu must be a number of bytes, but is true"),
        ([{"name": "a", "mtu": False}], "$[0].mtu must be a number of bytes, but is false"),
        ([{"name": "a", "mtu": -1}], "$[0].mtu must be a number of bytes, but is -1"),
        ([{"name": "a", "default": "yes"}], '$[0].default must be true or false, but is "yes"'),
    ],
)
def test_wrong_types_with_their_path(value: Any, said: str) -> None:
    assert said in refused(json.dumps(value))


def test_all_wrong_fields_at_once_but_not_without_end() -> None:
    text = refused(json.dumps([{"name": 1, "mtu": "x"}, {"interface": 2, "name": "b"}]))
    assert all(path in text for path in ("$[0].name", "$[0].mtu", "$[1].interface"))
    assert refused(json.dumps([{}] * 1000)).count("is missing") == 5


def test_what_may_be_absent() -> None:
    nothing = dict.fromkeys(["interface", "ips", "mac", "mtu", "default", "gateway", "dns"])
    assert parse(json.dumps([{"name": "a"}, {"name": "b", **nothing}])) == (
        StatusEntry("a"),
        StatusEntry("b"),
    )
    assert parse('[{"name":"a","interface":"","mac":"","mtu":0,"other":[[1]]}]') == (StatusEntry("a"),)


def test_nil_is_dropped_and_addresses_are_canonical() -> None:
    text = '[{"name":"a","ips":["FCBB:0:0800::0001","<nil>"],"gateway":["<nil>","10.0.0.1",""]}]'
    assert parse(text) == (StatusEntry("a", ips=("fcbb:0:800::1",), gateway=("10.0.0.1",)),)


@pytest.mark.parametrize(
    "hostile",
    ["a\nb: c", "key: {}", "\x1b[31m\x1b]0;x\x07", "$(touch /tmp/x)", "\u202eabc", "\ud800", "-rf", "../x"],
)
def test_hostile_strings_are_data(hostile: str) -> None:
    entry = StatusEntry(hostile, hostile, mac=hostile)
    assert parse(json.dumps([{"name": hostile, "interface": hostile, "mac": hostile}])) == (entry,)
    assert parse(render([entry]).encode("utf-8")) == (entry,)


def test_hostile_strings_in_errors_are_escaped() -> None:
    text = refused(json.dumps([{"name": "a", "ips": ["\x1b[31m\n\u202e" + "x" * 10_000]}]))
    assert text.isprintable()
    assert "\\x1b[31m\\x0a\\u202e" in text
    assert len(text) < 500


BIG = 5_000_000
DEEP = 10_000
COSTLY = {
    "5 MB": '[{"name":"' + "a" * BIG + '"}]',
    "5 MB of brackets": "[" * BIG,
    "5 MB of blanks": " " * BIG,
    "10,000 arrays": "[" * DEEP + "]" * DEEP,
    "10,000 objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "1 MB of objects": "[" + "{}," * (MAX_SIZE // 3 - 1) + "{}]",
    "1 MB of objects with a field": "[" + '{"":0},' * (MAX_SIZE // 7 - 1) + "0]",
    "1 MB of arrays": "[" + "[]," * (MAX_SIZE // 3 - 1) + "0]",
    "1 MB of quotes": '"' * MAX_SIZE,
    "1 MB of escapes": '["' + "\\\\" * (MAX_SIZE // 2 - 4) + '"]',
    "1 MB of digits": "[" + "9" * (MAX_SIZE - 2) + "]",
    "1 MB of decimals": "[0." + "9" * (MAX_SIZE - 4) + "]",
}


@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY.keys())
def test_memory_is_bounded(text: str) -> None:
    tracemalloc.start()
    try:
        refused(text)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_limits_are_exact() -> None:
    # The name fills the annotation up to the limit, and one more is refused.
    frame = '[{"name":""}]'
    name = "x" * (MAX_SIZE - len(frame))
    assert parse(f'[{{"name":"{name}"}}]') == (StatusEntry(name),)
    assert "1,048,576" in refused(f'[{{"name":"{name}y"}}]')
    nested = '[{"name":"a","device-info":' + "[" * 30 + "]" * 30 + "}]"
    assert parse(nested) == (StatusEntry("a"),)
    assert "nested deeper than 32 levels" in refused(nested.replace("[[", "[[[", 1).replace("]]", "]]]", 1))


@pytest.mark.parametrize("name", ["[" * 100, '\\"' + "{" * 100, "\\\\", '\\\\\\"[' * 50])
def test_brackets_in_strings_are_no_levels(name: str) -> None:
    text = f'[{{"name":"{name}"}}]'
    assert parse(text)[0].name == json.loads(text)[0]["name"]


def test_depth_after_an_escaped_quote_counts() -> None:
    assert "nested deeper" in refused('["\\\\",' + "[" * 100)


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("FCBB:0:0800:FFFF::1", "fcbb:0:800:ffff::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("[::1]", None),
        ("::1/64", None),
        ("fe80::1%eth0", None),
        ("10.0.0.01", None),
        ("host", None),
        ("", None),
        ("::1\n", None),
        ("::1\0", None),
        ("\ud800:", None),
    ],
)
def test_canonical(text: str, spelling: str | None) -> None:
    assert canonical(text) == spelling
