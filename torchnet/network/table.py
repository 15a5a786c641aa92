"""The job's table: who has which addresses. Rank 0 makes it, everybody gets the same bytes.

On the wire it is JSON by columns, compressed with zlib: what all rows share (interfaces, MTUs, an address's
prefix) then costs next to nothing, and a Kubernetes pod's UID, 15 bytes of chance, is most of a row.
"""

from __future__ import annotations

import ipaddress
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from torchnet.errors import NetworkError
from torchnet.network.status import canonical
from torchnet.network.text import listed, printable

# 10,000 workers with 8 rails are 4 MB of JSON. Python's objects for the worst 8 MiB of JSON stay below 200 MB.
MAX_BYTES = 8 << 20
MAX_ROWS = 10_000
MAX_RAILS = 8
_FORMAT = 1
# Names go into hosts files, so nothing that could begin a new field or line there.
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class RailRow:
    """A worker's address on one rail: canonical, without prefix length; ``mtu`` in bytes."""

    interface: str
    address: str
    mtu: int


@dataclass(frozen=True)
class Row:
    """One worker; ``name`` is its node's or pod's name, ``eth0`` its addresses outside the backend."""

    node_rank: int
    name: str
    uid: str
    rails: tuple[RailRow, ...]
    eth0: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Problem:
    """Why a job with this table must not start. ``kind`` is duplicate, family, mtu, rails or rank."""

    kind: str
    text: str
    nodes: tuple[str, ...]
    fix: str = ""


def encode(table: Table) -> bytes:
    """The table's bytes: the same for the same table, about 32 bytes a row at 1,000 rows with random UIDs."""
    kinds: dict[tuple[tuple[str, int], ...], int] = {}
    shapes = [kinds.setdefault(tuple((r.interface, r.mtu) for r in row.rails), len(kinds)) for row in table.rows]
    value = {
        "format": _FORMAT,
        "kinds": [[list(pair) for pair in kind] for kind in kinds],
        "kind": shapes,
        "rank": [row.node_rank for row in table.rows],
        "name": [row.name for row in table.rows],
        "uid": [row.uid for row in table.rows],
        "address": [[rail.address for rail in row.rails] for row in table.rows],
        "eth0": [list(row.eth0) for row in table.rows],
    }
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode("ascii"), 9)


def decode(data: bytes) -> Table:
    """The table of :func:`encode`'s bytes.

    Raises NetworkError for anything else: no zlib stream or not exactly one, more than 8 MiB of JSON, wrong
    types, no IP addresses, names that could not stand in a hosts file, more than 10,000 rows or 8 rails.
    """
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        _refuse(f"is no zlib stream ({error})")
    if len(text) > MAX_BYTES:
        _refuse(f"is larger than {MAX_BYTES:,} bytes")
    if not unpack.eof or unpack.unused_data:
        _refuse("is cut short" if not unpack.eof else "has bytes after its end")
    try:
        value = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError):
        _refuse("is no JSON")
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        _refuse("has another format: all workers must run the same torchnet")
    return Table(_rows(value))


def check(table: Table) -> list[Problem]:
    """Everything that keeps the job from starting, all at once; time is linear in the table."""
    found = _ranks(table)
    found += _duplicates(table, "name", lambda row: [row.name])
    found += _duplicates(table, "UID", lambda row: [row.uid] if row.uid else [])
    found += _duplicates(table, "address", lambda row: [rail.address for rail in row.rails])
    found += _unequal(
        table,
        "rails",
        lambda row: {len(row.rails)},
        lambda count: f"{count} rail{'' if count == 1 else 's'}",
        "attach every worker to the same backend networks",
    )
    found += _unequal(
        table,
        "family",
        lambda row: {ipaddress.ip_address(rail.address).version for rail in row.rails},
        lambda version: f"IPv{version}",
        "give all workers addresses of one family, or choose one with --family",
    )
    for index in range(max((len(row.rails) for row in table.rows), default=0)):
        found += _unequal(
            table,
            "mtu",
            lambda row, index=index: {rail.mtu for rail in row.rails[index : index + 1]},  # type: ignore[misc]
            lambda mtu: f"MTU {mtu}",
            "set one MTU on the parent cards (ens5) of all nodes and recreate the workers",
            f"rail {index + 1}: ",
        )
    return found


def refusal(problems: list[Problem]) -> NetworkError:
    """One error that says all of ``problems``, and the fixes."""
    fixes = dict.fromkeys(problem.fix for problem in problems if problem.fix)
    return NetworkError("\n".join(problem.text for problem in problems), fix="; ".join(fixes))


def _ranks(table: Table) -> list[Problem]:
    holders: dict[int, list[str]] = {}
    for row in table.rows:
        holders.setdefault(row.node_rank, []).append(row.name)
    fix = "give each worker its own --node-rank, 0 to nnodes-1"
    found = [
        Problem("rank", f"node rank {rank} belongs to {listed(names)}", tuple(names), fix)
        for rank, names in holders.items()
        if len(names) > 1
    ]
    missing = [str(rank) for rank in range(len(table.rows)) if rank not in holders]
    if missing and not found:
        found.append(Problem("rank", f"of {len(table.rows)} workers none has node rank {listed(missing)}", (), fix))
    return found


def _duplicates(table: Table, what: str, values: Callable[[Row], list[str]]) -> list[Problem]:
    holders: dict[str, list[str]] = {}
    for row in table.rows:
        for value in values(row):
            holders.setdefault(value, []).append(f"{row.name} (node rank {row.node_rank})")
    return [
        Problem(
            "duplicate",
            f"{what} {printable(value, 120)} belongs to {listed(names)}",
            tuple(dict.fromkeys(name.rpartition(" (node rank ")[0] for name in names)),
            "recreate one of the workers; an ipam with one pool for all nodes (Whereabouts) keeps addresses apart"
            if what == "address"
            else "give each worker its own name and start it once",
        )
        for value, names in holders.items()
        if len(names) > 1
    ]


def _unequal(
    table: Table,
    kind: str,
    values: Callable[[Row], set[int]],
    say: Callable[[int], str],
    fix: str,
    where: str = "",
) -> list[Problem]:
    holders: dict[int, list[str]] = {}
    for row in table.rows:
        for value in values(row):
            holders.setdefault(value, []).append(row.name)
    if len(holders) < 2:
        return []
    # The rarest first: it is most likely the wrong one.
    groups = sorted(holders.items(), key=lambda group: (len(group[1]), group[0]))
    text = where + ", ".join(f"{say(value)} on {listed(names)}" for value, names in groups)
    return [Problem(kind, text, tuple(names[0] for _, names in groups), fix)]


def _rows(value: dict[str, Any]) -> tuple[Row, ...]:
    count = len(_list(value.get("rank"), "rank"))
    if count > MAX_ROWS:
        _refuse(f"has {count:,} rows, at most {MAX_ROWS:,} are read")
    columns = [_list(value.get(key), key) for key in ("kind", "rank", "name", "uid", "address", "eth0")]
    if any(len(column) != count for column in columns):
        _refuse("has columns of unequal length")
    kinds = [_kind(kind) for kind in _list(value.get("kinds"), "kinds")]
    return tuple(_row(kinds, *cells) for cells in zip(*columns))


def _row(kinds: list[list[tuple[str, int]]], kind: Any, rank: Any, name: Any, uid: Any, address: Any, eth0: Any) -> Row:
    if not _whole(kind, len(kinds)) or not _whole(rank, MAX_ROWS):
        _refuse("has a wrong rank or kind")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        _refuse("has a name that is no host name")
    if not isinstance(uid, str) or len(uid) > 253:
        _refuse("has a wrong UID")
    shape, addresses = kinds[kind], _addresses(address)
    if len(addresses) != len(shape):
        _refuse("has addresses for another number of rails")
    rails = tuple(RailRow(interface, ip, mtu) for (interface, mtu), ip in zip(shape, addresses))
    return Row(rank, name, uid, rails, _addresses(eth0))


def _kind(value: Any) -> list[tuple[str, int]]:
    rails = _list(value, "kinds")
    if len(rails) > MAX_RAILS:
        _refuse(f"has {len(rails)} rails, at most {MAX_RAILS} are used")
    for rail in rails:
        if not isinstance(rail, list) or len(rail) != 2 or not isinstance(rail[0], str) or len(rail[0]) > 15:
            _refuse("has a wrong rail")
        if not _whole(rail[1], 1 << 31):
            _refuse("has a wrong MTU")
    return [(rail[0], rail[1]) for rail in rails]


def _addresses(value: Any) -> tuple[str, ...]:
    found = [canonical(text) if isinstance(text, str) else None for text in _list(value, "address")]
    if None in found:
        _refuse("has something that is no IP address")
    return tuple(address for address in found if address is not None)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        _refuse(f"has no column {name}")
    return value


def _whole(value: Any, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError
    return int(digits)


def _refuse(text: str) -> NoReturn:
    raise NetworkError(f"the job's table {text}", fix="check that every worker runs the same version of torchnet")
