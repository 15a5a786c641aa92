"""The script of torchnet verify's test pods, on local nodes with the same two networks: eth0 and net1."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.agents import in_nodes
from torchnet.config.fault_syntax import parse
from torchnet.k8s.verify.pod_report import PodReport, read_report
from torchnet.k8s.verify.pods import plan, scripts
from torchnet.k8s.verify.schedule import rounds
from torchnet.local.topology import SandboxShape

PORT = "29499"
MBIT = 1_000_000


def address(node: int) -> dict[str, str]:
    return {"net1": f"fcbb:0:800:ffff::{node + 1}"}


def plans(count: int, *, bandwidth: bool = True) -> list[dict[str, Any]]:
    """Each node's, as the launcher makes them; less patient, because all begin at the same time."""
    steps: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for one, other in (pair for pairs in rounds(count) for pair in pairs):
        steps[one].append({"partner": f"pod-{other}", "addresses": address(other)})
        steps[other].append({"partner": f"pod-{one}"})
    return [plan(own, 1, bandwidth=bandwidth) | {"step_s": 6, "skew_s": 2} for own in steps]


def probed(
    folder: Path,
    plans: Sequence[dict[str, Any] | None],
    shape: SandboxShape,
    *,
    patience: int = 4,
    rails: Sequence[str] = ("net1",),
) -> list[PodReport]:
    """What the last line of each pod says; one without a plan serves until all others have ended."""
    data = scripts("v", "ml")["data"]
    data["probe.py"] = data["probe.py"].replace("\nPATIENCE = 20 ", f"\nPATIENCE = {patience} ")
    data["net.py"] = data["net.py"].replace("\nLINK_PATIENCE = 20 ", f"\nLINK_PATIENCE = {patience} ")
    for name, text in data.items():
        (folder / name).write_text(text)

    def node(number: int) -> int:
        own = plans[number]
        if own is not None:
            (folder / f"plan-{number}").write_text(json.dumps(own))
        variables = {
            "PLAN": str(folder / f"plan-{number}"),
            "TERMINATION": str(folder / f"message-{number}"),
        }
        words = [sys.executable, str(folder / "probe.py"), "v", f"pod-{number}", PORT, *rails]
        with (folder / f"log-{number}").open("w") as log:
            process = subprocess.Popen(words, env=os.environ | variables, stdout=log, stderr=log)
            if own is not None:
                process.wait(90)
                (folder / f"over-{number}").touch()
                return 0
            others = [folder / f"over-{one}" for one, other in enumerate(plans) if other is not None]
            while not all(path.exists() for path in others) and process.poll() is None:
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    pass
            process.kill()
            process.wait()
        return 0

    roles = [lambda number=number: node(number) for number in range(len(plans))]
    assert in_nodes(roles, shape, seconds=100) == [0] * len(plans)
    found = []
    for number in range(len(plans)):
        lines = (folder / f"log-{number}").read_text().splitlines()
        said = [line for line in lines if line.startswith("{")]
        assert said, lines
        assert (folder / f"message-{number}").read_text() == said[-1]
        found.append(read_report(json.loads(said[-1])))
    return found


def test_the_first_pod_serves_and_the_second_asks(tmp_path: Path) -> None:
    """As with two pods, without bandwidth."""
    steps = plan([{"partner": "pod-0", "addresses": address(0)}], 1, bandwidth=False)
    first, second = probed(tmp_path, [None, steps], SandboxShape())
    assert first.interfaces == second.interfaces == ("eth0", "lo", "net1")
    assert first.addresses == {"net1": (address(0)["net1"],)}
    assert first.mtus == {"net1": 9000}
    (result,) = second.results
    assert (result.partner, result.rail, result.size, result.reached) == ("pod-0", "net1", 9000, True)
    assert (result.there, result.back, result.bandwidth_problem) == (None, None, "")


@pytest.mark.quiet
@pytest.mark.waits
def test_each_pair_tests_its_path_once_and_measures_both_directions(tmp_path: Path) -> None:
    """Five nodes whose lines carry 200 Mbit/s in each direction, and one whose line sends less."""
    shape = SandboxShape(rate=200 * MBIT, faults=(parse("node-3:net1:rate-out=50mbit"),))
    reports = probed(tmp_path, plans(5), shape)
    tested = [
        (node, int(one.partner.removeprefix("pod-")))
        for node, said in enumerate(reports)
        for one in said.results
    ]
    assert sorted(tested) == sorted(pair for pairs in rounds(5) for pair in pairs)
    slow: list[float] = []
    usual: list[float] = []
    for node, said in enumerate(reports):
        for one in said.results:
            assert one.reached, one
            assert one.there is not None, one
            assert one.back is not None, one
            other = int(one.partner.removeprefix("pod-"))
            for source, rate in ((node, one.there), (other, one.back)):
                (slow if source == 3 else usual).append(8 * rate / MBIT)
    print(f"{sorted(map(round, slow))} Mbit/s from the slow one, {sorted(map(round, usual))} from the others")
    assert 30 < statistics.median(slow) < 60
    # Two pairs at the same time would have half of a line.
    assert min(usual) > 140
    assert max(usual) < 240


def test_a_partner_that_cannot_be_reached_delays_nobody_for_ever(tmp_path: Path) -> None:
    """Its packets are lost in both directions, although it has carrier."""
    shape = SandboxShape(faults=(parse("node-1:net1:lossy"),))
    reports = probed(tmp_path, plans(4), shape)
    for node, said in enumerate(reports):
        for one in said.results:
            faulty = 1 in (node, int(one.partner.removeprefix("pod-")))
            assert one.reached is not faulty, one
            if faulty:
                assert one.problem == "no response to packets of 9000 bytes"
            else:
                assert one.there, one


def test_packets_of_full_size_do_not_pass_a_narrow_path(tmp_path: Path) -> None:
    shape = SandboxShape(faults=(parse("node-0:net1:narrow=1500"),))
    steps = plan([{"partner": "pod-0", "addresses": address(0)}], 1, bandwidth=True)
    _, second = probed(tmp_path, [None, steps], shape)
    (result,) = second.results
    assert (result.reached, result.size, result.there) == (False, 9000, None)


def test_a_link_without_carrier_is_reported_at_once(tmp_path: Path) -> None:
    shape = SandboxShape(faults=(parse("node-0:net1:no-carrier"),))
    first, _ = probed(tmp_path, [plans(2)[0], plans(2)[1] | {"steps": []}], shape)
    assert "no carrier" in first.blocked
    assert first.results == ()
