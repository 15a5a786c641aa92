"""The agent's input: one worker's part of a job, as plain data that fits an environment variable or a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from torchnet.constants import GRACE_SECONDS
from torchnet.network.address_sources import NetworkKind


@dataclass(frozen=True)
class AgentSpec:
    """One worker of a job.

    ``command`` is what each process runs, without the interpreter: a script, a module (``entry="module"``) or a
    program (``entry="program"``), with its arguments. All times are in seconds.
    """

    run_id: str
    nnodes: int
    node_rank: int
    nproc_per_node: int
    command: tuple[str, ...]
    token: str
    python: str
    name: str
    entry: Literal["script", "module", "program"] = "script"
    network: NetworkKind = "multus-status"
    runtime: str = "local"
    attachments: tuple[str, ...] = ()
    family: Literal["auto", "ipv4", "ipv6"] = "auto"
    preflight: Literal["auto", "full"] = "auto"
    loopback: bool = False
    max_restarts: int = 0
    grace: float = GRACE_SECONDS
    link_grace: float = 5.0
    stall_timeout: float = 300.0
    stall_action: Literal["report", "stop"] = "report"
    start_timeout: float = 300.0
    log_dir: str = ""
    tee: str = "0"
    redirects: str = "0"
    stdin_rank: int | None = None
    env: dict[str, str] = field(default_factory=dict)
    gpus: tuple[str, ...] | None = None  # this worker's GPUs; None leaves the variables alone
    hostid: str = ""  # for NCCL, if workers share a machine
    cpus: float | None = None  # per process, if workers share a machine
    min_share: float | None = None
    measure: bool = False  # sample the rails' counters
    # A pod has a container for prepare and one for work; the first leaves its results in the folder `state`.
    phase: Literal["all", "prepare", "work"] = "all"
    state: str = ""
    uid: str = ""  # the pod's; "" generates one
    replaced: int | None = None  # pods of this worker replaced so far; None: never replaced
    start: str = ""  # start attempt of the whole job, if something restarts it (JobSet)

    @property
    def world_size(self) -> int:
        return self.nnodes * self.nproc_per_node

    @property
    def ranks(self) -> range:
        """The global ranks of this worker's processes."""
        first = self.node_rank * self.nproc_per_node
        return range(first, first + self.nproc_per_node)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> AgentSpec:
        """Parse :meth:`dumps` output; unknown fields of a newer launcher are ignored.

        Raises:
            ValueError, TypeError: it is not a valid specification.
        """
        data: Any = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("no specification of a worker")
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in data.items() if name in known
        }
        return cls(**values)
