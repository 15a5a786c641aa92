"""Networks with one fault planted, each of which is found, and nothing else; and a healthy one, twice.

test_bench_diff.py has three more runs on healthy networks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import TORCHNET, Job
from torchnet.bench.results import Results, load
from torchnet.bench.summary import NO_FINDINGS

pytestmark = pytest.mark.quiet

SHORT = ("-b", "1M", "-e", "8M", "-f", "8", "--seconds", "0.5", "--tcp-seconds", "0.5", "--rate", "1gbit")


def bench(folder: Path, *words: str, tries: int = 1) -> Results:
    """``tries``: so often again where the network was refused before the start."""
    path = folder / "r.json"
    for _ in range(tries):
        with Job(*SHORT, *words, "--json", path, command=(*TORCHNET, "bench")) as job:
            ended = job.finish()
        if ended.code != 4:
            break
    found = load(path.read_text())
    assert found.complete, ended.stderr
    for one in found.findings:
        assert one.text in ended.stdout.replace("\n    ", " "), "people see what programs see"
        assert one.fix
    assert (NO_FINDINGS in ended.stdout) == (not found.findings)
    return found


def test_a_healthy_network_gives_no_finding(tmp_path: Path) -> None:
    for _ in range(2):
        found = bench(tmp_path)
        assert [(one.kind, one.text) for one in found.findings] == []
        largest = found.collectives[-1]
        assert largest.wrong == 0
        assert largest.ceiling_share is not None


@pytest.mark.parametrize(
    ("words", "kind", "where"),
    [
        (("--nnodes", "3", "--fault", "node-1:net1:rate=100mbit"), "slow-node", "node-1"),
        (("--fault", "node-1:net1:rate-out=100mbit"), "asymmetry", "node-1"),
        (("--fault", "node-1:net1:rate=100mbit"), "slow-pair", "node-1"),
        # After the preflight, which would refuse it; and once before, once after the ranks look at it first.
        (("--fault", "node-1:net1:mtu=1500@1"), "mtu", "node-1"),
        (("--fault", "node-1:net1:mtu=1500@4"), "mtu", "node-1"),
        (("--fault", "node-1:net1:loss=1"), "loss", "node-1"),
        (("--env", "GLOO_SOCKET_IFNAME=eth0"), "wrong-interface", "eth0"),
        (("--nnodes", "3", "--rails", "2", "--fault", "node-1:net2:rate=100mbit"), "slow-node", "net2: node-1"),
    ],
    ids=["a node's rate a tenth", "one direction shaped", "a pair", "MTU 1500 on one", "the same later", "packets lost",
         "over eth0", "another rail"],
)  # fmt: skip
def test_a_planted_fault_gives_its_finding_and_no_other(
    tmp_path: Path, words: tuple[str, ...], kind: str, where: str
) -> None:
    # On a busy machine the preflight may still be at work when a fault with a time comes, and refuses it.
    found = bench(tmp_path, *words, tries=2 if "@" in words[-1] else 1)
    assert [one.kind for one in found.findings] == [kind], found.findings
    assert where in found.findings[0].text


def test_two_healthy_rails_are_measured_and_compared(tmp_path: Path) -> None:
    found = bench(tmp_path, "--rails", "2", "--compare", "net2")
    assert [(one.kind, one.text) for one in found.findings] == []
    assert {line.network: line.known for line in found.lines} == {"net1": "shaped", "net2": "shaped"}
    assert {row.network for row in found.tcp} == {"net1", "net2"}
    for row in found.collectives:
        assert set(row.sockets_bytes or {}) == {row.network}


@pytest.mark.parametrize(
    ("fault", "words"),
    [("mtu=1500", "1500"), ("wrong-route=node-0", "eth0")],
    ids=["MTU", "routed over eth0"],
)
def test_what_the_preflight_refuses_is_the_finding(tmp_path: Path, fault: str, words: str) -> None:
    """Nothing is measured on a network that no training would start on."""
    path = tmp_path / "r.json"
    with Job(*SHORT, "--fault", f"node-1:net1:{fault}", "--json", path, command=(*TORCHNET, "bench")) as job:
        ended = job.finish()
    found = load(path.read_text())
    assert (ended.code, found.exit_code, found.complete) == (4, 4, False)
    assert [one.kind for one in found.findings] == ["network"]
    assert words in found.findings[0].text
    assert found.collectives == ()
