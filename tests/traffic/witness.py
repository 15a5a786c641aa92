"""Runs a plan as a command under ``torchnet receipt``, on two hosts that are network namespaces of the test."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.namespaces import Space, cable, ip, isolated
from tests.traffic.oracle import SCRIPT, Outcome, check_records, truth, violation
from tests.traffic.plan import OUTSIDER, Plan
from torchnet.linux import namespaces
from torchnet.local import topology

_ALL_RANKS = 'for rank in "$@"; do RANK=$rank "$0" -u "$SCRIPT" & done; wait'
_SECONDS = 90


def fits(plan: Plan) -> bool:
    """Whether two hosts without a host beside them can run the plan."""
    return plan.nodes == 2 and not plan.gloo and all(flow.target != OUTSIDER for flow in plan.flows)


def observe(plan: Plan, folder: Path) -> Outcome:
    """Run the plan's ranks under one witness for each node, merge the receipts, and judge the result.

    Raises:
        AssertionError: the command failed, or its processes' records are wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan.to_json()))
    began = time.monotonic()
    isolated(_both)(plan, folder)
    records = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    check_records(plan, records)
    found, known = json.loads((folder / "merged.json").read_text()), truth(plan, records)
    return Outcome(plan, known, found, violation(known, found), time.monotonic() - began)


def _both(plan: Plan, folder: Path) -> None:
    far = Space()
    nodes = [topology.node(rank, plan.rails, ipv4=plan.ipv4) for rank in range(2)]
    for near, other in zip(nodes[0].ports(), nodes[1].ports(), strict=True):
        pair = (f"{near.address}/{near.prefix}", f"{other.address}/{other.prefix}")
        cable(near.interface, near.interface, far, addresses=())
        for port, address, space in ((near, pair[0], None), (other, pair[1], far)):
            _set(port.interface, port.mac, address, space)
    backend = ",".join(port.interface for port in nodes[0].backend)
    running = [_witness(plan, folder, node, backend, far if node else None) for node in range(2)]
    for process in running:
        _, said = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0, said.decode()
    words = [sys.executable, "-m", "torchnet", "receipt", "merge", "--json", str(folder / "merged.json")]
    subprocess.run(
        [*words, *(str(folder / f"{node}.json") for node in range(2))], check=True, stdout=subprocess.DEVNULL
    )


def _set(interface: str, mac: str, address: str, space: Space | None) -> None:
    def commands() -> None:
        ip(f"link set {interface} down")
        ip(f"link set {interface} address {mac}")
        ip(f"link set {interface} up")
        ip(f"address add {address} dev {interface}" + (" nodad" if ":" in address else ""))

    if space is None:
        commands()
    else:
        with space:
            commands()


def _witness(
    plan: Plan, folder: Path, node: int, backend: str, space: Space | None
) -> subprocess.Popen[bytes]:
    def enter() -> None:
        if space is not None:
            namespaces.setns(space.descriptor, namespaces.NEWNET)
        namespaces.unshare(namespaces.NEWUTS)
        socket.sethostname(f"host-{node}")

    ranks = [str(node * plan.nproc + local) for local in range(plan.nproc)]
    words = [sys.executable, "-m", "torchnet", "receipt", "--network", f"host:{backend}"]
    words += ["--json", str(folder / f"{node}.json"), "--", "sh", "-c", _ALL_RANKS, sys.executable, *ranks]
    env = {**os.environ, "TRAFFIC_FOLDER": str(folder), "SCRIPT": str(SCRIPT)}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, env=env, preexec_fn=enter, **pipes)  # noqa: PLW1509
