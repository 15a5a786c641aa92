"""The messages between agents: one dataclass each, their encoding and its validation.

    worker -> rank 0    JoinRequest (in the handshake, signed), then WorkerMessage
    rank 0 -> worker    CoordinatorMessage

A message is a JSON object, ``{"type": CLASS, FIELD: VALUE, …}``. A newer version may add fields with defaults, and
messages that an older one can do without: unknown fields and unknown types are ignored. Anything else that differs
from the declarations below is an InvalidMessageError, and ends the connection.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, get_args

from torchnet.agent.events import Failure
from torchnet.agent.share_bounds import Reason
from torchnet.errors import NetworkError
from torchnet.network import peer_table
from torchnet.network.path_diagnosis import LinkType, PathView
from torchnet.network.peer_table import PeerRow, PeerTable
from torchnet.text import printable

Count = int
ExitCode = int
Port = int
Receipt = dict[str, Any]  # a worker's, as torchnet.agent.receipt builds it


class InvalidMessageError(ValueError):
    """A message is malformed, or its type is not one that the sender may send now."""


@dataclass(frozen=True)
class JoinRequest:
    """A worker introduces itself.

    Attributes:
        start: the start attempt of the whole job.
    """

    row: PeerRow
    run: str
    nnodes: Count
    start: str = ""


@dataclass(frozen=True)
class Heartbeat:
    """Sent in both directions, once a second or less often (torchnet.agent.heartbeat).

    Attributes:
        bytes: that the worker has exchanged with its peers so far.
        frozen: whether the worker's processes are stopped (Ctrl-Z).
        progress: the number of seconds so far in which the worker's processes made progress.
        blocked: a sentence on the ranks that wait because their output is not read, or "".
        trickle: the number of seconds so far with less than that (torchnet.agent.progress_meter).
        unseen: why the worker may move data that it cannot count, or "".
    """

    bytes: Count = 0
    frozen: bool = False
    progress: Count = 0
    blocked: str = ""
    trickle: Count = 0
    unseen: str = ""


@dataclass(frozen=True)
class PreflightResult:
    """The faulty paths to the peers, a sentence each, or the number of good ones; ``round`` is the table's.

    ``view``, for the comparison of both ends, is not there if the problems are of another kind than silent peers.
    """

    round: Count
    problems: tuple[str, ...] = ()
    paths: Count = 0
    view: PathView | None = None


@dataclass(frozen=True)
class WorkerFailed:
    failure: Failure


@dataclass(frozen=True)
class Kill:
    """End the processes of all workers, which are being stopped, without the rest of their grace period."""


@dataclass(frozen=True)
class RanksEnded:
    """All ranks of this attempt ended with exit code 0; what they have left behind may still run."""

    attempt: Count


@dataclass(frozen=True)
class Interrupted:
    """A worker whose ranks have ended was told to stop: ends what is left behind if all have ended, else the job."""

    failure: Failure


@dataclass(frozen=True)
class EndLeftovers:
    """End what ranks have left behind: all of the job's have ended with exit code 0."""


@dataclass(frozen=True)
class ProcessesEnded:
    """All processes of this attempt ended with exit code 0."""

    attempt: Count


@dataclass(frozen=True)
class ProcessesStopped:
    """No process is left; ``row`` holds the addresses for the restart, if there is one."""

    row: PeerRow | None = None


@dataclass(frozen=True)
class Stacks:
    """The Python stacks by rank ("" without a stack), and a sentence for each peer that acknowledges no data."""

    stacks: dict[str, str]
    stuck: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorkerReceipt:
    receipt: Receipt


@dataclass(frozen=True)
class Rejection:
    """The worker may not join; the last message on the connection."""

    failure: Failure


@dataclass(frozen=True)
class Table:
    """All workers have joined; ``round`` is that of the exchange, which the answers repeat."""

    attempt: Count
    round: Count
    table: PeerTable


@dataclass(frozen=True)
class Start:
    """Start the processes; ``port`` is the store's."""

    port: Port


@dataclass(frozen=True)
class Stop:
    """Stop the processes because of ``failure``, for a restart or for good; ``at_once``: without a grace period."""

    failure: Failure
    restart: bool = False
    at_once: bool = False


@dataclass(frozen=True)
class StacksRequest:
    pass


@dataclass(frozen=True)
class ReceiptRequest:
    pass


@dataclass(frozen=True)
class Over:
    """The last message: the worker's exit code."""

    code: ExitCode


WorkerMessage = (
    Heartbeat
    | PreflightResult
    | WorkerFailed
    | Kill
    | RanksEnded
    | Interrupted
    | ProcessesEnded
    | ProcessesStopped
    | Stacks
    | WorkerReceipt
)
CoordinatorMessage = (
    Heartbeat | Rejection | Table | Start | Stop | StacksRequest | EndLeftovers | ReceiptRequest | Over
)
Message = JoinRequest | WorkerMessage | CoordinatorMessage


def encode(message: Message) -> dict[str, Any]:
    """Return the JSON object of a message."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}
    return {"type": type(message).__name__} | {name: _plain(value) for name, value in values.items()}


def decode_join_request(data: Mapping[str, Any]) -> JoinRequest:
    """Validate a join request.

    Raises:
        InvalidMessageError: it is malformed.
    """
    message = _decode(data, {"JoinRequest": JoinRequest})
    if message is None:
        raise InvalidMessageError(f"its type is {_shown(data['type'])}, not JoinRequest")
    assert isinstance(message, JoinRequest)
    return message


def decode_from_worker(data: Mapping[str, Any]) -> WorkerMessage | None:
    """Validate a worker's message; return None for an unknown type.

    Raises:
        InvalidMessageError: it is malformed, or only the coordinator may send it.
    """
    message: WorkerMessage | None = _decode(data, _FROM_WORKER)
    return message


def decode_from_coordinator(data: Mapping[str, Any]) -> CoordinatorMessage | None:
    """Validate the coordinator's message; return None for an unknown type.

    Raises:
        InvalidMessageError: it is malformed, or only a worker may send it.
    """
    message: CoordinatorMessage | None = _decode(data, _FROM_COORDINATOR)
    return message


def encode_row(row: PeerRow) -> str:
    """Encode one worker's row as text, in the table's encoding."""
    return _base64(PeerTable((row,)))


def decode_row(text: object) -> PeerRow:
    """Decode :func:`encode_row`'s text.

    Raises:
        ValueError: it is not exactly one row with at least one rail.
    """
    rows = _table(text).rows
    if len(rows) != 1 or not rows[0].rails:
        raise ValueError("is not one worker with at least one rail")
    return rows[0]


TYPES: dict[str, type] = {
    cls.__name__: cls for cls in (JoinRequest, *get_args(WorkerMessage), *get_args(CoordinatorMessage))
}
_FROM_WORKER: dict[str, type] = {cls.__name__: cls for cls in get_args(WorkerMessage)}
_FROM_COORDINATOR: dict[str, type] = {cls.__name__: cls for cls in get_args(CoordinatorMessage)}
_MAX_INTEGER = 1 << 63
_MAX_TEXT = 1 << 20  # characters; a frame has at most 8 MiB
_MAX_ITEMS = 10_000


def _decode(data: Mapping[str, Any], allowed: Mapping[str, type]) -> Any:
    name = data.get("type")
    if not isinstance(name, str):
        raise InvalidMessageError(f"its type is {_shown(name)}, not a string")
    cls = allowed.get(name)
    if cls is None:
        if name in TYPES:
            raise InvalidMessageError(f"{name} is not a message that this end of the connection sends")
        return None
    values = {}
    for f in fields(cls):
        if f.name not in data and f.default is not MISSING:
            continue
        try:
            values[f.name] = READERS[str(f.type)](data.get(f.name))
        except (ValueError, NetworkError, RecursionError) as error:
            raise InvalidMessageError(f"{name}.{f.name} {error}") from None
    return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, PeerRow):
        return encode_row(value)
    if isinstance(value, PeerTable):
        return _base64(value)
    return asdict(value) if isinstance(value, Failure | PathView) else value


def _base64(table: PeerTable) -> str:
    return base64.b64encode(peer_table.encode(table)).decode()


def _table(value: object) -> PeerTable:
    try:
        return peer_table.decode(base64.b64decode(value, validate=True))  # type: ignore[arg-type]
    except (TypeError, binascii.Error):
        raise ValueError(f"is {_shown(value)}, not base64") from None
    except ValueError as error:  # characters that are not ASCII
        raise ValueError(f"is not base64: {error}") from None


def _integer(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"is {_shown(value)}, not an integer from {least} to {most}")
        return value

    return read


_count = _integer(0, _MAX_INTEGER - 1)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"is {_shown(value)}, not true or false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is {_shown(value)}, not a string")
    if len(value) > _MAX_TEXT:
        raise ValueError(f"has {len(value):,} characters, at most {_MAX_TEXT:,} are allowed")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise ValueError(f"is {_shown(value)}, not a list of at most {_MAX_ITEMS:,} strings")
    return tuple(_text(item) for item in value)


def _by_rank(value: object, read: Callable[[object], Any] = _text) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
        raise ValueError(f"is {_shown(value)}, not an object of at most {_MAX_ITEMS:,} members")
    for rank in value:
        if not (rank.isascii() and rank.isdigit() and len(rank) < 10):
            raise ValueError(f"has the key {_shown(rank)}, not a rank")
    return {rank: read(item) for rank, item in value.items()}


def _receipt(value: object) -> Receipt:
    """Check those parts of a worker's receipt that the job's receipt is computed from."""
    if not isinstance(value, dict):
        raise ValueError(f"is {_shown(value)}, not an object")
    try:
        for key in ("node", "proof"):
            _text(value[key])
        for key in ("node_rank", "peer_bytes", "other_bytes"):
            _count(value[key])
        _texts(value["findings"])
        _by_rank(value["codes"], _integer(0, 255))
        for key in ("rdma_bytes", "rdma_stray"):
            for count in value.get(key, {}).values():
                _count(count)
        for interface in value["interfaces"].values():
            _text(interface["role"])
            _count(interface["peer_bytes"])
        for peer in value["peers"]:
            _text(peer["interface"])
            _count(peer["sent_bytes"])
            _count(peer["received_bytes"])
        if len(list(map(_count, value["payload"]))) != 4:
            raise ValueError(f"has {len(value['payload'])} limits of the payload, not 4")
        for one in value["unattributed"]:
            _text(one["interface"])
            _count(one["bytes"])
            if one["reason"] not in get_args(Reason):
                raise ValueError(f"has the reason {_shown(one['reason'])}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"is not a worker's receipt: {error!r}") from None
    return value


def _failure(value: object) -> Failure:
    if not isinstance(value, dict):
        raise ValueError(f"is {_shown(value)}, not an object")
    return Failure.read(value)


def _view(value: object) -> PathView | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"is {_shown(value)}, not an object")
    try:
        links = tuple(
            LinkType(_text(one["kind"]), _text(one["mode"]), _PREFIX(one["prefix"]))
            for one in _items(value["links"])
        )
        silent, heard = (
            tuple((_count(peer), _count(rail)) for peer, rail in _items(value[key]))
            for key in ("silent", "heard")
        )
        return PathView(_text(value["host"]), links, silent, heard)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"is not a view of the paths: {error!r}") from None


def _items(value: object) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise ValueError(f"is {_shown(value)}, not a list of at most {_MAX_ITEMS:,} items")
    return value


_PREFIX = _integer(0, 128)


def _shown(value: object) -> str:
    return printable(repr(value), 80)


# By the declared type of a field.
READERS: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "str": _text,
    "Count": _count,
    "ExitCode": _integer(0, 255),
    "Port": _integer(1, 65535),
    "Failure": _failure,
    "PeerRow": decode_row,
    "PeerRow | None": lambda value: None if value is None else decode_row(value),
    "PeerTable": _table,
    "PathView | None": _view,
    "Receipt": _receipt,
    "tuple[str, ...]": _texts,
    "dict[str, str]": _by_rank,
}
