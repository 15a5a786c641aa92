"""Model of the job's receipt, used by the launcher to validate it; the source of ``receipt.schema.json``.

The agents write receipts with the types in `torchnet.agent.receipt_shape`; a test compares them with this model. Within
"torchnet.receipt/2", fields can be added, but not removed or changed. Unknown fields are kept, so that the launcher can
read the receipt of a newer agent. Receipts of version 1 can be read: they have one share without bounds, and the fields
that version 2 added have their defaults.

``python -m torchnet.receipt.receipt_model`` regenerates the schema; a test compares it with the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from torchnet.agent.events import Kind
from torchnet.agent.receipt_shape import Proof, Verdict
from torchnet.agent.share_bounds import Reason
from torchnet.agent.spec import Runtime
from torchnet.constants import RECEIPT_SCHEMA
from torchnet.network.address_sources import NetworkKind

__all__ = [
    "Failure",
    "Flap",
    "InterfaceBytes",
    "Measured",
    "NodeReceipt",
    "PeerBytes",
    "RailBytes",
    "RankResult",
    "Receipt",
    "Series",
    "UnattributedBytes",
    "ValidationError",
]

SCHEMA_FILE = Path(__file__).with_name("receipt.schema.json")

Bytes = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True)


class Failure(_Part):
    """The first failure of the job."""

    kind: Kind
    rank: Count | None = None
    node: str | None = None
    code: int
    """Exit code of the job because of this failure; 128 + N for signal N."""
    text: str
    tail: tuple[str, ...] = ()
    """Last lines of the rank's output."""
    at: float
    """Unix time in seconds."""


class RankResult(_Part):
    """Result of one process."""

    rank: Count
    local_rank: Count
    node: str
    exit_code: int | None
    """Null if it was not started or its worker was lost."""


class RailBytes(_Part):
    """Traffic of one backend network on all nodes."""

    interface: str
    attachment: str | None = None
    """``NAMESPACE/NAME`` of the NetworkAttachmentDefinition, or of the local network. Null if no
    attachment added the interface (``host:``, loopback), and in receipts of earlier versions.
    """
    peer_bytes: Bytes
    """Sent and received with peers over this rail, summed over the nodes."""
    share: Share | None
    """Share of the bytes on all rails; null if there were none."""


class InterfaceBytes(_Part):
    """Kernel counters of one interface from the start to the end, headers included."""

    role: Literal["backend", "frontend", "other"]
    sent_bytes: Bytes
    received_bytes: Bytes
    peer_bytes: Bytes | None = None
    """TCP payload exchanged with peers over this interface; null in receipts of earlier versions."""


class PeerBytes(_Part):
    """TCP payload exchanged with one peer over one interface of this worker."""

    node: str
    interface: str
    """``unknown`` if only one end of the connection has an address of the backend."""
    sent_bytes: Bytes
    received_bytes: Bytes


class UnattributedBytes(_Part):
    """Bytes of an interface that may or may not have been exchanged with peers: at most so many."""

    interface: str
    bytes: Bytes
    reason: Reason


class Flap(_Part):
    """An interruption of a link or address that did not end the job."""

    interface: str
    at_s: Seconds
    """Seconds after the start."""
    duration_s: Seconds


class Series(_Part):
    """With --measure: bytes sent on a worker's rails (headers included) in each sample. The launcher computes
    ``measured`` from it and removes it.
    """

    sample_s: float = Field(gt=0)
    unit_bytes: int = Field(ge=1)
    block_samples: int = Field(ge=1)
    blocks: dict[str, str]
    """By block number, from 0 at the start: the samples in whole units, as text, compressed with zlib, in base64."""


class Measured(_Part):
    """With --measure: the backend's traffic over time, as medians of the sampled nodes. Null if it could not be
    determined from the samples.
    """

    nodes: Count
    """Number of sampled nodes, from the first."""
    sample_s: Seconds
    observed_s: Seconds
    """Time from the first to the last sampled traffic."""
    idle_share: Share | None
    """Share of the time with almost no backend traffic: of a step if steps_per_s is known, else of observed_s."""
    busbw: Rate | None
    """Bytes per second that a node sent while not idle, headers included; in a ring, this is the bus bandwidth of
    nccl-tests."""
    peak: Rate | None
    """95th percentile of the rate in samples with traffic."""
    line_share: Rate | None
    """busbw divided by the rate of all rails; null if the rate is unknown."""
    steps_per_s: Rate | None
    step_bytes: Rate | None
    """Bytes that a node sends per step."""
    step_active_s: Rate | None
    """Seconds per step with backend traffic."""
    why: str = ""
    """Reason for null values."""


class NodeReceipt(_Part):
    """Receipt of one worker."""

    node: str
    node_rank: Count
    interfaces: dict[str, InterfaceBytes]
    peer_bytes: Bytes
    """Sent to and received from the other workers of the job, over all interfaces."""
    other_bytes: Bytes
    """Sent to and received from other hosts: data, checkpoints, metrics."""
    peers: tuple[PeerBytes, ...] = ()
    """In a job of more than 64 workers only those with the most bytes, off the rails first."""
    peers_omitted: Count = 0
    """Number of peers left out; the bytes of each interface include theirs."""
    unattributed: tuple[UnattributedBytes, ...] = ()
    rdma_bytes: dict[str, Bytes] = {}
    """Sent and received by each RDMA device (``mlx5_0``) on a rail that only this worker uses."""
    rdma_stray: dict[str, Bytes] = {}
    """The same for devices on no rail that the job can open; the share is then unknown."""
    proof: Proof = "unknown"
    flaps: tuple[Flap, ...] = ()
    findings: tuple[str, ...] = ()
    """In a job of more than 64 workers without --full-receipt, 100 of all nodes together."""
    findings_omitted: Count = 0
    """Number of findings left out."""
    series: Series | None = None


class Receipt(_Part):
    """Bytes exchanged between the workers by interface, and the result of the job."""

    schema_id: Literal["torchnet.receipt/1", "torchnet.receipt/2"] = Field(alias="schema")
    run_id: str
    runtime: Runtime
    network: NetworkKind
    exit_code: int = Field(ge=0, le=255)
    reason: str
    """Text such as "done" or "rank 3 on node-1 exited with code 42". The exit code of a script can equal one of
    torchnet's codes.
    """
    failure: Failure | None = None
    started: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
    """RFC 3339, UTC."""
    duration_s: Seconds
    nnodes: int = Field(ge=1)
    nproc_per_node: int = Field(ge=1)
    world_size: int = Field(ge=1)
    restarts: Count = 0
    backend_share: Share | None
    """Bytes exchanged with peers over the backend, divided by those over all interfaces: at least this; null if
    unknown. In version 1, the best estimate."""
    backend_share_high: Share | None = None
    """The same: at most this."""
    unattributed_bytes: Bytes = 0
    """Bytes that may or may not have been exchanged with peers, summed over the nodes."""
    proof: Proof
    proof_reason: str = ""
    """Reason why the share is unknown, or how it was measured or inferred."""
    min_share: Share | None = None
    """Value of --min-share."""
    min_share_verdict: Verdict | None = None
    """``missed`` if even ``backend_share_high`` is below min_share; ``not-proven`` if only backend_share is."""
    measured: Measured | None = None
    ranks: tuple[RankResult, ...]
    """In a job of more than 64 workers without --full-receipt, only ranks whose exit code is not 0, and at most 256."""
    ranks_omitted: dict[str, Count] = {}
    """Number of ranks left out, by exit code; ``unknown`` if it was not started or its worker was lost."""
    rails: tuple[RailBytes, ...] = ()
    nodes: tuple[NodeReceipt, ...]
    findings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _unknown_is_null(self) -> Receipt:
        if self.proof == "unknown" and self.backend_share is not None:
            raise ValueError(f"backend_share is {self.backend_share}, but must be null if proof is unknown")
        if self.backend_share_high is not None and self.backend_share_high < (self.backend_share or 0):
            raise ValueError("backend_share_high must not be below backend_share")
        return self


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the job's receipt."""
    body = Receipt.model_json_schema(by_alias=True)
    unknown_is_null = {
        "if": {"properties": {"proof": {"const": "unknown"}}},
        "then": {"properties": {"backend_share": {"type": "null"}}},
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": RECEIPT_SCHEMA}
    return {**head, **body, **unknown_is_null}


def schema_text() -> str:
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
