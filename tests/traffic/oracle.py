"""Runs a plan as a job, and judges the receipt's byte share by what the processes recorded.

The unit is that of the receipt: payload bytes (of TCP streams and UDP datagrams, without headers and
retransmissions) between workers, counted where they are sent and again where they are received. What stays within a
node and what goes to other hosts does not count. torchnet's own connections are in neither figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests import needs
from tests.jobs import ROOT, SLOW, TORCHNET, Job, parent, receipt, until
from tests.traffic.plan import OUTSIDER, Plan

SCRIPT = Path(__file__).with_name("flows.py")
# The kernel counts the end of each TCP stream as a byte at its receiver, sometimes, and may not know at the end
# that the last answer has arrived: two bytes in each direction.
_BYTES_PER_CONNECTION = 4
_ROUNDING = 1e-6  # of the receipt's share
# What an interface counts beside the payload: headers of each packet, what is sent again, torchnet's own messages.
_HEADER_BYTES, _RESENT, _OWN_BYTES = 140, 0.02, 200_000


@dataclass(frozen=True)
class Truth:
    """Payload bytes between workers by the processes' records; a range where datagrams were lost on the way."""

    rails: tuple[int, int]
    off_rails: tuple[int, int]
    tolerance: float

    @property
    def low(self) -> float | None:
        return _share(self.rails[0], self.off_rails[1])

    @property
    def high(self) -> float | None:
        return _share(self.rails[1], self.off_rails[0])


@dataclass(frozen=True)
class Outcome:
    """A job's receipt beside the truth. ``violation`` is "" if the receipt claims nothing false."""

    plan: Plan
    truth: Truth
    receipt: dict[str, Any]
    violation: str
    seconds: float

    @property
    def bounds(self) -> tuple[float, float] | None:
        return bounds(self.receipt)


def run(plan: Plan, folder: Path, command: Sequence[str] = (*TORCHNET, "launch")) -> Outcome:
    """Run the plan as a job, with its files in ``folder``, and judge the receipt.

    Raises:
        AssertionError: the job failed, or its processes' records do not agree with the plan or with the interfaces'
            counters, so nothing can be judged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan.to_json()))
    path = folder / "receipt.json"
    arguments = ["--nnodes", plan.nodes, "--nproc-per-node", plan.nproc, "--rails", plan.rails]
    arguments += ["--family", "ipv4" if plan.ipv4 else "ipv6", "--json", path, SCRIPT]
    began = time.monotonic()
    with Job(*arguments, command=command, env={"TRAFFIC_FOLDER": str(folder)}) as job:
        with _outsider(job, plan, folder):
            done = job.finish()
    seconds = time.monotonic() - began
    assert done.code == 0, f"{plan}\n{done.stdout}{done.stderr}"
    records = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    check_records(plan, records)
    found, known = receipt(path), truth(plan, records)
    return Outcome(plan, known, found, violation(known, found), seconds)


def truth(plan: Plan, records: Sequence[dict[str, Any]]) -> Truth:
    """Sum up what the processes recorded."""
    sums: dict[tuple[bool, str], int] = {}
    for record in records:
        for node, interface, _, what, size in record["bytes"]:
            if node not in (record["node"], OUTSIDER):
                key = interface.startswith("net"), what
                sums[key] = sums.get(key, 0) + size
    rails, off_rails = (
        (2 * min(sent, received), 2 * max(sent, received))
        for sent, received in (
            [sums.get((on_rails, what), 0) for what in ("sent", "received")] for on_rails in (True, False)
        )
    )
    if plan.gloo:  # at least what a ring of all-reduces sends
        least = 10 * 2 * 2 * (plan.nodes - 1) * plan.gloo
        rails = rails[0] + least, rails[1] + 2 * least
    connections = sum(
        flow.connections
        for flow in plan.flows
        if flow.protocol == "tcp" and plan.node(flow.source) != plan.node(flow.target) != OUTSIDER
    )
    slack = _BYTES_PER_CONNECTION * connections
    return Truth(rails, off_rails, slack / max(1, rails[0] + off_rails[0]) + _ROUNDING)


def bounds(found: dict[str, Any]) -> tuple[float, float] | None:
    """Return the range that a receipt claims for the share; None if it claims nothing."""
    low = found["backend_share"]
    high = found.get("backend_share_high", low if found["proof"] == "measured" else 1.0)
    return None if low is None else (low, high)


def violation(known: Truth, found: dict[str, Any]) -> str:
    """Return what the receipt claims falsely, or ""."""
    claim = bounds(found)
    if claim is None:
        return ""
    if known.low is None or known.high is None:
        return f"the workers exchanged nothing, the receipt says {claim[0]:.6f}"
    if known.high < claim[0] - known.tolerance:
        return f"at most {known.high:.6f} went over rails, the receipt says at least {claim[0]:.6f}"
    if known.low > claim[1] + known.tolerance:
        return f"at least {known.low:.6f} went over rails, the receipt says at most {claim[1]:.6f}"
    return ""


def smallest(plan: Plan, folder: Path) -> Outcome:
    """Remove each flow of a plan without which the violation remains."""
    worst = run(plan, folder / "all")
    for number, flow in enumerate(plan.flows):
        fewer = replace(worst.plan, flows=tuple(one for one in worst.plan.flows if one is not flow))
        if fewer.flows:
            outcome = run(fewer, folder / str(number))
            worst = outcome if outcome.violation else worst
    return worst


def _share(rails: int, off_rails: int) -> float | None:
    return rails / (rails + off_rails) if rails + off_rails else None


def check_records(plan: Plan, records: Sequence[dict[str, Any]]) -> None:
    """Check the records against the plan, and against each node's interfaces, which need no record."""
    children = sum(flow.process != "own" for flow in plan.flows)
    assert len(records) == plan.nodes * plan.nproc + children, "a process left no record"
    for node in range(plan.nodes):
        recorded: dict[tuple[str, str], int] = {}
        counters: dict[str, list[int]] = {}
        for record in records:
            if record["node"] != node:
                continue
            counters = record["counters"] or counters
            for _, interface, _, what, size in record["bytes"]:
                recorded[interface, what] = recorded.get((interface, what), 0) + size
        for name, (received, packets_in, sent, packets_out) in counters.items():
            if name != "eth0" and (not name.startswith("net") or plan.gloo):
                continue
            for what, seen, packets in (("sent", sent, packets_out), ("received", received, packets_in)):
                payload = recorded.get((name, what), 0)
                most = payload * (1 + _RESENT) + packets * _HEADER_BYTES + _OWN_BYTES
                assert payload <= seen <= most, (
                    f"{plan}: node {node} recorded {payload} bytes {what} over {name}, which counted {seen}"
                )


@contextmanager
def _outsider(job: Job, plan: Plan, folder: Path) -> Iterator[None]:
    if all(flow.target != OUTSIDER for flow in plan.flows):
        yield
        return
    needs.networks()
    until(job.ranks, "a rank runs", pause=SLOW)
    above = parent(job.agent(min(job.ranks())))  # the process in whose network namespace the bridges are
    command = [sys.executable, "-m", "tests.traffic.outsider", str(above), str(folder), str(plan.ipv4)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            yield
        finally:
            process.kill()
