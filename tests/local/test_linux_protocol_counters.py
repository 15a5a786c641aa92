"""The namespace's counters of protocols, by a known number of datagrams."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.namespaces import ip, isolated
from torchnet.linux import protocol_counters


@isolated
def test_datagrams_and_fragments_are_counted_in_both_families() -> None:
    ip("link set lo up mtu 1500")
    before = protocol_counters.read()
    assert before is not None
    for address in ("127.0.0.1", "::1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with (
            socket.socket(family, socket.SOCK_DGRAM) as target,
            socket.socket(family, socket.SOCK_DGRAM) as source,
        ):
            target.bind((address, 0))
            for size in (100, 4_000):  # the second takes three packets
                source.sendto(bytes(size), target.getsockname()[:2])
                assert len(target.recv(10_000)) == size
    now = protocol_counters.read()
    assert now is not None
    since = now.since(before)
    assert (since.datagrams_sent, since.datagrams_received) == (4, 4)
    assert since.other_packets_sent >= 6
    assert since.other_packets_received >= 6
    assert since.mptcp_connections == 0


def test_what_is_no_proc_has_no_counters(tmp_path: Path) -> None:
    assert protocol_counters.read(str(tmp_path)) is None
    for text in ("", "Udp: InDatagrams\n", "Udp: InDatagrams\nUdp: x\n", "Tcp: InSegs\nTcp: 1\n"):
        (tmp_path / "snmp").write_text(text)
        (tmp_path / "netstat").write_text("")
        assert protocol_counters.read(str(tmp_path)) is None
