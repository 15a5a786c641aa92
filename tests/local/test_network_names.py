"""A name server that never answers costs the start of a training nothing (fault 14)."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.jobs import run, script
from tests.namespaces import isolated
from torchnet.linux import namespaces

pytest.importorskip("torch")

# An address of the nodes' own frontend that nobody has: packets to it leave, and nothing comes back.
SILENT = "172.30.200.200"
SCRIPT = """
    import os, sys, time
    import torch, torch.distributed as dist
    before = time.monotonic()
    dist.init_process_group("gloo")
    dist.all_reduce(torch.ones(1000))
    print("reduced after", time.monotonic() - before, "at", time.monotonic(), flush=True)
    dist.destroy_process_group()
    if sys.argv[1:] == ["ask"] and os.environ["RANK"] == "0":
        import socket
        before = time.monotonic()
        try:
            socket.getnameinfo(("fcbb:0:800:ffff::99", 0), socket.NI_NAMEREQD)
        except socket.gaierror:
            print("asking took", time.monotonic() - before)
"""


@pytest.mark.parametrize("family", ["ipv6", "ipv4"])
def test_reverse_look_ups_do_not_delay_the_start(tmp_path: Path, family: str) -> None:
    _compare(script(tmp_path, SCRIPT), tmp_path / "resolv.conf", family)


@isolated
def _compare(path: Path, resolver: Path, family: str) -> None:
    # Without a way to the internet, whose name server would be another one.
    os.environ["PATH"] = os.path.dirname(sys.executable)
    resolver.write_text("")
    namespaces.mount(str(resolver), os.path.realpath("/etc/resolv.conf"), flags=namespaces.MS_BIND)
    whole, reduced = {}, {}
    for case, text, argument in (
        ("answered", "nameserver 127.0.0.1\n", ""),  # refused at once, which is an answer
        ("silent", f"nameserver {SILENT}\noptions timeout:5 attempts:1\n", "ask"),
    ):
        resolver.write_text(text)
        before = time.monotonic()
        ended = run("--family", family, path, argument)
        assert ended.code == 0, ended.stderr
        ends = re.findall(r"reduced after ([\d.]+) at ([\d.]+)", ended.stdout)
        assert len(ends) == 2
        reduced[case] = max(float(took) for took, _ in ends)
        whole[case] = max(float(at) for _, at in ends) - before
    asked = re.search(r"asking took ([\d.]+)", ended.stdout)
    assert asked
    assert float(asked[1]) > 2.5, "the name server answered, so nothing was shown"
    assert "hostname of the client socket cannot be retrieved" not in ended.stderr
    # Documented as below 1 s; one look-up that is not answered costs 3 to 5, the rest is a busy machine.
    assert reduced["silent"] - reduced["answered"] < 2, reduced
    assert whole["silent"] - whole["answered"] < 3, whole
