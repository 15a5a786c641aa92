"""What the agents write is what the launcher's model reads, field by field."""

from __future__ import annotations

from dataclasses import replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from torchnet.agent import command_line, receipt_shape
from torchnet.agent import receipt as agents
from torchnet.agent.accounting import Flow, TrafficTotals
from torchnet.agent.events import Failure
from torchnet.agent.link_monitor import LinkFlap
from torchnet.agent.rdma_counters import RdmaDevice
from torchnet.agent.spec import AgentSpec
from torchnet.agent.transports import Transports
from torchnet.linux.rtnetlink import Counters
from torchnet.network.address_sources import AddressSourceKind
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable
from torchnet.receipt.receipt_model import Receipt
from torchnet.receipt.table import render

TABLE = PeerTable(
    tuple(PeerRow(n, f"node-{n}", "", (PeerRail("net1", f"fcbb::{n}", 9000),)) for n in range(2))
)
RAIL = Rail(
    index=0,
    attachment=NetworkAttachment("a", "b", "net1"),
    interface="net1",
    address="fcbb::1",
    family=6,
    prefix=64,
    mtu=9000,
    notes=(),
)
FAILURE = Failure(
    "script", "rank 1 on node-1 exited with code 42", 42, rank=1, node="node-1", at=1.0, tail=["boom"]
)


def spec(node_rank: int) -> AgentSpec:
    return AgentSpec(
        run_id="train-7f3a",
        nnodes=2,
        node_rank=node_rank,
        nproc_per_node=1,
        command=("train.py",),
        token="",
        python="python",
        name=f"node-{node_rank}",
        network="namespaces",
        min_share=0.5,
    )


def worker(node_rank: int, traffic: TrafficTotals | None) -> dict[str, Any]:
    flaps = [LinkFlap("net1", 1.0, 0.5)]
    rdma = Transports((RdmaDevice("mlx5_0", True, True, True, 7, 0, "counters"),))
    return agents.worker(spec(node_rank), TABLE, [RAIL], traffic, {str(node_rank): 0}, flaps, rdma)


def job(failure: Failure | None, traffic: TrafficTotals | None) -> dict[str, Any]:
    receipts = [worker(n, traffic) for n in range(2)]
    return agents.job(
        spec=spec(0),
        receipts=receipts,
        attachments=(RAIL.attachment,),
        failure=failure,
        began=0.0,
        restarts=1,
        now=12.0,
    )


# What a dict of `receipt_shape` stands for, by field: a dataclass of the agent's.
DATACLASSES = {"failure": Failure, "flaps": LinkFlap}
# Null where agents write; the launcher fills it in (torchnet.receipt.step_timing).
LATER = {"measured"}


def fields_of(kind: Any) -> dict[str, Any]:
    """The fields of a model, a TypedDict or a dataclass with their types."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        hints = get_type_hints(kind)
        return {field.alias or name: hints[name] for name, field in kind.model_fields.items()}
    return get_type_hints(kind)


def plain(kind: Any, name: str = "") -> Any:
    """A type as data to compare: a record is its fields' types, a union or Literal a set, a tuple a list."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        return frozenset(plain(one, name) for one in args)
    if origin is Literal:
        return frozenset(args)
    if origin in (list, tuple):
        return ("list", plain(args[0], name))
    if origin is dict:
        return plain(DATACLASSES[name]) if name in DATACLASSES else ("dict", *map(plain, args))
    if hasattr(kind, "__annotations__"):
        return frozenset((key, plain(one, key)) for key, one in fields_of(kind).items() if key not in LATER)
    return kind


def test_the_types_that_receipts_are_written_by_are_the_models() -> None:
    """Each field, its type, the words of a Literal, and whether it can be null, all the way down."""
    written, read = plain(receipt_shape.JobReceipt), plain(Receipt)
    versions = dict(read).pop("schema")
    assert dict(written) | {"schema": versions} == dict(read)
    assert dict(written)["schema"] < versions  # it also reads older ones
    assert get_type_hints(receipt_shape.JobReceipt)["measured"] is NoneType


def test_what_agents_write_is_known_and_complete() -> None:
    traffic = TrafficTotals(
        peers={(1, "net1"): Flow(1_000_000, 2_000_000, 100, 100)},
        others={"eth0": Flow(5, 5, 1, 1)},
        counters={"net1": Counters(1_010_000, 2_020_000), "eth0": Counters(100, 100)},
    )
    for failure in (None, FAILURE):
        for counted in (traffic, None):
            written = job(failure, counted)
            read = Receipt.model_validate(written)
            # Nothing is filled in by the model: the agents write every field.
            assert read.model_dump(by_alias=True, exclude_unset=True, mode="json") == written
            assert read.model_dump(by_alias=True, mode="json") == written
            assert render(read)


def test_a_job_without_receipts_can_be_read() -> None:
    written = agents.job(
        spec=spec(0), receipts=[], attachments=(RAIL.attachment,), failure=FAILURE, began=0.0, restarts=0
    )
    read = Receipt.model_validate(written)
    assert read.backend_share is None
    assert "backend share unknown: no worker left a receipt" in render(read)


SOURCES = {"multus-status": "multus-status", "host": "host:eth1", "static": "static:net1=fcbb::1/64"}


def test_the_model_reads_every_address_source() -> None:
    assert set(SOURCES) == set(get_args(AddressSourceKind))
    for kind, value in SOURCES.items():
        options = command_line.parse(["--run-id", "train", "--address-source", value, "train.py"])
        network = command_line.spec_of(options, joins=False).network
        one = replace(spec(0), network=network)
        written = agents.job(
            spec=one,
            receipts=[worker(0, None)],
            attachments=(RAIL.attachment,),
            failure=None,
            began=0.0,
            restarts=0,
            now=1.0,
        )
        assert (kind, network, Receipt.model_validate(written).network) == (kind, kind, kind)
