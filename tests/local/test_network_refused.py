"""A backend that is not right is refused before any process starts, with the node, the interface and the fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.jobs import Ended, receipt, run, script
from tests.scripts import ran

DEADLINE = 10  # seconds, as documented
ONE, TWO, THREE = (f"fcbb:0:800:ffff::{n}" for n in (1, 2, 3))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A script that leaves a file for each rank that ran."""
    text = """
        import os, sys
        open(os.path.join(os.path.dirname(__file__), "ran-" + os.environ["RANK"]), "w").close()
        print("ran", os.environ["GLOO_SOCKET_IFNAME"], os.environ["MASTER_ADDR"])
    """
    return script(tmp_path, text)


def planted(marker: Path, *faults: str, arguments: tuple[str, ...] = ()) -> Ended:
    flags = [word for fault in faults for word in ("--fault", fault)]
    # Well below the default of 5 minutes, so that a fault that nobody notices fails the test soon.
    return run("--start-timeout", "30", *flags, *arguments, marker, seconds=60)


# Name: (faults, more arguments, what the error says, each as a pattern).
REFUSED: dict[str, tuple[list[str], tuple[str, ...], list[str]]] = {
    "interface missing": (["node-1:net1:no-interface"], (), ["node-1: net1", "no such interface", "fix: .*recreate"]),
    "rank 0's missing": (["node-0:net1:no-interface"], (), ["node-0: net1", "no such interface", "fix: .*recreate"]),
    "address removed": (["node-1:net1:no-address"], (), ["node-1: net1", f"network-status has {TWO}", "fix: "]),
    "rank 0's removed": (["node-0:net1:no-address"], (), ["node-0: net1", f"network-status has {ONE}", "fix: "]),
    "down": (["node-1:net1:down"], (), ["node-1: net1", "it is down", "fix: ip link set net1 up"]),
    "no carrier": (["node-1:net1:no-carrier"], (), ["node-1: net1", "no carrier", "fix: check the parent card"]),
    "rank 0's address twice": (
        [f"node-1:net1:address={ONE}"],
        (),
        # Whoever knows both says so, or the worker that finds rank 0's address to be its own: who is first varies.
        [
            f"(rank 0 and node-1 .*net1.* same address {ONE}|{ONE} belongs to node-0 .*net1.*, node-1 .*net1)",
            "fix: recreate one of them",
        ],
    ),
    "another address twice": (
        [f"node-2:net1:address={TWO}"],
        ("--nnodes", "3"),
        [f"address {TWO} belongs to node-1 .*net1.*, node-2 .*net1", "fix: recreate one of them"],
    ),
    "dadfailed": (
        [f"node-2:net1:address={TWO}", "node-2:net1:duplicate-detection"],
        ("--nnodes", "3"),
        ["node-2: net1", f"duplicate address detection failed for {TWO}", "fix: launch again"],
    ),
    "mtu": (["node-1:net1:mtu=1500"], (), ["net1.*MTU 1500 on node-1, MTU 9000 on node-0", "fix: set the same MTU"]),
    "rank 0's mtu": (["node-0:net1:mtu=1500"], (), ["MTU 1500 on node-0, MTU 9000 on node-1", "fix: set the same"]),
    # A datagram and its answer pass the narrow place both ways, so either end may be the first to say so.
    "narrow path": (
        ["node-2:net1:narrow=1500"],
        ("--nnodes", "3"),
        [
            "node-2 net1 to node-[01] |node-[01] net1 to node-2 ",
            "reached at 1280 bytes, not at the full 9000",
            "fix: raise the MTU of the switch or of the parent card",
        ],
    ),
    "narrow path at rank 0": (
        ["node-0:net1:narrow=1500"],
        ("--nnodes", "3"),
        ["node-0 net1 to node-[12] |node-[12] net1 to node-0 ", "reached at 1280 bytes, not at the full 9000"],
    ),
    "IPv4 beside IPv6": (
        ["node-1:net1:add-address=10.7.0.2/24"],
        (),
        ["node-1: net1", f"IPv4 \\(10.7.0.2/24\\) and IPv6 \\({TWO}/64\\)", "fix: use --family ipv4"],
    ),
    "IPv4 beside IPv6, ipv6 asked for": (
        ["node-1:net1:add-address=10.7.0.2/24"],
        ("--family", "ipv6"),
        ["node-1: net1", f"IPv4 \\(10.7.0.2/24\\) and IPv6 \\({TWO}/64\\)", "fix: use --family ipv4"],
    ),
    "no IPv4 where it is asked for": (
        [f"node-1:net1:address={TWO}/64"],
        ("--family", "ipv4"),
        ["node-1: net1", f"--family ipv4, but it has only {TWO}/64", "fix: use --family auto"],
    ),
    "link-local only": (
        ["node-0:net1:address=fe80::1/64", "node-1:net1:address=fe80::2/64"],
        (),
        ["node-[01]: net1", "only link-local addresses \\(.*fe80::[12]/64", "fix: "],
    ),
    "several global": (
        ["node-1:net1:add-address=fcbb:0:800:ffff::77"],
        (),
        ["node-1: net1", f"several global addresses \\(fcbb:0:800:ffff::77/64, {TWO}/64\\)", "fix: remove all but one"],
    ),
    "mixed families": (
        ["node-1:net1:address=10.7.0.2/24"],
        (),
        [f"node-1 has IPv4 10.7.0.2 on net1, rank 0 has {ONE}", "fix: use addresses of one family"],
    ),
    "mixed families, rank 0 the odd one": (
        ["node-0:net1:address=10.7.0.1/24"],
        (),
        [f"node-1 has IPv6 {TWO} on net1, rank 0 has 10.7.0.1", "fix: use addresses of one family"],
    ),
    "the joining worker's route": (
        ["node-1:net1:wrong-route=node-0"],
        ("--nnodes", "3"),
        [f"node-1 to rank 0 \\({ONE}\\)", "through eth0", "not through net1", f"fix: ip route replace {ONE} dev net1"],
    ),
    "rank 0's route": (
        ["node-0:net1:wrong-route=node-1"],
        ("--nnodes", "3"),
        [f"node-0 to .*\\({TWO}\\)", "through eth0", "not through net1", f"fix: ip route replace {TWO} dev net1"],
    ),
    "a third pair's route": (
        ["node-2:net1:wrong-route=node-1"],
        ("--nnodes", "3"),
        [f"node-2 to node-1 \\({TWO}\\)", "through eth0", "net1", f"fix: ip route replace {TWO} dev net1 src {THREE}"],
    ),
    "the second rail's address": (
        ["node-1:net2:no-address"],
        ("--rails", "2"),
        ["node-1: net2", "network-status has fcbb:0:800:fffe::2", "fix: "],
    ),
    "the second rail's mtu": (
        ["node-1:net2:mtu=8000"],
        ("--rails", "2"),
        ["net2.*MTU 8000 on node-1, MTU 9000 on node-0", "fix: set the same MTU"],
    ),
    "the second rail's route": (
        ["node-1:net2:wrong-route=node-0"],
        ("--rails", "2"),
        ["node-1 to node-0 \\(fcbb:0:800:fffe::1\\)", "through eth0", "fix: ip route replace .* dev net2"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused(case: str, marker: Path) -> None:
    faults, arguments, patterns = REFUSED[case]
    file = marker.parent / "receipt.json"
    ended = planted(marker, *faults, arguments=("--json", str(file), *arguments))
    assert ended.code == 4, ended.stderr
    found = receipt(file)
    said = found["failure"]["text"]
    for pattern in patterns:
        assert re.search(pattern, said), f"no {pattern!r} in {said}"
    for line in said.splitlines():
        assert line.strip() in ended.stderr
    assert "nothing was started; exit code 4" in ended.stderr
    assert (found["failure"]["kind"], found["exit_code"]) == ("network", 4)
    assert ran(marker.parent) == []
    assert ended.stdout == ""
    assert found["duration_s"] < DEADLINE
    assert [rank["exit_code"] for rank in found["ranks"] if rank["exit_code"] is not None] == []


def test_ipv4_alone_on_all_nodes_works_and_says_so(marker: Path) -> None:
    faults = [f"node-{n}:net1:address=10.7.0.{n + 1}/24" for n in range(2)]
    ended = planted(marker, *faults)
    assert ended.code == 0, ended.stderr
    for node in (0, 1):
        said = f"node-{node}: net1 .*no global IPv6 address; using IPv4 \\(10.7.0.{node + 1}\\)"
        assert re.search(said, ended.stderr)
    assert ended.stdout.count("ran net1 10.7.0.1\n") == 2
    assert ran(marker.parent) == ["ran-0", "ran-1"]


def test_duplicate_detection_is_waited_for(marker: Path) -> None:
    ended = planted(marker, "node-1:net1:duplicate-detection")
    assert ended.code == 0, ended.stderr
    assert ran(marker.parent) == ["ran-0", "ran-1"]
    seconds = re.search(r"process, ([0-9.]+) s: ", ended.stderr)
    assert seconds
    assert float(seconds[1]) > 1  # else the kernel did not detect anything, and nothing was shown
