"""Look-ups of the peers' addresses: which are made, and that one that hangs is not waited for."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from torchnet.agent import name_lookup
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable


def test_the_peers_own_addresses_are_asked_for_as_the_store_does() -> None:
    rows = [
        PeerRow(rank, f"host-{rank}", f"u{rank}", (PeerRail("eth1", address, 9000),), ())
        for rank, address in enumerate(("10.7.0.1", "fd00::2"))
    ]
    assert name_lookup.asked(PeerTable(tuple(rows))) == ["::ffff:10.7.0.1", "fd00::2"]


def test_a_look_up_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(address: tuple[str, int], _: int) -> tuple[str, str]:
        if address[0] != "fd00::1":
            time.sleep(30)
        return address[0], "0"

    monkeypatch.setattr(socket, "getnameinfo", slow)
    began = time.monotonic()
    assert not name_lookup.are_fast(["fd00::1", "fd00::2"], 0.1)
    assert time.monotonic() - began < 10
    assert name_lookup.are_fast(["fd00::1"], 30.0)


def test_another_part_of_the_agent_may_have_waited_for_the_child() -> None:
    before = signal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, os.WNOHANG))
    try:
        assert name_lookup.are_fast(["127.0.0.1"], 30.0)
    finally:
        signal.signal(signal.SIGCHLD, before)
