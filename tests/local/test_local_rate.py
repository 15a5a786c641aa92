"""A rate is what a plain TCP connection between two nodes gets."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from tests.agents import in_nodes, wait
from torchnet.local.topology import SandboxShape

pytestmark = [pytest.mark.quiet, pytest.mark.waits]

GBIT = 1_000_000_000


def test_a_rate_is_what_the_line_carries(tmp_path: Path) -> None:
    """1 Gbit/s, in either direction; with others on the machine, the best of a few tries."""
    # An Ethernet frame of 9,014 bytes carries 8,928 of payload: IPv6, TCP and its timestamps take the rest.
    line = GBIT / 8 * 8928 / 9014

    def node(rank: int) -> int:
        own, other = f"fcbb:0:800:ffff::{rank + 1}", f"fcbb:0:800:ffff::{2 - rank}"
        for turn in range(6):
            if turn % 2 == rank:
                with socket.create_server((own, 7000 + turn), family=socket.AF_INET6) as server:
                    (tmp_path / f"listens-{turn}").touch()
                    connection, _ = server.accept()
                    told = tmp_path / f"told-{turn}"
                    told.write_text(str(rate(connection)))
                    told.rename(tmp_path / f"rate-{turn}")  # whole, where the other looks for it
            else:
                wait((tmp_path / f"listens-{turn}").exists)
                sender = socket.create_connection((other, 7000 + turn))
                with contextlib.suppress(ConnectionError):
                    while True:
                        sender.sendall(bytes(1 << 18))
                sender.close()
            done = (tmp_path / f"rate-{turn}", tmp_path / f"rate-{turn - 1}")
            wait(done[0].exists)
            if turn % 2 and all(near(float(path.read_text())) for path in done):
                return 0
        return 0

    def rate(connection: socket.socket) -> float:
        """Bytes a second that arrive within 2 seconds, after the connection has found its speed."""
        buffer = bytearray(1 << 20)
        begin = time.monotonic() + 0.5
        while time.monotonic() < begin:
            connection.recv_into(buffer)
        began, count = time.monotonic(), 0
        while time.monotonic() < began + 2:
            count += connection.recv_into(buffer)
        taken = time.monotonic() - began
        connection.close()
        return count / taken

    def near(value: float) -> bool:
        return abs(value / line - 1) < 0.05

    assert in_nodes([lambda: node(0), lambda: node(1)], SandboxShape(rate=GBIT)) == [0, 0]
    rates = {int(path.name[5:]): float(path.read_text()) for path in tmp_path.glob("rate-*")}
    assert all(value < 1.05 * line for value in rates.values()), rates
    assert any(near(value) for turn, value in rates.items() if turn % 2 == 0), rates
    assert any(near(value) for turn, value in rates.items() if turn % 2 == 1), rates
