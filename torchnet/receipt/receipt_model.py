"""Model of the job's receipt, with which the launcher validates it; the source of ``receipt.schema.json``.

`torchnet.agent.receipt_shape` has the types by which receipts are written; a test compares them with this model. Within
"torchnet.receipt/1", fields may be added, but not removed or changed. Unknown fields are kept, so that the receipt of a
newer agent can be read.

``python -m torchnet.receipt.receipt_model`` regenerates the schema; a test compares it with the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from torchnet.agent.events import Kind
from torchnet.agent.receipt_shape import Proof
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
    """The first failure, which is the job's."""

    kind: Kind
    rank: Count | None = None
    node: str | None = None
    code: int
    """The exit code that it gives the job; a signal is 128 + its number."""
    text: str
    tail: tuple[str, ...] = ()
    """The last lines that the rank printed."""
    at: float
    """Unix time in seconds."""


class RankResult(_Part):
    """How one process ended."""

    rank: Count
    local_rank: Count
    node: str
    exit_code: int | None
    """Null: it was never started, or its worker vanished."""


class RailBytes(_Part):
    """One backend network over all nodes."""

    interface: str
    attachment: str | None = None
    """``NAMESPACE/NAME`` of the NetworkAttachmentDefinition, or of the local network in its place. Null if no
    attachment added the interface (``host:``, loopback), and in receipts of earlier versions.
    """
    peer_bytes: Bytes
    """Sent and received with peers over this rail, summed over the nodes."""
    share: Share | None
    """Of what was exchanged over all rails; null if nothing was."""


class InterfaceBytes(_Part):
    """The kernel's counters of one interface between the start and the end, headers included."""

    role: Literal["backend", "frontend", "other"]
    sent_bytes: Bytes
    received_bytes: Bytes


class PeerBytes(_Part):
    """TCP payload exchanged with one peer over one of the own interfaces."""

    node: str
    interface: str
    sent_bytes: Bytes
    received_bytes: Bytes


class Flap(_Part):
    """A time without link or address that was survived."""

    interface: str
    at_s: Seconds
    """Seconds after the start."""
    duration_s: Seconds


class Series(_Part):
    """With --measure: what left on a worker's rails (headers included), sample by sample. The launcher makes
    ``measured`` of it, and leaves it out then.
    """

    sample_s: float = Field(gt=0)
    unit_bytes: int = Field(ge=1)
    block_samples: int = Field(ge=1)
    blocks: dict[str, str]
    """By number, for block 0 begins at the start: whole numbers of units as text, compressed (zlib), in base64."""


class Measured(_Part):
    """With --measure: the backend's traffic in time, as medians of the nodes that were sampled. What could not be told
    from the samples is null.
    """

    nodes: Count
    """Of so many, the first ones."""
    sample_s: Seconds
    observed_s: Seconds
    """From the first to the last traffic, as far as it was sampled."""
    idle_share: Share | None
    """Of a step where steps_per_s is known, else of that time: the backend carried nothing but a trickle."""
    busbw: Rate | None
    """Bytes per second that a node sent while it was not idle, headers included; in a ring that is the bus bandwidth
    of nccl-tests."""
    peak: Rate | None
    """The same at the busiest: a twentieth of the samples had more."""
    line_share: Rate | None
    """busbw over the rate of all rails, where that is known."""
    steps_per_s: Rate | None
    step_bytes: Rate | None
    """Sent by a node in each step."""
    step_active_s: Rate | None
    """Seconds of each step in which the backend carried its bytes."""
    why: str = ""
    """Why something is null."""


class NodeReceipt(_Part):
    """One worker's account."""

    node: str
    node_rank: Count
    interfaces: dict[str, InterfaceBytes]
    peer_bytes: Bytes
    """Sent to and received from the job's other workers, over anything."""
    other_bytes: Bytes
    """Sent to and received from anybody else: data, checkpoints, metrics."""
    peers: tuple[PeerBytes, ...] = ()
    rdma_bytes: dict[str, Bytes] = {}
    """Sent and received by each RDMA port (``mlx5_0/1``) on a rail: the kernel's counts do not see them."""
    rdma_stray: dict[str, Bytes] = {}
    """The same, where nothing tells which port is on a rail: the share is unknown then."""
    proof: Proof = "unknown"
    flaps: tuple[Flap, ...] = ()
    findings: tuple[str, ...] = ()
    series: Series | None = None


class Receipt(_Part):
    """Who exchanged how many bytes with whom over which interface, and how the job ended."""

    schema_id: Literal["torchnet.receipt/1"] = Field(alias="schema")
    run_id: str
    runtime: Runtime
    network: NetworkKind
    exit_code: int = Field(ge=0, le=255)
    reason: str
    """In words: "done", "rank 3 on node-1 exited with code 42". A script's code can look like one of
    torchnet's own.
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
    """Bytes exchanged with peers over the backend / with peers over anything; null if it is not known, never
    1 then.
    """
    proof: Proof
    proof_reason: str = ""
    """Why the share is not known, or how it was inferred."""
    min_share: Share | None = None
    """What --min-share asked for."""
    measured: Measured | None = None
    ranks: tuple[RankResult, ...]
    rails: tuple[RailBytes, ...] = ()
    nodes: tuple[NodeReceipt, ...]
    findings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _unknown_is_null(self) -> Receipt:
        if self.proof == "unknown" and self.backend_share is not None:
            raise ValueError(
                f"backend_share is {self.backend_share} though proof is unknown: it must be null"
            )
        return self


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the job's receipt."""
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
