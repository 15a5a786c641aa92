"""The agent's input: one worker's part of a job. `AgentSpec` is also the table of the flags of ``torchnet agent``.

In a pod, `AgentSpec.dumps` is a file, the same for all workers of a job. The rest comes from the pod: flags and
environment variables. Locally, the launcher passes the whole value.
"""

from __future__ import annotations

import json
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any, Literal

from torchnet import constants
from torchnet.network.address_sources import NetworkKind
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Family

Runtime = Literal["local", "kubernetes", "agent"]


def _flag(text: str = "", *, own: bool = False, **more: Any) -> dict[str, Any]:
    """Return the metadata of a field that a flag of ``torchnet agent`` sets: ``--`` and its name, or ``flag``.

    Args:
        own: Whether each worker has its own value, so that the field is not in the job's document.
        more: ``metavar``; ``least``, the minimum of a number; ``variables`` to read if the flag is not given;
            ``by_hand``, the flag's default if the field has none.
    """
    return {"help": text, "own": own, "is_flag": True, **more}


_OWN = {"own": True}


@dataclass(frozen=True)
class AgentSpec:
    """One worker of a job. All times are in seconds.

    Attributes:
        command: What each process runs, without the interpreter: a script, a module (``entry="module"``) or a program
            (``entry="program"``), with its arguments.
        attachments: By rail; () for all that the address source has.
        gpus: This worker's GPUs; None leaves the variables alone.
        hostid: For NCCL, if workers share a machine.
        cpus: Per process, if workers share a machine.
        phase: A pod has a container for ``prepare`` and one for ``work``; the first leaves its results in the folder
            ``state``.
        uid: The pod's; "" generates one.
        replaced: Pods of this worker that have been replaced; None if it is never replaced.
        start: The start attempt of the whole job, if something restarts it (JobSet).
    """

    run_id: str = field(
        metadata=_flag("the job's name, the same everywhere", variables=("TORCHNET_RUN_ID",), by_hand="run")
    )
    nnodes: int = field(
        metadata=_flag("workers of the job", least=1, variables=("TORCHNET_NNODES",), by_hand=1)
    )
    nproc_per_node: int = field(
        metadata=_flag("processes here", least=1, variables=("TORCHNET_NPROC_PER_NODE",), by_hand=1)
    )
    command: tuple[str, ...]
    entry: Literal["script", "module", "program"] = "script"
    network: NetworkKind = "multus-status"
    runtime: Runtime = "local"
    attachments: tuple[NetworkAttachment, ...] = field(
        default=(),
        metadata=_flag("NAMESPACE/NAME[@INTERFACE] of a rail, in order; may repeat", flag="--attachment"),
    )
    family: Family = field(default="auto", metadata=_flag())
    preflight: Literal["auto", "full"] = field(default="auto", metadata=_flag())
    loopback: bool = False
    max_restarts: int = field(default=0, metadata=_flag())
    grace: float = field(default=constants.GRACE_SECONDS, metadata=_flag(metavar="SECONDS"))
    link_grace: float = field(default=5.0, metadata=_flag(metavar="SECONDS"))
    stall_timeout: float = field(default=300.0, metadata=_flag(metavar="SECONDS"))
    stall_action: Literal["report", "stop"] = field(default="report", metadata=_flag())
    start_timeout: float = field(default=300.0, metadata=_flag(metavar="SECONDS"))
    log_dir: str = field(default="", metadata=_flag())
    tee: str = "0"
    redirects: str = "0"
    stdin_rank: int | None = field(default=None, metadata=_flag())
    env: dict[str, str] = field(default_factory=dict)
    min_share: float | None = field(default=None, metadata=_flag())
    measure: bool = field(default=False, metadata=_flag("sample the rails' counters, for the receipt"))

    node_rank: int = field(
        default=0,
        metadata=_flag(
            "this one's number; an Indexed Job gives it",
            own=True,
            least=0,
            variables=("TORCHNET_NODE_RANK", "JOB_COMPLETION_INDEX"),
        ),
    )
    name: str = field(
        default="",
        metadata=_flag("this worker's name, its own among all [the host's; in phases: RUN-RANK]", own=True),
    )
    token: str = field(default="", metadata=_OWN)
    python: str = field(default="python3", metadata=_OWN)
    gpus: tuple[str, ...] | None = field(default=None, metadata=_OWN)
    hostid: str = field(default="", metadata=_OWN)
    cpus: float | None = field(default=None, metadata=_OWN)
    phase: Literal["all", "prepare", "work"] = field(
        default="all",
        metadata=_flag("prepare: an init container's part, up to the preflight; work: the rest", own=True),
    )
    state: str = field(
        default="", metadata=_flag("what prepare leaves there and work reads", own=True, metavar="DIR")
    )
    uid: str = field(default="", metadata=_OWN)
    replaced: int | None = field(
        default=None,
        metadata=_flag(
            "prepare may end with 75 where the pod's address is taken, and another pod comes; N have come already",
            own=True,
            metavar="N",
            variables=(constants.REPLACED_VARIABLE,),
        ),
    )
    start: str = field(
        default="",
        metadata=_flag(
            "which start of the whole job this is, where something restarts it",
            own=True,
            variables=(constants.START_VARIABLE,),
        ),
    )

    @property
    def world_size(self) -> int:
        return self.nnodes * self.nproc_per_node

    @property
    def ranks(self) -> range:
        """The global ranks of this worker's processes."""
        first = self.node_rank * self.nproc_per_node
        return range(first, first + self.nproc_per_node)

    def dumps(self) -> str:
        """Return the job's document, as readable JSON: every field but a worker's own ones, such as the token."""
        values = asdict(self)
        return json.dumps(
            {one.name: values[one.name] for one in fields(self) if one.name not in OWN}, indent=1
        )

    @classmethod
    def loads(cls, text: str) -> AgentSpec:
        """Parse :meth:`dumps` output; unknown fields of a newer launcher are ignored.

        Raises:
            ValueError, TypeError: it is not a valid specification.
        """
        data: Any = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError("no specification of a worker")
        return cls.from_values({name: value for name, value in data.items() if name not in OWN})

    @classmethod
    def from_values(cls, data: dict[str, Any]) -> AgentSpec:
        """Return a specification from what `dataclasses.asdict` and JSON make of it; ignore unknown fields.

        Raises:
            TypeError: a field is missing.
        """
        known = {one.name for one in fields(cls)}
        values: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in data.items() if name in known
        }
        if "attachments" in values:
            values["attachments"] = tuple(NetworkAttachment(**one) for one in values["attachments"])
        return cls(**values)


OWN = frozenset(one.name for one in fields(AgentSpec) if one.metadata.get("own"))
FLAGS: tuple[Field[Any], ...] = tuple(one for one in fields(AgentSpec) if one.metadata.get("is_flag"))


def flag_of(one: Field[Any]) -> str:
    """Return the flag of a field of `FLAGS`."""
    return str(one.metadata.get("flag") or f"--{one.name.replace('_', '-')}")
