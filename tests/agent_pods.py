"""Pods without Kubernetes: nodes of the local networks in which agents prepare and work, each a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.agents import Log, spec, status
from torchnet.agent import agent, preparation
from torchnet.agent.handover import Handover, HandoverSource
from torchnet.agent.spec import AgentSpec
from torchnet.network.address_sources import AddressSource, MultusStatus


class Pod:
    """The pod of node rank ``rank``, in network node ``node``; ``uid`` tells it from one that takes its place.

    Events go to ``folder/NAME-PHASE.events``, the state to ``folder/state-NAME``.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        nnodes: int,
        *,
        node: int | None = None,
        uid: str = "",
        rank0: Callable[[], str] = lambda: status(0),
        **fields: Any,
    ) -> None:
        self.folder = folder
        self.node = rank if node is None else node
        self.uid = uid or f"uid-{rank}"
        self.state = folder / f"state-{self.uid}"
        self.state.mkdir(exist_ok=True)
        self.rank0 = rank0
        self.told = spec(
            folder, rank, nnodes, uid=self.uid, state=str(self.state), name=f"run-{rank}", **fields
        )

    def log(self, phase: str) -> str:
        return f"{self.uid}-{phase}"

    def start(self, phase: str) -> int:
        """Begin a phase in a process of its own; its pid."""
        pid = os.fork()
        if pid:
            return pid
        code = 99
        try:
            code = self._run(replace(self.told, phase=phase))  # type: ignore[arg-type]
        finally:
            os._exit(code)

    def prepare(self) -> int:
        return wait_for(self.start("prepare"))

    def work(self) -> int:
        return wait_for(self.start("work"))

    def both(self) -> int:
        """As the kubelet does: the main container when the init container ended well."""
        return self.prepare() or self.work()

    def _run(self, told: AgentSpec) -> int:
        source: AddressSource = MultusStatus(status(self.node), self.rank0, told.attachments)
        log = Log(self.folder / f"{self.log(told.phase)}.events")
        if told.phase == "prepare":
            return preparation.run(told, source, lambda _loop: log)
        source = HandoverSource(Handover.read(told.state), source)
        return agent.run(told, source, lambda _loop, _worker: log)


def wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
