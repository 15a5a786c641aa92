"""Agents without a launcher, each in a node of the local networks; and what they reported."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests import forked_nodes, needs
from torchnet.agent import agent
from torchnet.agent.spec import AgentSpec
from torchnet.local import topology
from torchnet.local.faults import InjectedFaults
from torchnet.network import attachment
from torchnet.network.address_sources import AddressSource, MultusStatus

Role = Callable[[], int]
PATIENCE = 60


def spec(folder: Path, rank: int, nnodes: int, **fields: Any) -> AgentSpec:
    """Worker ``rank`` of a job of one process each; the script is ``folder/script.py``."""
    told: dict[str, Any] = {
        "run_id": "the-run",
        "nnodes": nnodes,
        "node_rank": rank,
        "nproc_per_node": 1,
        "command": (str(folder / "script.py"), str(folder)),
        "token": "the token of the tests",
        "python": sys.executable,
        "name": f"node-{rank}",
        "attachments": attachment.LOCAL[:1],
        "start_timeout": 30.0,
        **fields,
    }
    return AgentSpec(**told)


def status(node: int) -> str:
    """What Multus would have written for the pod in that node."""
    return topology.network_status_annotation(topology.node(node, 1))


class Log:
    """A reporter that keeps each event as a line of a file."""

    pending = 0

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def send(self, event: dict[str, Any]) -> None:
        self._file.write(json.dumps({"at": time.monotonic(), **event}) + "\n")
        self._file.flush()

    def flush(self) -> None:
        self._file.close()


def run_agent(
    folder: Path, told: AgentSpec, node: int, source: AddressSource | None = None, log: str = ""
) -> int:
    """Run the agent in this process, which is the first of ``node``; its events go to ``folder/NAME.events``."""
    if source is None:
        source = MultusStatus(status(node), status(0), told.attachments)
    path = folder / f"{log or told.name}.events"
    return agent.run(told, source, lambda _loop, _worker: Log(path))


def in_nodes(
    roles: Sequence[Role],
    shape: topology.SandboxShape | None = None,
    *,
    rails: int = 1,
    seconds: float = PATIENCE,
) -> list[int]:
    """Run each role as the first process of a node of its own; the codes that they end with."""
    __tracebackhide__ = True
    needs.networks()
    shape = shape or topology.SandboxShape()
    nodes = InjectedFaults(shape.faults).with_addresses(
        [topology.node(rank, rails) for rank in range(len(roles))]
    )
    running = forked_nodes.start(nodes, lambda rank: roles[rank](), shape)
    codes: dict[int, int] = {}
    try:
        running.control.settimeout(seconds)
        for message in running.messages():
            if "node" in message:
                codes[message["node"]] = message["status"]
    finally:
        running.kill()
    return [codes[rank] for rank in range(len(roles))]


def events(folder: Path, name: str, kind: str = "") -> list[dict[str, Any]]:
    """What an agent reported, in order; all, or events of one kind."""
    path = folder / f"{name}.events"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [event for event in found if event["event"] == kind or not kind]


def wait(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """In a node: until ``condition()``; the node's end with an error where it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the node waits for never came")
        time.sleep(0.02)
