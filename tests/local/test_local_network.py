"""The local networks, seen from inside of their nodes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from errno import EMSGSIZE, ENETUNREACH
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from tests.agents import in_nodes, wait
from tests.jobs import receipt, run, script
from torchnet.config.fault_syntax import parse
from torchnet.linux import rtnetlink
from torchnet.local import topology
from torchnet.local.topology import SandboxShape
from torchnet.network.interface_selection import Interface


def usable(interface: Interface) -> list[str]:
    return [f"{one.ip}/{one.prefix}" for one in interface.addresses if one.scope == "global"]


def look(rails: int) -> dict[str, Any]:
    """What a process in a node sees."""
    status = Path("/proc/self/status").read_text()
    words = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
    routes = [subprocess.check_output(["ip", *family, "route"], text=True) for family in (["-4"], ["-6"])]
    try:
        out = rtnetlink.route("192.0.2.1").interface
    except OSError as error:
        out = str(error.errno)
    return {
        "host": socket.gethostname(),
        "own": socket.gethostbyname(socket.gethostname()),
        "uid": os.getuid(),
        "pid": os.getpid(),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "cards": sorted(os.listdir("/sys/class/net")),
        "interfaces": {
            name: [one.mac, one.mtu, one.up and one.carrier, *usable(one)]
            for name, one in rtnetlink.interfaces().items()
        },
        "routes": sorted(" ".join(line.split()[:3]) for text in routes for line in text.splitlines()),
        "out": out,
        "capabilities": [words[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs")],
        "shm": sorted(os.listdir("/dev/shm")),
        "ways": [rtnetlink.route(f"fcbb:0:800:{0xFFFF - rail:x}::2").interface for rail in range(rails)],
    }


def test_a_node_has_its_own_of_everything_and_a_second_network(tmp_path: Path) -> None:
    (leftover := Path("/dev/shm/of-the-machine")).touch()
    try:

        def role(rank: int) -> int:
            (tmp_path / str(rank)).write_text(json.dumps(look(2)))
            return 0

        assert in_nodes([lambda: role(0), lambda: role(1)], rails=2) == [0, 0]
    finally:
        leftover.unlink()
    for rank in (0, 1):
        seen = json.loads((tmp_path / str(rank)).read_text())
        assert (seen["host"], seen["own"]) == (f"node-{rank}", f"172.30.1.{rank + 1}")
        assert (seen["pid"], seen["uid"]) == (1, os.getuid())
        assert seen["processes"][0] == 1
        assert len(seen["processes"]) <= 2  # itself, and the `ip` that has just ended
        # Some modules add a tunnel device to each namespace.
        tunnels = {"tunl0", "sit0", "ip6tnl0", "gre0", "ip6gre0", "ip_vti0", "ip6_vti0", "erspan0", "gretap0"}
        assert set(seen["cards"]) - tunnels == {"eth0", "lo", "net1", "net2"}
        assert seen["interfaces"]["eth0"][1:] == [1500, True, f"172.30.1.{rank + 1}/16"]
        for rail, prefix in enumerate(("fcbb:0:800:ffff", "fcbb:0:800:fffe")):
            mac, address = f"02:fc:bb:0{rail}:00:0{rank}", f"{prefix}::{rank + 1}/64"
            assert seen["interfaces"][f"net{rail + 1}"] == [mac, 9000, True, address]
        assert seen["routes"] == sorted(
            ["172.30.0.0/16 dev eth0", "fcbb:0:800:fffe::/64 dev net2", "fcbb:0:800:ffff::/64 dev net1"]
            + [f"fe80::/64 dev {name}" for name in ("eth0", "net1", "net2")]
        )
        assert seen["out"] == str(ENETUNREACH)
        # Of root's: only the rights over files.
        rights = f"{0b11111 if os.getuid() == 0 else 0:016x}"
        assert seen["capabilities"] == [*[rights] * 3, "0" * 16, "1"]
        assert seen["shm"] == []
        if rank == 0:
            assert seen["ways"] == ["net1", "net2"]


@pytest.mark.parametrize("mtu", [1280, 1500, 4000, 9000])
def test_the_mtu_is_what_was_asked_for(mtu: int, tmp_path: Path) -> None:
    peer = "fcbb:0:800:ffff::2"

    def sender() -> int:
        wait((tmp_path / "listens").exists)
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, 62, 1)  # IPV6_DONTFRAG
        sock.sendto(bytes(mtu - 48), (peer, 7000))
        try:
            sock.sendto(bytes(mtu - 47), (peer, 7000))
        except OSError as error:
            return 0 if error.errno == EMSGSIZE else 1
        return 2

    def receiver() -> int:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind((peer, 7000))
        sock.settimeout(20)
        (tmp_path / "listens").touch()
        return 0 if len(sock.recv(10_000)) == mtu - 48 else 1

    assert in_nodes([sender, receiver], SandboxShape(mtu=mtu)) == [0, 0]


def overflows() -> int:
    """How often the kernel's IPv6 neighbour table, one for all namespaces, was full."""
    lines = [line.split() for line in Path("/proc/net/stat/ndisc_cache").read_text().splitlines()]
    column = lines[0].index("table_fulls")
    return sum(int(line[column], 16) for line in lines[1:])


@pytest.mark.quiet
def test_64_nodes_are_preflighted_in_all_pairs(tmp_path: Path) -> None:
    before = overflows()
    file = tmp_path / "receipt.json"
    path = script(tmp_path, "import os; print(os.uname().nodename)")
    # 64 agents on a busy machine: no answer for a while is no fault here.
    ended = run("--nnodes", "64", "--link-grace", "30", "--json", file, path, seconds=200)
    assert ended.code == 0, ended.stderr
    assert "preflight: 4032/4032 paths at 9000 bytes" in ended.stderr
    names = re.findall(r"^\[rank \d+\] +(node-\d+)$", ended.stdout, re.MULTILINE)
    assert sorted(names) == sorted(f"node-{n}" for n in range(64))
    assert overflows() == before
    assert len(receipt(file)["nodes"]) == 64
    assert receipt(file)["findings"] == []


def test_a_port_without_a_carrier_may_lose_packets_too() -> None:
    """Either fault alone would do: nothing goes through, and the network can be built."""

    def node() -> int:
        return int(rtnetlink.interfaces()["net1"].carrier)

    faults = tuple(map(parse, ("node-0:net1:lossy", "node-0:net1:no-carrier")))
    assert in_nodes([node], SandboxShape(faults=faults)) == [0]


@pytest.mark.parametrize("ipv4", [False, True])
def test_addresses_are_unique_up_to_the_largest_job(ipv4: bool) -> None:
    nodes = [topology.node(rank, 8, ipv4=ipv4) for rank in range(10_000)]
    for what in ("address", "mac"):
        assert len({getattr(port, what) for node in nodes for port in node.ports()}) == 90_000
    networks = {
        rail: {ip_interface(f"{port.address}/{port.prefix}").network for port in ports}
        for rail, ports in enumerate(zip(*(node.backend for node in nodes), strict=True))
    }
    assert [len(found) for found in networks.values()] == [1] * 8
    assert len(set.union(*networks.values())) == 8
    assert len({node.name for node in nodes}) == 10_000
