"""Rank 0 starts first, so that PyTorch's store listens before another rank connects to it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.agents import spec
from torchnet.agent import worker_processes
from torchnet.agent.event_loop import EventLoop


@pytest.mark.parametrize(
    ("node_rank", "order"), [(0, ["rank 0", "pause", "rank 1"]), (1, ["pause", "rank 2", "rank 3"])]
)
def test_all_other_ranks_wait_once(monkeypatch: pytest.MonkeyPatch, node_rank: int, order: list[str]) -> None:
    happened: list[str] = []

    def process(_loop: Any, rank: int, *_: Any, **__: Any) -> Any:
        happened.append(f"rank {rank}")
        return SimpleNamespace(pid=rank + 1)

    def sleep(seconds: float) -> None:
        happened.extend(["pause"] * (seconds > 0))

    monkeypatch.setattr(worker_processes, "Process", process)
    reporter: Any = SimpleNamespace(send=lambda _event: None)
    loop = EventLoop()
    try:
        processes = worker_processes.WorkerProcesses(loop, spec(node_rank, nproc=2), reporter, print)
        monkeypatch.setattr(time, "sleep", sleep)
        processes.start(0, "run", lambda _local, _file: {})
        monkeypatch.undo()
    finally:
        loop.close()
    assert happened == order
