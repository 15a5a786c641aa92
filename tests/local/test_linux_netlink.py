"""Netlink requests: the kernel's own words, batches, dumps, events; the door to pyroute2."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from errno import EEXIST, EINVAL, ENETUNREACH, ENODEV
from typing import Any

import pytest

from tests.namespaces import ip, isolated
from torchnet.linux import link_setup, rtnetlink, sock_diag
from torchnet.linux.netlink import HEADER, ROUTE, SOCK_DIAG, Netlink
from torchnet.linux.pyroute2_import import encode

from pyroute2.netlink.diag import inet_diag_msg, inet_diag_req  # isort: skip
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # isort: skip
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # isort: skip


@isolated
def test_an_error_has_the_words_that_ip_prints() -> None:
    ip("link add veth0 type veth peer name veth1")
    index = socket.if_nametoindex("veth0")
    wrong = {
        "link add mac type macvlan mode bridge": link_setup.macvlan(
            "mac", parent=1, namespace=_own(), mac="02:00:00:00:00:01", index=0, mtu=1500
        ),
        "link add veth0 type bridge": link_setup.bridge("veth0", index=0),
        "link set veth0 mtu 70000": link_setup.set_mtu(index, 70_000),
        "link set veth0 master veth1": link_setup.port(index, socket.if_nametoindex("veth1")),
    }
    said = []
    with Netlink() as netlink:
        for command, message in wrong.items():
            if "macvlan" in command:
                command = command.replace("mac type", "link lo mac type")
            with pytest.raises(OSError) as caught:
                netlink.request(message)
            done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
            words = done.stderr.strip().splitlines()[0].removeprefix("Error: ")
            words = words.removeprefix("RTNETLINK answers: ").removesuffix(".")
            assert words == (caught.value.strerror or "").removesuffix("."), command
            said.append("RTNETLINK answers" not in done.stderr)
    assert any(said), "no example for the kernel's own words"


def _own() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@isolated
def test_a_batch_does_all_of_its_part_and_raises_the_first_error() -> None:
    ip("link add veth0 type veth peer name veth1")
    index = socket.if_nametoindex("veth0")
    many = [link_setup.address(index, f"10.1.{n // 200}.{1 + n % 200}", 32) for n in range(300)]
    with Netlink() as netlink:
        netlink.batch(many)
        assert len(rtnetlink.interfaces(netlink)["veth0"].addresses) == 300
        with pytest.raises(OSError) as caught:
            netlink.batch([link_setup.address(index, "10.2.0.1", 32), many[7], link_setup.up(999)])
        assert caught.value.errno == EEXIST
        assert len(rtnetlink.interfaces(netlink)["veth0"].addresses) == 301
        with pytest.raises(OSError) as caught:
            netlink.batch([many[7], link_setup.up(999)], ignore=frozenset({EEXIST}))
        assert caught.value.errno == ENODEV
        netlink.batch([many[7], link_setup.up(999)], ignore=frozenset({EEXIST, ENODEV}))


@isolated
def test_long_dumps_and_errors_do_not_confuse_the_next_answer() -> None:
    for number in range(100):
        ip(f"link add v{number}a type veth peer name v{number}b")
    with Netlink() as netlink:
        assert len(netlink.dump(encode(ifinfmsg(), rtnetlink.GETLINK, 0))) == 201
        assert rtnetlink.route("127.0.0.1", netlink).interface == "lo"
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                rtnetlink.route("198.51.100.1", netlink)
            assert caught.value.errno == ENETUNREACH
        assert len(rtnetlink.interfaces(netlink)) == 201


@isolated
def test_a_dump_that_fails_raises_instead_of_being_short() -> None:
    elsewhere = struct.pack("=HHi", 8, 46, 77)  # IFLA_TARGET_NETNSID: of a namespace that there is not
    request = encode(ifinfmsg(), rtnetlink.GETLINK, 0) + elsewhere
    request = struct.pack("=I", len(request)) + request[4:]
    with Netlink() as netlink:
        with pytest.raises(OSError) as caught:
            netlink.dump(request)
        assert caught.value.errno == EINVAL
        assert set(rtnetlink.interfaces(netlink)) == {"lo"}
    with Netlink(SOCK_DIAG) as netlink:
        wrong = HEADER.pack(HEADER.size + 56, 20, 0, 0, 0) + bytes([99, 6]) + bytes(54)
        with pytest.raises(OSError) as caught:
            netlink.dump(wrong)
        assert caught.value.errno in (EINVAL, 2)


class Recorder(Netlink):
    """Keeps what was asked and answered."""

    def __init__(self, family: int) -> None:
        super().__init__(family)
        self.asked: list[bytes] = []
        self.answers: list[bytes] = []

    def dump(self, message: bytes) -> list[tuple[int, bytes]]:
        self.asked.append(message)
        found = super().dump(message)
        self.answers += [answer for _, answer in found]
        return found


def _decoded(kind: Any, message: bytes) -> Any:
    decoded = kind(message)
    decoded.decode()
    return decoded


@isolated
def test_pyroute2_decodes_the_same_links_and_addresses() -> None:
    """The structures in linux/rtnetlink.py, which are written out by hand, against a second reader's."""
    for command in (
        "link add bridge0 type bridge",
        "link add veth0 type veth peer name veth1",
        "link set veth0 master bridge0 mtu 1400 up",
        "link set veth1 up",
        "link add mac0 link veth1 type macvlan mode bridge",
        "tuntap add tap0 mode tap",
        "addr add 10.9.0.1/24 dev veth1",
        "addr add 10.8.0.1 peer 10.8.0.2/32 dev veth1",
        "addr add fd00::1/64 dev veth1 nodad",
        "addr add fd00::2/64 dev veth1 preferred_lft 0 valid_lft 100",
        "addr add fd00::3/64 dev mac0",
    ):
        ip(command)
    recorder = Recorder(ROUTE)
    found = rtnetlink.links(recorder)
    assert {"lo", "bridge0", "veth0", "veth1", "mac0", "tap0"} <= {link.name for link in found}
    for own, answer in zip(found, recorder.answers, strict=True):
        other = _decoded(ifinfmsg, answer)
        info, stats = other.get_attr("IFLA_LINKINFO"), other.get_attr("IFLA_STATS64")
        fields = other["index"], other["ifi_type"], other["flags"]
        assert (own.index, own.hardware, own.flags) == fields
        assert (own.name, own.mtu) == (other.get_attr("IFLA_IFNAME"), other.get_attr("IFLA_MTU"))
        assert own.kind == ((info.get_attr("IFLA_INFO_KIND") if info else None) or "")
        assert own.below == (other.get_attr("IFLA_LINK") or 0)
        assert own.master == (other.get_attr("IFLA_MASTER") or 0)
        assert own.foreign == (other.get_attr("IFLA_LINK_NETNSID") is not None)
        assert own.stats == tuple(
            stats[name] for name in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")
        )
        if own.hardware == 1:
            assert own.mac == other.get_attr("IFLA_ADDRESS")
    recorder.answers.clear()
    interfaces = rtnetlink.interfaces(recorder)
    messages = [answer for answer in recorder.answers if HEADER.unpack_from(answer)[1] == rtnetlink.NEWADDR]
    others = [_decoded(ifaddrmsg, answer) for answer in messages]
    ours = [(one.index, address) for one in interfaces.values() for address in one.addresses]
    assert sorted((index, address.ip, address.prefix) for index, address in ours) == sorted(
        (one["index"], one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS"), one["prefixlen"])
        for one in others
    )
    flags = {
        one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS"): one.get_attr("IFA_FLAGS") for one in others
    }
    for _, address in ours:
        bits = address.dadfailed * 0x08 | address.deprecated * 0x20 | address.tentative * 0x40
        bits |= address.permanent * 0x80
        assert bits == flags[address.ip] & 0xE8, address
    assert {address.ip for _, address in ours if address.deprecated} == {"fd00::2"}


@isolated
def test_pyroute2_decodes_the_same_sockets() -> None:
    """The struct offsets in linux/sock_diag.py, which are written out by hand, against a second reader's."""
    kept = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        server = socket.create_server((address, 0), family=family)
        client = socket.create_connection(server.getsockname()[:2])
        accepted, _ = server.accept()
        for count in (1000, 30_000):
            client.sendall(bytes(count))
            while count:
                count -= len(accepted.recv(count))
        kept += [server, client, accepted]
    recorder = Recorder(SOCK_DIAG)
    ours = sock_diag.dump(recorder)
    assert len(ours) == len(recorder.answers) == 4
    for own, answer in zip(ours, recorder.answers, strict=True):
        other = inet_diag_msg(answer)
        other.decode()
        info = other.get_attr("INET_DIAG_INFO")
        assert (own.local, own.remote) == (other["idiag_src"], other["idiag_dst"])
        assert (own.local_port, own.remote_port) == (other["idiag_sport"], other["idiag_dport"])
        assert (own.inode, own.cookie, own.state) == (
            other["idiag_inode"],
            other["idiag_cookie"],
            other["idiag_state"],
        )
        assert own.sent_bytes == info["tcpi_bytes_sent"] - info["tcpi_bytes_retrans"]
        assert own.received_bytes == info["tcpi_bytes_received"]
        assert (own.segments_out, own.segments_in) == (info["tcpi_segs_out"], info["tcpi_segs_in"])
        assert (own.unacknowledged, own.backoff) == (info["tcpi_unacked"], info["tcpi_backoff"])
        assert (own.tried_bytes, own.mss) == (info["tcpi_bytes_sent"], info["tcpi_advmss"])
        assert own.data_segments_in == info["tcpi_data_segs_in"]
        raw = sock_diag._info(answer)
        assert sock_diag._sent(raw[:192]) == info["tcpi_bytes_acked"]  # what a kernel before 4.19 gives
    assert sorted({own.sent_bytes for own in ours}) == [0, 31_000]
    for family, asked in zip((socket.AF_INET, socket.AF_INET6), recorder.asked, strict=True):
        request = inet_diag_req()
        request["sdiag_family"], request["sdiag_protocol"] = family, socket.IPPROTO_TCP
        request["idiag_ext"], request["idiag_states"] = 1 << (2 - 1), sock_diag._STATES
        request.encode()
        assert bytes(request.data)[HEADER.size :] == asked[HEADER.size :]
