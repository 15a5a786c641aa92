"""The example pods' training, on local nodes with the same two networks: eth0 and net1."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Result
from torchnet.k8s.addons import example_pods

FOLDER = Path(example_pods.__file__).parent / "example_scripts"


def test_it_trains_over_net1_and_says_so(torchnet: Callable[..., Result]) -> None:
    ran = torchnet("launch", "--nnodes", "3", str(FOLDER / "train.py"), env={"OMP_NUM_THREADS": "1"})
    assert ran.code == 0, ran.stderr
    losses = [float(loss) for loss in re.findall(r"step +\d+  loss ([0-9.]+)", ran.stdout)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 5
    assert {int(rank) for rank in re.findall(r"rank (\d): trained over net1", ran.stdout)} == {0, 1, 2}
    # 67.2 MB of gradients, 4/3 of them out and 4/3 in.
    carried = [float(count) for count in re.findall(r"net1 ([0-9.]+) MB", ran.stdout)]
    assert len(carried) == 3
    assert all(2 * 4 / 3 * 67.2 < count < 2 * 4 / 3 * 67.2 * 1.1 for count in carried)


def test_gradients_over_another_interface_are_a_failure(torchnet: Callable[..., Result]) -> None:
    words = ("--nnodes", "2", "--env", "GLOO_SOCKET_IFNAME=eth0", str(FOLDER / "train.py"))
    ran = torchnet("launch", *words, env={"OMP_NUM_THREADS": "1"})
    assert ran.code == 1, ran.stderr
    assert "the gradients (67.2 MB) did not use net1" in ran.stderr
    assert "trained over net1" not in ran.stdout


def test_a_probe_tells_the_networks_apart(torchnet: Callable[..., Result]) -> None:
    probe = ("launch", "--nnodes", "2", str(FOLDER / "net.py"), "probe")
    reached = torchnet(*probe, "fcbb:0:800:ffff::1")
    assert reached.code == 0, reached.stderr
    assert "9000 bytes from fcbb:0:800:ffff::2 reached fcbb:0:800:ffff::1: seq=3" in reached.stdout
    other = torchnet(*probe, "172.30.1.1")
    assert other.code == 1
    assert "does not use net1: its packets have the source address 172.30.1.2" in other.stderr
