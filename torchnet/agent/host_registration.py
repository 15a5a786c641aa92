"""How hosts that were started one by one become nodes of one job: each asks rank 0 for its node rank, before it joins.

    host -> rank 0   the node rank that it was given, if any; its name; what both ends must have been started with
    rank 0 -> host   its node rank, its name in this job, the run and the networks; or why it cannot take part

The request is proved like a join request (torchnet.agent.handshake). A host that asks again, for example because its
connection broke, gets the same node rank.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torchnet.agent.spec import AgentSpec
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import NAME
from torchnet.text import printable
from torchnet.units import counted

_KEY = "host"
_MOST_CHARACTERS = 1000  # of a text in an answer
_RESERVED_SECONDS = 30.0  # for a host to join; then another one may get its node rank


@dataclass(frozen=True)
class HostRequest:
    """What a host asks for.

    Attributes:
        uid: Of this start on this host.
        node_rank: None: any that is free.
        wished: Like node_rank, but another one will do; the scheduler's number of the host.
        run_id: "" for rank 0's.
        one_network: Whether the host has no other network than its backend.
        problem: Why the host cannot take part, although it has a node rank; it asks no more.
    """

    uid: str
    name: str
    nnodes: int
    nproc_per_node: int
    node_rank: int | None = None
    wished: int | None = None
    run_id: str = ""
    one_network: bool = False
    problem: str = ""

    def message(self) -> dict[str, Any]:
        return {_KEY: dict(vars(self))}

    @classmethod
    def read(cls, message: dict[str, Any]) -> HostRequest | None:
        """Return the request, or None if the message is not one.

        Raises:
            ValueError: It is malformed.
        """
        values = message.get(_KEY)
        if not isinstance(values, dict):
            return None
        texts = {name: values.get(name) for name in ("uid", "name", "run_id", "problem")}
        numbers = {name: values.get(name) for name in ("nnodes", "nproc_per_node")}
        ranks = {name: values.get(name) for name in ("node_rank", "wished")}
        if not all(isinstance(one, str) and len(one) <= _MOST_CHARACTERS for one in texts.values()):
            raise ValueError("a text is missing")
        if not all(type(one) is int and one > 0 for one in numbers.values()):
            raise ValueError("a number is missing")
        if not all(one is None or (type(one) is int and one >= 0) for one in ranks.values()):
            raise ValueError("a node rank is not a number")
        if not NAME.fullmatch(str(texts["name"])):
            raise ValueError("the name is not valid")
        texts["problem"] = printable(str(texts["problem"]))
        one_network = values.get("one_network") is True
        return cls(**texts, **numbers, **ranks, one_network=one_network)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Registration:
    """Rank 0's answer.

    Attributes:
        networks: Of rank 0's rails, in CIDR notation.
        interfaces: Of rank 0's rails.
        refused: The reason, or "".
        later: Whether to ask again: a node rank may become free.
    """

    node_rank: int = 0
    name: str = ""
    run_id: str = ""
    networks: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    refused: str = ""
    later: bool = False

    def message(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def read(cls, message: dict[str, Any]) -> Registration:
        """Return the answer.

        Raises:
            ValueError: It is malformed.
        """
        values = {name: message.get(name) for name in vars(cls())}
        lists: list[Any] = [values.pop(name) for name in ("networks", "interfaces")]
        found = cls(**values)  # type: ignore[arg-type]
        texts: tuple[Any, ...] = (found.name, found.run_id, found.refused)
        if type(found.node_rank) is not int or not all(
            isinstance(one, str) and len(one) <= _MOST_CHARACTERS for one in texts
        ):
            raise ValueError("rank 0's answer is malformed")
        if type(found.later) is not bool:
            raise ValueError("rank 0's answer does not say when to ask again")
        if not all(isinstance(part, list) and all(isinstance(one, str) for one in part) for part in lists):
            raise ValueError("rank 0's answer has no networks")
        networks, interfaces = tuple(lists[0]), tuple(lists[1])
        for one in networks:
            ipaddress.ip_network(one)
        if len(networks) != len(interfaces):
            raise ValueError("rank 0's answer has other numbers of networks and interfaces")
        # Without a token anyone may have answered, and the reason goes to a terminal.
        found = replace(found, networks=networks, interfaces=interfaces, refused=printable(found.refused))
        if not found.refused and not (NAME.fullmatch(found.name) and NAME.fullmatch(found.run_id)):
            raise ValueError("rank 0's answer has no valid name")
        return found


class HostRegister:
    """The hosts that have asked, on rank 0.

    Args:
        spec: Rank 0's.
        clock: In seconds.
        rails: Rank 0's.
    """

    def __init__(self, spec: AgentSpec, clock: Callable[[], float], rails: Sequence[Rail] = ()) -> None:
        self._spec = spec
        self._clock = clock
        # On loopback each node has a network of its own.
        rails = () if spec.loopback else rails
        self._networks = tuple(map(_network, rails))
        self._interfaces = tuple(rail.interface for rail in rails)
        self._refused: dict[int, str] = {}  # by the node rank that the host asked for, or that was free
        self._hosts: dict[str, tuple[int, str, float]] = {}  # node rank, name and time, by UID
        self._with_one_network: set[int] = set()  # node ranks

    def answer(self, request: HostRequest, joined: Collection[int], *, late: bool) -> Registration:
        """Answer a request; ``joined`` are the node ranks that have joined, ``late``: the job has started."""
        found = self._answer(request, joined, late=late)
        if found.refused:
            free = [rank for rank in range(1, self._spec.nnodes) if rank not in joined]
            rank = request.node_rank if request.node_rank in free else (free or [0])[0]
            self._refused[rank] = found.refused.partition("; fix: ")[0]
        return found

    def _answer(self, request: HostRequest, joined: Collection[int], *, late: bool) -> Registration:
        spec, name = self._spec, printable(request.name, 80)
        if late:
            return Registration(refused="the job has already started")
        if request.nnodes != spec.nnodes:
            return Registration(
                refused=f"{name} was started with --nnodes {request.nnodes}, node 0 with --nnodes {spec.nnodes}; "
                "fix: start the same line on each host"
            )
        if request.nproc_per_node != spec.nproc_per_node:
            return Registration(
                refused=f"{name} starts {counted(request.nproc_per_node, 'process')}, node 0 starts "
                f"{spec.nproc_per_node}: torchnet runs the same number on each host; "
                f"fix: --nproc-per-node {spec.nproc_per_node} on {name}, or {request.nproc_per_node} on the others"
            )
        if request.run_id not in ("", spec.run_id):
            return Registration(
                refused=f"{name} belongs to run {printable(request.run_id, 80)}, this is run {spec.run_id}"
            )
        rank = self._rank(request, joined)
        if isinstance(rank, str):
            # A host that was restarted has a new UID, and its old one holds its node rank for a while.
            waiting = request.node_rank is None and any(
                one not in joined for one, _, _ in self._hosts.values()
            )
            return Registration(refused=rank, later=waiting)
        name = self._name(request, rank)
        self._hosts[request.uid] = rank, name, self._clock()
        self._with_one_network.discard(rank)
        if request.one_network:
            self._with_one_network.add(rank)
        return Registration(rank, name, spec.run_id, self._networks, self._interfaces)

    def release(self, node_rank: int) -> None:
        """Let another host have a node rank, because its worker has left."""
        self._hosts = {uid: one for uid, one in self._hosts.items() if one[0] != node_rank}

    @property
    def all_have_one_network(self) -> bool:
        """Whether all other hosts have no network besides the backend."""
        return len(self._with_one_network) == self._spec.nnodes - 1

    def missing(self, joined: Mapping[int, str]) -> tuple[dict[int, str], tuple[str, ...]]:
        """Return what is known of the hosts that have not joined.

        The scheduler's list has their names. It tells their node ranks only if those of the others follow it.

        Args:
            joined: Names by node rank.

        Returns:
            Texts by node rank, and names without a node rank.
        """
        registered = {rank: name for rank, name, _ in self._hosts.values() if rank not in joined}
        present = {**registered, **joined}
        texts = {rank: f"{name}, which came but did not join" for rank, name in registered.items()}
        texts |= {rank: f"refused: {why}" for rank, why in self._refused.items() if rank not in present}
        names = self._spec.host_names
        absent = [rank for rank in range(self._spec.nnodes) if rank not in present]
        here = {_short(name) for name in present.values()}
        left = tuple(name for name in names if _short(name) not in here)
        # Without a list, or if the scheduler has other names for the hosts, nothing is known.
        if not left or len(names) != self._spec.nnodes or len(left) != len(absent):
            return texts, ()
        if all(_short(names[rank]) == _short(name) for rank, name in present.items()):
            known = {rank: ", ".join(filter(None, (names[rank], texts.get(rank)))) for rank in absent}
            return {**texts, **known}, ()
        return texts, left

    def _rank(self, request: HostRequest, joined: Collection[int]) -> int | str:
        nnodes, now = self._spec.nnodes, self._clock()
        if request.uid in self._hosts:
            return self._hosts[request.uid][0]
        held = {rank: (uid, at) for uid, (rank, _, at) in self._hosts.items()}
        free = [
            rank
            for rank in range(1, nnodes)
            if rank not in joined and (rank not in held or now - held[rank][1] > _RESERVED_SECONDS)
        ]
        given = request.node_rank
        if given is not None:
            if not 0 < given < nnodes:
                why = "is node 0's own" if not given else f"is not below the job's {nnodes} nodes"
                return f"node rank {given} {why} ({printable(request.name, 80)} was started with it)"
            if given in joined:
                own = printable(request.name, 80)
                return f"node rank {given} is taken: {own} was started with the same --node-rank"
        elif not free:
            return f"all {nnodes} nodes of the job are taken: {printable(request.name, 80)} is one too many"
        fresh = [rank for rank in free if rank not in held]
        rank = (
            given if given is not None else request.wished if request.wished in free else (fresh or free)[0]
        )
        if rank in held:
            del self._hosts[held[rank][0]]
        return rank

    def _name(self, request: HostRequest, rank: int) -> str:
        """Return the host's name, which must differ from the others': clones may share one."""
        others = {self._spec.name, *(name for uid, (_, name, _) in self._hosts.items() if uid != request.uid)}
        return request.name if request.name not in others else f"{request.name[:240]}-{rank}"


def _short(name: str) -> str:
    return name.partition(".")[0]


def _network(rail: Rail) -> str:
    return str(ipaddress.ip_network(f"{rail.address}/{rail.prefix}", strict=False))
