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

Runtime = Literal["local", "kubernetes", "agent", "command"]  # command: observed by torchnet receipt


def _flag(text: str = "", *, own: bool = False, **more: Any) -> dict[str, Any]:
    """Return the metadata of a field that a flag of ``torchnet agent`` sets: ``flag``, or ``--`` and the field's name.

    Args:
        own: Whether the value differs between workers, so that the job's document does not contain the field.
        more: ``metavar``; ``least``, the minimum of a number; ``variables`` to read if the flag is not given;
            ``by_hand``, the default of the flag if the field has none.
    """
    return {"help": text, "own": own, "is_flag": True, **more}


_OWN = {"own": True}


@dataclass(frozen=True)
class AgentSpec:
    """One worker of a job. All times are in seconds.

    Attributes:
        command: What each process runs, without the interpreter: a script, a module (``entry="module"``) or a program
            (``entry="program"``), with its arguments.
        attachments: By rail; () for all attachments of the address source.
        devices: RDMA devices of the backend, in addition to those on the cards of its interfaces.
        gpus: This worker's GPUs; None does not change the variables.
        hostid: NCCL_HOSTID, if workers share a machine.
        cpus: Per process, if workers share a machine.
        phase: A pod runs ``prepare`` (discovery) in an init container and ``work`` in its main container, which joins;
            ``prepare`` writes its results to the folder ``state``.
        uid: The pod's UID; "" generates one.
        replaced: Number of this worker's pods that have been replaced; None if they are never replaced.
        host_names: Names of the hosts by node rank, where the scheduler knows them; for messages.
        start: The start attempt of the whole job, if a controller restarts it (JobSet).
        rdzv_id: What scripts see as the run's id; "" for ``run_id``.
        role: torchrun's name of the role of all processes.
        virtual_local_rank: Whether each process has LOCAL_RANK 0 and sees one GPU.
        signals: Names of signals that stop the job, in addition to SIGTERM, SIGINT, SIGHUP and SIGQUIT.
        raw: Whether output is passed on as bytes, not as lines.
        own_console: Whether a launcher on this machine shows this worker's output: it explains an empty standard input
            and writes the caller's TORCHELASTIC_ERROR_FILE.
    """

    run_id: str = field(
        metadata=_flag(
            "name of the job; the same for all workers", variables=("TORCHNET_RUN_ID",), by_hand="run"
        )
    )
    nnodes: int = field(
        metadata=_flag("number of workers", least=1, variables=("TORCHNET_NNODES",), by_hand=1)
    )
    nproc_per_node: int = field(
        metadata=_flag(
            "number of processes of this worker", least=1, variables=("TORCHNET_NPROC_PER_NODE",), by_hand=1
        )
    )
    command: tuple[str, ...]
    entry: Literal["script", "module", "program"] = "script"
    network: NetworkKind = "multus-status"
    runtime: Runtime = "local"
    attachments: tuple[NetworkAttachment, ...] = field(
        default=(),
        metadata=_flag(
            "NetworkAttachmentDefinition of a rail; repeat it once per rail, in order",
            flag="--attachment",
            metavar="NAMESPACE/NAME[@INTERFACE]",
        ),
    )
    devices: tuple[str, ...] = ()
    family: Family = field(default="auto", metadata=_flag("address family of the rails"))
    preflight: Literal["auto", "full"] = field(
        default="auto", metadata=_flag("paths to check before the start; full: all pairs of workers")
    )
    loopback: bool = False
    max_restarts: int = field(
        default=0, metadata=_flag("maximum number of restarts of all workers", metavar="N")
    )
    grace: float = field(
        default=constants.GRACE_SECONDS, metadata=_flag("time between SIGTERM and SIGKILL", metavar="SECONDS")
    )
    link_grace: float = field(
        default=5.0, metadata=_flag("stop the job if a link is down for longer", metavar="SECONDS")
    )
    stall_timeout: float = field(
        default=300.0, metadata=_flag("time without traffic until a stall; 0 disables it", metavar="SECONDS")
    )
    stall_action: Literal["report", "stop"] = field(default="report", metadata=_flag("action after a stall"))
    start_timeout: float = field(
        default=300.0, metadata=_flag("time limit for the start of all workers", metavar="SECONDS")
    )
    log_dir: str = field(default="", metadata=_flag("directory for the ranks' log files", metavar="DIR"))
    raw: bool = field(
        default=False, metadata=_flag("pass the output of the ranks on unchanged", flag="--no-prefix")
    )
    rdzv_id: str = field(
        default="", metadata=_flag("the run's id for scripts [the name of the job]", metavar="ID")
    )
    role: str = field(default="default", metadata=_flag("name of the role of all processes", metavar="NAME"))
    virtual_local_rank: bool = field(
        default=False, metadata=_flag("set LOCAL_RANK to 0 in each process, which sees one GPU")
    )
    signals: tuple[str, ...] = ()
    tee: str = field(
        default="0", metadata=_flag("streams to write to the log files and to show", metavar="STREAMS")
    )
    redirects: str = field(
        default="0", metadata=_flag("streams to write to the log files only", metavar="STREAMS")
    )
    stdin_rank: int | None = field(default=None, metadata=_flag("rank that reads stdin", metavar="RANK"))
    env: dict[str, str] = field(default_factory=dict)
    min_share: float | None = field(
        default=None, metadata=_flag("exit with code 5 if the backend's share is below this", metavar="SHARE")
    )
    host_names: tuple[str, ...] = ()
    own_console: bool = False
    measure: bool = field(default=False, metadata=_flag("sample the counters of the rails for the receipt"))
    full_receipt: bool = field(
        default=False, metadata=_flag("keep each rank and more pairs in the receipt of a large job")
    )

    node_rank: int = field(
        default=0,
        metadata=_flag(
            "number of this worker, from 0",
            own=True,
            least=0,
            variables=("TORCHNET_NODE_RANK", "JOB_COMPLETION_INDEX"),
        ),
    )
    name: str = field(
        default="",
        metadata=_flag("unique name of this worker [the host name; with --phase: RUN-RANK]", own=True),
    )
    token: str = field(default="", metadata=_OWN)
    python: str = field(default="python3", metadata=_OWN)
    gpus: tuple[str, ...] | None = field(default=None, metadata=_OWN)
    hostid: str = field(default="", metadata=_OWN)
    cpus: float | None = field(default=None, metadata=_OWN)
    phase: Literal["all", "prepare", "work"] = field(
        default="all",
        metadata=_flag(
            "part to run: prepare (init container: discovery), work (training container: from the join on) or all",
            own=True,
        ),
    )
    state: str = field(
        default="",
        metadata=_flag("folder through which prepare passes its results to work", own=True, metavar="DIR"),
    )
    uid: str = field(default="", metadata=_OWN)
    replaced: int | None = field(
        default=None,
        metadata=_flag(
            "exit with code 75 if the pod's address is in use or the pod is stopped, before the start, to be replaced "
            "by a new pod; N is the number of pods replaced so far",
            own=True,
            metavar="N",
            variables=(constants.REPLACED_VARIABLE,),
        ),
    )
    start: str = field(
        default="",
        metadata=_flag(
            "start attempt of the whole job, if a controller restarts it",
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
        """Return the job's document, as readable JSON: every field except those that differ between workers,
        such as the token.
        """
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
            raise ValueError("not a JSON object")
        return cls.from_values({name: value for name, value in data.items() if name not in OWN})

    @classmethod
    def from_values(cls, data: dict[str, Any]) -> AgentSpec:
        """Return a specification from the output of `dataclasses.asdict`, also after JSON; ignore unknown fields.

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
