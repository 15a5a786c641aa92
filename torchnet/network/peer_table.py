"""The job's peer table: the addresses of all workers. Rank 0 builds it, and all get the same bytes.

On the wire it is JSON by columns, compressed with zlib: what rows share (interfaces, MTUs, address prefixes)
costs next to nothing, and a Kubernetes UID, 15 random bytes, is half a row. JSON by rows took a third more.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from torchnet.constants import MAX_RAILS
from torchnet.errors import NetworkError
from torchnet.network.network_status import canonical
from torchnet.text import listed, loads, printable

# 10,000 workers with 16 rails take 4.6 MB of JSON, 8.4 MB with the longest names and addresses. The worst 12
# MiB of JSON become about 300 MB of objects; only a rank 0 that holds the job's token could send them.
MAX_SIZE = 12 << 20
MAX_ROWS = 10_000
_FORMAT = 1
_COLUMNS = ("kind", "rank", "name", "uid", "address", "eth0")
# Names go into hosts files, where they must not start another field or line.
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")

_Kind = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PeerRail:
    """A worker's address on one rail: canonical, without prefix length; ``mtu`` in bytes."""

    interface: str
    address: str
    mtu: int


@dataclass(frozen=True)
class PeerRow:
    """One worker; ``name`` is the node's or pod's name, ``eth0`` the addresses outside the backend."""

    node_rank: int
    name: str
    uid: str
    rails: tuple[PeerRail, ...]
    eth0: tuple[str, ...] = ()


@dataclass(frozen=True)
class PeerTable:
    rows: tuple[PeerRow, ...]


@dataclass(frozen=True)
class TableProblem:
    """A reason not to start a job; ``kind`` is rank, duplicate, rails, family or mtu, ``nodes`` are names."""

    kind: str
    text: str
    nodes: tuple[str, ...]
    fix: str = ""


def encode(table: PeerTable) -> bytes:
    """Encode the table, deterministically: about 33 bytes a row at 1,000 rows with random UIDs."""
    kinds: dict[_Kind, int] = {}
    for row in table.rows:
        kinds.setdefault(_kind_of(row), len(kinds))
    value = {
        "format": _FORMAT,
        "kinds": list(kinds),
        "kind": [kinds[_kind_of(row)] for row in table.rows],
        "rank": [row.node_rank for row in table.rows],
        "name": [row.name for row in table.rows],
        "uid": [row.uid for row in table.rows],
        "address": [[rail.address for rail in row.rails] for row in table.rows],
        "eth0": [row.eth0 for row in table.rows],
    }
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode("ascii"), 9)


def decode(data: bytes) -> PeerTable:
    """Decode :func:`encode`'s bytes.

    Raises:
        NetworkError: anything else: not exactly one zlib stream, more than 12 MiB of JSON, wrong types or
            addresses, names that a hosts file cannot hold, more than 10,000 rows or 16 rails.
    """
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(data, MAX_SIZE + 1)
    except zlib.error as error:
        _refuse(f"is not a zlib stream ({error})")
    if len(text) > MAX_SIZE:
        _refuse(f"is larger than {MAX_SIZE:,} bytes")
    if not unpack.eof or unpack.unused_data:
        _refuse("has extra bytes at the end" if unpack.eof else "is truncated")
    try:
        value = loads(text, max_size=MAX_SIZE)
    except ValueError as error:
        _refuse(str(error))
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        _refuse("has an unknown format")
    return PeerTable(_rows(value))


def fingerprint(table: PeerTable) -> str:
    """Hash what tells one set of workers from another: ranks, UIDs, interfaces, addresses, MTUs; not eth0 or names."""
    import hashlib  # loads OpenSSL, which a pod's preparation does without

    seen = [
        [row.node_rank, row.uid, [[r.interface, r.address, r.mtu] for r in row.rails]] for row in table.rows
    ]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def owners(table: PeerTable) -> dict[str, int | None]:
    """Map each address to its node rank; None if several workers have it outside their rails (docker0, node DNS)."""
    found: dict[str, int | None] = {}
    for row in table.rows:
        for address in row.eth0:
            found[address] = None if found.get(address, row.node_rank) != row.node_rank else row.node_rank
    return found | {rail.address: row.node_rank for row in table.rows for rail in row.rails}


def check(table: PeerTable) -> list[TableProblem]:
    """Return everything that keeps the job from starting; linear time (10,000 rows: about 0.1 s)."""
    rows = table.rows
    found = _ranks(rows)
    found += _duplicates("name", ((row.name, row, "") for row in rows), _ONE_EACH)
    # Workers with the same name are reported above; these have different names and one UID.
    named = {row.name: row for row in rows}.values()
    found += _duplicates("UID", ((row.uid, row, "") for row in named if row.uid), _ONE_EACH)
    # On loopback all workers are one machine, which rightly shares its addresses.
    own = ((r.address, row, f" {r.interface}") for row in rows for r in row.rails if not _loopback(r.address))
    found += _duplicates("address", own, _ONE_POOL)
    found += _unequal("rails", ((len(row.rails), row) for row in rows), _count, _SAME_NETWORKS)
    versions = dict.fromkeys((_version(r.address), row) for row in rows for r in row.rails)
    found += _unequal("family", versions, lambda version: f"IPv{version}", ONE_FAMILY)
    for index in range(max((len(row.rails) for row in rows), default=0)):
        sizes = ((row.rails[index].mtu, row) for row in rows if index < len(row.rails))
        interfaces = dict.fromkeys(row.rails[index].interface for row in rows if index < len(row.rails))
        where = f"rail {index + 1} ({listed(list(interfaces))}): "
        found += _unequal("mtu", sizes, lambda mtu: f"MTU {mtu}", _ONE_MTU, where)
    return found


def refusal(problems: Iterable[TableProblem]) -> NetworkError:
    """Combine ``problems`` into one error: the first ten texts, and all fixes."""
    texts = [problem.text for problem in problems]
    if len(texts) > 10:
        texts[10:] = [f"and {len(texts) - 10} more"]
    fixes = dict.fromkeys(problem.fix for problem in problems if problem.fix)
    return NetworkError("\n".join(texts), fix="; ".join(fixes))


_ONE_RANK = "set a different node rank for each worker, 0 to nnodes-1"
_ONE_EACH = "set a different name for each worker, and start each once"
_ONE_POOL = (
    "recreate one of them; an ipam with one pool for all nodes, such as Whereabouts, avoids duplicates"
)
_SAME_NETWORKS = "attach every worker to the same backend networks"
ONE_FAMILY = "use addresses of one family for all workers, or select one with --family"
_ONE_MTU = "set the same MTU on the parent cards of all nodes, and recreate the workers"


def _ranks(rows: tuple[PeerRow, ...]) -> list[TableProblem]:
    found = _duplicates("node rank", ((str(row.node_rank), row, "") for row in rows), _ONE_RANK, "rank")
    held = {row.node_rank for row in rows}
    missing = [str(rank) for rank in range(len(rows)) if rank not in held]
    if missing and not found:
        found.append(
            TableProblem(
                "rank", f"no worker has node rank {listed(missing)} ({len(rows)} workers)", (), _ONE_RANK
            )
        )
    return found


def _duplicates(
    what: str, values: Iterable[tuple[str, PeerRow, str]], fix: str, kind: str = "duplicate"
) -> list[TableProblem]:
    holders: dict[str, list[tuple[PeerRow, str]]] = {}
    for value, row, where in values:
        holders.setdefault(value, []).append((row, where))
    found = []
    for value, group in holders.items():
        if len(group) > 1:
            names = listed([f"{row.name} (node rank {row.node_rank}{where})" for row, where in group])
            nodes = tuple(dict.fromkeys(row.name for row, _ in group))
            found.append(TableProblem(kind, f"{what} {printable(value, 120)} belongs to {names}", nodes, fix))
    return found


def _unequal(
    kind: str, values: Iterable[tuple[int, PeerRow]], say: Callable[[int], str], fix: str, where: str = ""
) -> list[TableProblem]:
    holders: dict[int, list[str]] = {}
    for value, row in values:
        holders.setdefault(value, []).append(row.name)
    if len(holders) < 2:
        return []
    # Rarest first, because it is most likely the wrong one.
    groups = sorted(holders.items(), key=lambda group: (len(group[1]), group[0]))
    text = where + ", ".join(f"{say(value)} on {listed(names)}" for value, names in groups)
    return [TableProblem(kind, text, tuple(dict.fromkeys(names[0] for _, names in groups)), fix)]


def _count(rails: int) -> str:
    return f"{rails} rail" if rails == 1 else f"{rails} rails"


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def _kind_of(row: PeerRow) -> _Kind:
    return tuple((rail.interface, rail.mtu) for rail in row.rails)


def _rows(value: dict[str, Any]) -> tuple[PeerRow, ...]:
    columns = [_list(value.get(key), key) for key in _COLUMNS]
    count = len(columns[0])
    if any(len(column) != count for column in columns):
        _refuse("has columns of unequal length")
    if count > MAX_ROWS:
        _refuse(f"has {count:,} rows; the limit is {MAX_ROWS:,}")
    kinds = [_kind(kind) for kind in _list(value.get("kinds"), "kinds")]
    return tuple(_row(kinds, *cells) for cells in zip(*columns, strict=True))


def _row(kinds: list[_Kind], kind: Any, rank: Any, name: Any, uid: Any, address: Any, eth0: Any) -> PeerRow:
    if not _whole(kind, len(kinds)) or not _whole(rank, MAX_ROWS):
        _refuse("has an invalid kind or node rank")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        _refuse("has a name that a hosts file cannot contain")
    if not isinstance(uid, str) or len(uid) > 253:
        _refuse("has an invalid UID")
    addresses = _addresses(address)
    if len(addresses) != len(kinds[kind]):
        _refuse("has a different number of addresses and rails")
    pairs = zip(kinds[kind], addresses, strict=True)
    return PeerRow(rank, name, uid, tuple(PeerRail(i, ip, mtu) for (i, mtu), ip in pairs), _addresses(eth0))


def _kind(value: Any) -> _Kind:
    rails = _list(value, "kinds")
    if len(rails) > MAX_RAILS:
        _refuse(f"has {len(rails)} rails; the limit is {MAX_RAILS}")
    for rail in rails:
        if not isinstance(rail, list) or len(rail) != 2 or not isinstance(rail[0], str) or len(rail[0]) > 15:
            _refuse("has an invalid interface")
        if not _whole(rail[1], 1 << 31):
            _refuse("has an invalid MTU")
    return tuple((rail[0], rail[1]) for rail in rails)


def _addresses(value: Any) -> tuple[str, ...]:
    found = []
    for text in _list(value, "address"):
        address = canonical(text) if isinstance(text, str) else None
        if address is None:
            _refuse("has an invalid IP address")
        found.append(address)
    return tuple(found)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        _refuse(f"has no list of {name}")
    return value


def _whole(value: Any, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit


def _refuse(text: str) -> NoReturn:
    raise NetworkError(
        f"the peer table {text}", fix="check that all workers run the same version of torchnet"
    )
