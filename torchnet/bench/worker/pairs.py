"""Measure raw TCP and latency between pairs of nodes: which pair measures when, and how the figures reach rank 0.

The two nodes of a pair measure one direction, the other, both at once, and then small messages. They synchronise
through the job's store between these steps, and never during a measurement: the store's own connections may use the
same path.

A compared network for which raw TCP was not requested is tested with small messages first: opening a group on a network
that carries nothing would block for half an hour.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from torchnet.bench.worker import tcp
from torchnet.bench.worker.cpu import Usage
from torchnet.bench.worker.rank_context import PATIENCE, RankContext
from torchnet.bench.worker.result_messages import Lacks, Latency, Message, Progress, Tcp
from torchnet.bench.worker.worker_config import Pairs, WorkerConfig

Pair = tuple[int, int]
Send = Callable[[Message], None]

ALONE = 8  # up to this many nodes, one pair measures at a time, so that pairs do not share a path
WARM = 0.5  # seconds, before each measurement
_STEPS: tuple[str, ...] = ("there", "back", "both", "latency")
_TRY: tuple[str, ...] = ("latency",)


def rounds(nodes: int, pairs: Pairs) -> list[list[Pair]]:
    """Return the pairs in rounds that run one after the other; in each round a node is in at most one pair.

    "ring" pairs each node with the next, the last with the first; "all" pairs every two nodes. With up to ALONE nodes
    each round has one pair; with more, as many as possible: a round-robin tournament by the circle method.
    """
    if pairs == "none" or nodes < 2:
        return []
    if pairs == "ring":
        ring = [(node, (node + 1) % nodes) for node in range(nodes if nodes > 2 else 1)]
        if nodes <= ALONE:
            return [[pair] for pair in ring]
        even = ring[: nodes - nodes % 2]
        return [part for part in (even[::2], even[1::2], ring[len(even) :]) if part]
    if nodes <= ALONE:
        return [[(one, other)] for one in range(nodes) for other in range(one + 1, nodes)]
    # One seat is fixed, the others rotate. With an odd number of nodes, one of them pauses opposite an empty seat.
    seats = list(range(nodes + nodes % 2))
    found = []
    for _ in range(len(seats) - 1):
        half = len(seats) // 2
        facing = zip(seats[:half], reversed(seats[half:]), strict=True)
        found.append(sorted((min(pair), max(pair)) for pair in facing if max(pair) < nodes))
        seats[1:] = [seats[-1], *seats[1:-1]]
    return found


@dataclass
class _Part:
    """What one node of a pair knows after a step: ``sent`` and ``received`` for the directions that it took part in."""

    sent: dict[str, Any] | None = None
    received: dict[str, Any] | None = None
    trips: dict[str, Any] | None = None
    busy: float | None = None
    throttled: float | None = None
    error: str = ""


class _PairMeasurement:
    """One pair over one network, from the point of view of one of its nodes, or of rank 0, which only collects the
    results."""

    def __init__(
        self,
        plan: WorkerConfig,
        place: RankContext,
        network: str,
        pair: Pair,
        steps: tuple[str, ...] = _STEPS,
    ) -> None:
        self._plan, self._place, self._network, self.pair = plan, place, network, pair
        self._steps = [step for step in steps if plan.pings or step != "latency"]
        self._key = f"pairs/{network}/{pair[0]}-{pair[1]}"

    def measure(self) -> None:
        """Measure all steps with the other node, until one fails."""
        here = self._place.node
        there = self.pair[1] if here == self.pair[0] else self.pair[0]
        for step in self._steps:
            part = self._measure_step(step, here, there)
            self._put(f"{step}/{here}", json.dumps(asdict(part)))
            if part.error or self._part(step, there).error:
                return

    def report(self, send: Send) -> bool:
        """Report the result of each step, once both nodes have stored it; return whether all steps could be
        measured."""
        one, other = self.pair
        for step in self._steps:
            parts = {node: self._part(step, node) for node in self.pair}
            wrong = {node: part.error for node, part in parts.items() if part.error}
            if wrong:
                what = f"raw TCP between nodes {one} and {other} over {self._network}"
                send(Lacks(what, "; ".join(f"node {node}: {error}" for node, error in wrong.items())))
                return False
            if step == "latency":
                send(Latency(self._network, one, other, tcp.PING_BYTES, **(parts[one].trips or {})))
                continue
            for source, target in (self.pair, (other, one)):
                if step in ("there" if source == one else "back", "both"):
                    send(self._direction(parts[source], parts[target], source, target, step == "both"))
        return True

    def _direction(self, source: _Part, target: _Part, one: int, other: int, both: bool) -> Tcp:
        sent, received = source.sent or {}, target.received or {}
        return Tcp(
            network=self._network,
            source=one,
            target=other,
            both=both,
            streams=self._plan.streams,
            rates=list(received["rates"]),
            repeated=sent["repeated"],
            segments=sent["segments"],
            busy=_most(source.busy, target.busy),
            throttled=_most(source.throttled, target.throttled),
            core=max(sent["core"], received["core"]),
            window_limited=sent["window_limited"],
        )

    def _measure_step(self, step: str, here: int, there: int) -> _Part:
        part, usage = _Part(), Usage()
        first = here == self.pair[0]
        usage.start()
        try:
            if step == "latency":
                self._latency(part, there, first)
            else:
                self._streams(
                    part, there, sends=step in ("there" if first else "back", "both"), both=step == "both"
                )
        except (OSError, ValueError) as error:
            part.error = str(error) or type(error).__name__
        part.busy, part.throttled = usage.stop()
        return part

    def _streams(self, part: _Part, there: int, *, sends: bool, both: bool) -> None:
        """Send and receive as the step demands; the threads of both directions belong to this node."""
        receiver = None
        if both or not sends:
            receiver = self._listener(
                "tcp-both" if both else "tcp", lambda own: tcp.Receiver(own, self._plan.streams)
            )
        errors: list[Exception] = []

        def send() -> None:
            try:
                port = self._port("tcp-both" if both else "tcp", there)
                sent = tcp.send(
                    self._address(self._place.node), self._address(there), port, self._plan.streams, WARM
                )
                part.sent = asdict(sent)
            except Exception as error:  # including the store's: nobody would see it in a thread
                errors.append(error)

        sender = threading.Thread(target=send, daemon=True) if sends else None
        if sender:
            sender.start()
        try:
            if receiver:
                part.received = asdict(receiver.measure(self._address(there), WARM, self._plan.tcp_seconds))
        finally:
            if sender:
                sender.join()
        if errors:
            raise errors[0]

    def _latency(self, part: _Part, there: int, first: bool) -> None:
        if first:
            port = self._port("echo", there)
            own, peer = self._address(self._place.node), self._address(there)
            part.trips = asdict(tcp.measure_round_trips(own, peer, port, self._plan.pings))
        else:
            self._listener("echo", tcp.Echo).serve(self._address(there))

    def _listener(self, what: str, make: Callable[[str], Any]) -> Any:
        """Create a listener and publish its port; if that fails, publish the failure."""
        key = f"{what}/{self._place.node}"
        try:
            listener = make(self._address(self._place.node))
        except OSError:
            self._put(key, "0")
            raise
        self._put(key, str(listener.port))
        return listener

    def _port(self, what: str, there: int) -> int:
        port = int(self._get(f"{what}/{there}"))
        if not port:
            raise ConnectionError(f"node {there} cannot listen")
        return port

    def _address(self, node: int) -> str:
        address = self._place.addresses.get(node, {}).get(self._network)
        if not address:
            raise OSError(f"node {node} has no address on {self._network}")
        return address

    def _part(self, step: str, node: int) -> _Part:
        return _Part(**json.loads(self._get(f"{step}/{node}")))

    def _put(self, key: str, text: str) -> None:
        self._place.store.set(f"{self._key}/{key}", text)

    def _get(self, key: str) -> str:
        key = f"{self._key}/{key}"
        self._place.store.wait([key], PATIENCE)
        found: bytes = self._place.store.get(key)
        return found.decode()


def measure(plan: WorkerConfig, place: RankContext, send: Send) -> set[str]:
    """Measure all pairs of nodes over all networks. All ranks call it, and it returns on all of them when the last pair
    is done.

    One rank of each node measures, the others wait in the store. Rank 0 reports the figures. A pair that cannot be
    measured is reported as such, and the others continue.

    Returns:
        The networks with such a pair, the same on all ranks.

    Raises:
        torch.distributed.DistNetworkError: The store is gone.
        torch.distributed.DistStoreError: A node did not arrive within an hour.
    """
    if plan.pairs != "none" and place.nodes < 2 and place.rank == 0:
        send(Lacks("raw TCP", "all ranks are on one node"))
    closed = set()
    for network in place.networks:
        wanted, found, steps, reports = plan, rounds(place.nodes, plan.pairs), _STEPS, send
        if not found and network != place.networks[0]:
            wanted, found, steps, reports = replace(plan, pings=1), rounds(place.nodes, "ring"), _TRY, _silent
        for number, pairs in enumerate(found):
            measurements = [_PairMeasurement(wanted, place, network, pair, steps) for pair in pairs]
            over = f"pairs/{network}/over/{number}"
            if place.rank == 0:
                reports(Progress(f"raw TCP over {network}: {_pair_names(pairs)}"))
            if place.local_rank == 0:
                for measurement in measurements:
                    if place.node in measurement.pair:
                        measurement.measure()
            if place.rank == 0:
                good = [measurement.report(reports) for measurement in measurements]
                # The key that all wait for carries the verdict, so that all ranks have the same.
                place.store.set(over, "" if all(good) else "closed")
            place.store.wait([over], PATIENCE)
            if place.store.get(over):
                closed.add(network)
    return closed


def _silent(_: Message) -> None:
    pass


def _pair_names(pairs: list[Pair]) -> str:
    text = ", ".join(f"{one} ↔ {other}" for one, other in pairs[:4])
    return f"nodes {text}" + (f" and {len(pairs) - 4} other pairs" if len(pairs) > 4 else "")


def _most(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return max(known) if known else None
