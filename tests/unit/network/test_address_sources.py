"""Address sources: the flag's value, Multus's annotation, the host's interfaces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.errors import NetworkError, StatusError, UsageError
from torchnet.network.address_sources import (
    AddressSource,
    HostInterfaces,
    MultusStatus,
    SourceChoice,
    interface_problem,
    parse_source,
)
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.network_status import StatusEntry, render

PRIMARY = StatusEntry("cilium", "eth0", ("10.244.0.7",), default=True)
NET1 = StatusEntry("default/backend-network", "net1", ("fcbb::1",))
NET2 = StatusEntry("default/backend-network-2", "net2", ("fcbb:1::1",))
VFS = tuple(StatusEntry("gpu/rdma-vf", f"net{i}", (f"fcbb:{i}::1",)) for i in range(1, 17))


def multus(*entries: StatusEntry, attachments: tuple[str, ...] = ()) -> AddressSource:
    text = render((PRIMARY, *entries))
    return MultusStatus(text, text, tuple(map(NetworkAttachment.parse, attachments)))


def test_choices() -> None:
    assert parse_source("multus-status") == SourceChoice("multus-status")
    assert parse_source("host:eth1,eth2") == SourceChoice("host", ("eth1", "eth2"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "unknown"),
        ("multus", "did you mean multus-status?"),
        ("hosts:eth1", "did you mean host:IFNAME?"),
        ("multus-status:x", "unknown"),
        ("host", "unknown"),
        ("host:", "empty"),
        ("host:eth1,,eth2", "empty"),
        ("host:eth1,eth1", "eth1 is given twice"),
        ("host:a/b,averylongname-00", '"a/b" is not a valid interface name'),
        ("host:a/b,averylongname-00", '"averylongname-00" is longer than 15 bytes'),
        ("host:=eth1", "NCCL's notation"),
        ("host:\x1b[31m", "\\x1b[31m"),
    ],
)
def test_wrong_choices_name_the_valid_ones(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert said in caught.value.text
    assert caught.value.text.isprintable()
    assert "multus-status" in caught.value.fix
    assert "host:IFNAME" in caught.value.fix


@given(st.text(st.characters()))
def test_parse_source_is_total(text: str) -> None:
    said = ""
    try:
        parse_source(text)
    except UsageError as error:
        said = error.text
    assert said.isprintable()


@pytest.mark.parametrize("name", ["net1", "eth0.100", "enp1s0f0np0", "bond-1", "ib_0", "averylongname-0"])
def test_interface_names(name: str) -> None:
    assert interface_problem(name) is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a b", "a:1", "a/b", "ä" * 8, "a\n", "\0", "^eth0", "a\u202e"]
)
def test_no_interface_names(name: str) -> None:
    assert interface_problem(name)


def test_every_attachment_but_the_primary_in_order_of_interfaces() -> None:
    net10 = StatusEntry("default/aaa", "net10", ("fcbb:a::1",))
    source = multus(net10, NET2, NET1)
    assert source.attachments() == (NET1, NET2, net10)
    assert source.rank0() == ("fcbb::1", "fcbb:1::1", "fcbb:a::1")


def test_a_primary_network_with_two_interfaces_is_no_rail() -> None:
    assert multus(StatusEntry("cilium", "eth1", ("10.0.0.2",)), NET1).attachments() == (NET1,)


def test_by_name_and_never_by_position() -> None:
    assert multus(NET1, NET2, attachments=(NET2.name, NET1.name)).attachments() == (NET2, NET1)
    assert multus(NET2, NET1, attachments=("backend-network",)).attachments() == (NET1,)


def test_one_attachment_many_times() -> None:
    assert multus(*VFS, attachments=("gpu/rdma-vf",) * 16).attachments() == VFS
    assert multus(*VFS, attachments=("rdma-vf@net3", "gpu/rdma-vf@net2")).attachments() == (VFS[2], VFS[1])
    # A bare name does not take the entry that another one asks for.
    assert multus(*VFS[:2], attachments=("rdma-vf", "rdma-vf@net1")).attachments() == (VFS[1], VFS[0])


def test_missing_attachments_are_all_named_beside_what_is_there() -> None:
    with pytest.raises(NetworkError) as caught:
        multus(NET1, attachments=("a/b", NET1.name, "c")).attachments()
    assert "a/b, c" in caught.value.text
    assert "default/backend-network@net1" in caught.value.text
    with pytest.raises(NetworkError, match="besides the primary network"):
        multus().attachments()
    with pytest.raises(NetworkError, match="no entry for gpu/rdma-vf"):
        multus(*VFS[:1], attachments=("gpu/rdma-vf",) * 2).attachments()


def test_ambiguous_name() -> None:
    other = StatusEntry("prod/backend-network", "net2", ("fcbb:1::1",))
    with pytest.raises(NetworkError) as caught:
        multus(NET1, other, attachments=("backend-network",)).attachments()
    assert "default/backend-network, prod/backend-network" in caught.value.text
    assert "NAMESPACE/NAD" in caught.value.fix


def test_incomplete_entries() -> None:
    with pytest.raises(NetworkError) as caught:
        multus(StatusEntry("a/x", "net1"), StatusEntry("a/y", None, ("::2",)), NET2).attachments()
    assert "a/x@net1 without an address" in caught.value.text
    assert "a/y without an interface" in caught.value.text
    with pytest.raises(NetworkError, match="net1 twice"):
        multus(NET1, StatusEntry("a/x", "net1", ("::2",))).attachments()


def test_hostile_entries() -> None:
    hostile = StatusEntry("a/\x1b[31m\n", "net" + "9" * 10_000, ())
    with pytest.raises(NetworkError) as caught:
        multus(hostile).attachments()
    assert caught.value.text.isprintable()
    assert len(caught.value.text) < 1000


def test_rank0_is_read_anew() -> None:
    texts = [render((PRIMARY, NET1)), "", render((PRIMARY, StatusEntry(NET1.name, "net1", ("fcbb::9",))))]
    source = MultusStatus(None, lambda: texts.pop(0))
    assert source.rank0() == ("fcbb::1",)
    with pytest.raises(StatusError, match=r"rank 0: .*is missing"):
        source.rank0()
    assert source.rank0() == ("fcbb::9",)
    with pytest.raises(NetworkError, match=r"^rank 0: network-status "):
        MultusStatus(None, render((PRIMARY,))).rank0()


def test_rank0_by_family() -> None:
    both = render((StatusEntry("a/b", "net1", ("10.9.0.1", "fcbb::1")),))
    assert MultusStatus(None, both).rank0() == ("fcbb::1",)
    assert MultusStatus(None, both, family="ipv4").rank0() == ("10.9.0.1",)
    with pytest.raises(NetworkError, match="no ipv4 address"):
        MultusStatus(None, render((NET1,)), family="ipv4").rank0()


def test_own_status_is_parsed_when_asked() -> None:
    source = MultusStatus(json.dumps({}), "[]")
    with pytest.raises(StatusError):
        source.attachments()


def test_host_interfaces() -> None:
    source: AddressSource = HostInterfaces("host:eth1,eth2", ("[FCBB::1]", "10.0.0.1"))
    assert source.attachments() == (StatusEntry("host:eth1", "eth1"), StatusEntry("host:eth2", "eth2"))
    assert source.rank0() == ("fcbb::1", "10.0.0.1")
    assert HostInterfaces("host:eth1,eth2", ("fcbb::1",)).rank0() == ("fcbb::1",)
    assert HostInterfaces("host:eth1", ()).rank0() == ()


@pytest.mark.parametrize(
    ("spec", "rank0"),
    [
        ("multus-status", ()),
        ("host:", ()),
        ("host:eth1", ("node-0",)),
        ("host:eth1", ("fcbb::1/64",)),
        ("host:eth1", ("fe80::1",)),
        ("host:eth1", ("fe80::1%eth1",)),
        ("host:eth1", ("fcbb::1", "fcbb::2")),
    ],
)
def test_wrong_host_interfaces(spec: str, rank0: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        HostInterfaces(spec, rank0)
    assert caught.value.fix
