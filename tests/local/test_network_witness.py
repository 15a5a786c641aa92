"""What is no TCP shows in the second witness alone, and is a finding (real UDP over net1)."""

from __future__ import annotations

import re
from pathlib import Path

from tests.jobs import receipt, run, script

SCRIPT = """
    import os, socket, sys, time
    count, size = int(sys.argv[1]), 8000
    rank = int(os.environ["RANK"])
    own, other = (f"fcbb:0:800:ffff::{n}" for n in (rank + 1, 2 - rank))
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind((own, 7000))
    # Each datagram is answered by a short one, so that none is lost.
    if rank == 0:
        sock.settimeout(30)
        for _ in range(count):
            _, sender = sock.recvfrom(size)
            sock.sendto(b"x", sender)
    else:
        sock.connect((other, 7000))
        sock.settimeout(1)
        for _ in range(count):
            for _ in range(100):
                try:
                    sock.send(bytes(size))
                    sock.recv(100)
                    break
                except (ConnectionRefusedError, TimeoutError):  # the other one is not there yet
                    time.sleep(0.02)
"""


def test_five_megabytes_of_udp_are_found(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    ended = run("--json", file, script(tmp_path, SCRIPT), "625")
    assert ended.code == 0, ended.stderr
    found = receipt(file)["findings"]
    assert len(found) == 2, found
    for text, node in zip(found, ("node-0", "node-1"), strict=True):
        assert re.match(rf"{node}: up to 5\.[01]\d+ MB of UDP on net1", text)
        assert text in ended.stderr
    # No peer's connection carried anything, so all of it may have been with others. Whether there is a lower bound of 0
    # or none depends on what the kernel itself sent over eth0 meanwhile.
    assert receipt(file)["backend_share"] in (None, 0)
    assert receipt(file)["backend_share_high"] in (None, 1)
    assert receipt(file)["proof"] != "measured"


def test_a_little_udp_is_no_finding(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    ended = run("--json", file, script(tmp_path, SCRIPT), "8")
    assert ended.code == 0, ended.stderr
    assert receipt(file)["findings"] == []
