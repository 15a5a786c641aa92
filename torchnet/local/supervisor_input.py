"""What the supervisor runs, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from torchnet.agent.spec import AgentSpec
from torchnet.config.fault_syntax import Fault
from torchnet.local.topology import SandboxShape


@dataclass(frozen=True)
class SupervisorInput:
    """What the supervisor runs.

    Attributes:
        launcher: The launcher's process ID.
        specs: The agents' specifications, in node order.
        shape: Parameters of the networks; None on loopback.
        loopback_block: See `torchnet.local.loopback.reserve_block`.
    """

    launcher: int
    specs: tuple[AgentSpec, ...]
    shape: SandboxShape | None = None
    loopback_block: int = 0

    def dumps(self) -> bytes:
        shape = asdict(self.shape) if self.shape is not None else None
        specs = [asdict(spec) for spec in self.specs]
        return json.dumps({**vars(self), "specs": specs, "shape": shape}).encode()

    @classmethod
    def loads(cls, data: bytes) -> SupervisorInput:
        values: dict[str, Any] = json.loads(data)
        shape = values["shape"]
        if shape is not None:
            shape = SandboxShape(**{**shape, "faults": tuple(Fault(**one) for one in shape["faults"])})
        specs = tuple(AgentSpec.from_values(one) for one in values["specs"])
        return cls(**{**values, "specs": specs, "shape": shape})
