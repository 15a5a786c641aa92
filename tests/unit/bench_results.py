"""Results of a benchmark to try things on: those of a healthy network, and of one in which something is wrong.

They are made as a measurement makes them: times of batches around what the path can carry, the median of these with its
interval. Each batch wanders by ``noise`` (a standard deviation, of the figure), each row as a whole by ``wander``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from torchnet.bench import tcp_ceiling as lines
from torchnet.bench.results import Collective, Figure, Latency, Line, Node, Results, Setup, Tcp
from torchnet.bench.worker.busbw import Collective as Name
from torchnet.bench.worker.busbw import crossing_share, factor, least_bytes
from torchnet.bench.worker.stats import median

SIZES = tuple(1 << power for power in range(10, 29, 2))
SYSCTLS = {
    "net.ipv4.tcp_rmem": "4096 131072 33554432",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.core.rmem_max": "4194304",
    "net.core.wmem_max": "4194304",
}
UNSHAPED = 3e9  # bytes per second that two cores carry


@dataclass(frozen=True)
class World:
    """What is measured. ``rate`` is bits per second, None for a line that is not known and a path that the processor
    limits. ``path``: what a path carries, of what a healthy one does, by source and target. ``one_stream``: the
    same, for one stream. ``repeats``: the share of segments that go again, by source and target. ``strays``: the
    share of the collectives' bytes that another interface carries. ``mtus``: by node, where they differ.
    """

    nodes: int = 2
    rate: float | None = 1e9
    mtu: int = 9000
    seed: int = 0
    noise: float = 0.01
    wander: float = 0.005
    batches: int = 15
    slices: int = 10
    collectives: tuple[str, ...] = ("all_reduce",)
    sizes: tuple[int, ...] = SIZES
    streams: tuple[int, ...] = (1,)
    pairs: Literal["ring", "all"] = "all"
    compare: str = ""
    on: Literal["local", "kubernetes"] = "local"
    round_trip: float = 60e-6
    path: Callable[[int, int], float] = lambda _source, _target: 1.0
    one_stream: float = 1.0
    window_limited: float = 0.01
    repeats: Callable[[int, int], float] = lambda _source, _target: 0.0001
    strays: float = 0.0
    mtus: Mapping[int, int] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=lambda: SYSCTLS)
    busy: float = 0.45
    core: float = 0.5
    throttled: float | None = 0.0
    achieved: float = 0.985
    """Of the path's rate, by a collective of endless size."""
    known: Literal["shaped", "interface", "told"] = "shaped"
    backend: Literal["gloo", "nccl"] = "gloo"
    per_node: int = 1
    """Ranks of each node."""
    thread: float | None = None
    """Of one core, by the busiest thread of a collective's ranks."""
    environment: Mapping[str, str] = field(default_factory=lambda: {"GLOO_SOCKET_IFNAME": "net1"})

    @property
    def ranks(self) -> int:
        return self.nodes * self.per_node

    @property
    def carried(self) -> float:
        """Bytes of payload per second and direction."""
        return lines.TcpCeiling(self.rate, self.mtu, 6, self.known).ceiling if self.rate else UNSHAPED


def healthy(nodes: int = 2, **fields: Any) -> Results:
    """Results of a healthy network, or of what the fields of :class:`World` make of it."""
    world = World(nodes=nodes, **fields)
    if world.rate is None:
        world = replace(world, busy=max(world.busy, 0.98), core=max(world.core, 0.97))
    draw = random.Random(world.seed)
    networks = ["net1"] + ([world.compare] if world.compare else [])
    return Results(
        torchnet="0.1.0",
        date="2026-01-02T03:04:05Z",
        run="bench-7f3a",
        setup=_setup(world),
        nodes=tuple(_node(world, number) for number in range(nodes)),
        lines=tuple(_line(world, network) for network in networks if world.rate),
        collectives=tuple(
            _collective(world, draw, network, name, size)
            for network in networks
            for name in world.collectives
            for size in world.sizes
        ),
        tcp=tuple(row for network in networks for row in _tcp(world, draw, network)),
        latency=tuple(_latency(world, draw, network, a, b) for network in networks for a, b in _pairs(world)),
        backend_share=None if world.compare else 1 - world.strays,
        proof="measured",
        complete=True,
        look=("torchnet", "verify") if world.on == "kubernetes" else ("torchnet", "bench", "--dry-run"),
    )


def changed(results: Results, **fields: Any) -> Results:
    """The same with fields replaced, by their names in the model."""
    return results.model_copy(update=fields)


def slower(row: Collective, times: float) -> Collective:
    """The row with ``times`` its busbw."""
    names = ("busbw", "busbw_low", "busbw_high")
    return row.model_copy(update={name: getattr(row, name) * times for name in names})


def _setup(world: World) -> Setup:
    shaped = world.rate and world.known == "shaped"
    link = ("--rate", f"{world.rate:.0f}", "--mtu", str(world.mtu)) if shaped else ()
    place = ("--on", "kubernetes", "-n", "ml") if world.on == "kubernetes" else ()
    return Setup(
        on=world.on,
        backend=world.backend,
        device="cuda" if world.backend == "nccl" else "cpu",
        ranks=world.ranks,
        nodes=world.nodes,
        interface="net1",
        compare=world.compare,
        versions={"python": "3.12.4", "torch": "2.9.0"},
        environment=dict(world.environment),
        command=("torchnet", "bench", *place, "--nnodes", str(world.nodes), *link),
    )


def _node(world: World, number: int) -> Node:
    return Node(
        node=number,
        name=f"node-{number}",
        addresses={"net1": f"fcbb:0:800:ffff::{number + 1}", "eth0": f"172.30.0.{number + 2}"},
        mtus={"net1": world.mtus.get(number, world.mtu), "eth0": 1500},
        speeds={"net1": 10**10},
        sysctls=dict(world.sysctls),
        cores=2.0,
        memory=8 << 30,
        host=f"gpu-{number}" if world.on == "kubernetes" else "",
        cpu="a processor",
        kernel="6.8.0",
    )


def _line(world: World, network: str) -> Line:
    assert world.rate
    ceiling = world.carried
    family: Literal[4, 6] = 6 if network == "net1" else 4
    return Line(
        network=network,
        rate_bits_per_s=world.rate,
        mtu=world.mtu,
        family=family,
        known=world.known,
        ceiling=ceiling,
    )


def _pairs(world: World) -> list[tuple[int, int]]:
    if world.pairs == "all":
        return [(a, b) for a in range(world.nodes) for b in range(a + 1, world.nodes)]
    ring = {tuple(sorted((a, (a + 1) % world.nodes))) for a in range(world.nodes)}
    return [(a, b) for a, b in sorted(ring) if a != b]


def _near(draw: random.Random, spread: float) -> float:
    return math.exp(draw.gauss(0.0, spread))


def _figure(draw: random.Random, value: float, count: int, noise: float, wander: float) -> Figure:
    middle = value * _near(draw, wander)
    found = median([middle * _near(draw, noise) for _ in range(count)])
    return Figure(median=found.value, low=found.low, high=found.high, count=found.count)


def _share(world: World, rate: float) -> float | None:
    return rate / world.carried if world.rate else None


def _collective(world: World, draw: random.Random, network: str, name: str, size: int) -> Collective:
    ranks, collective = world.ranks, cast(Name, name)
    times = factor(collective, ranks)
    slowest = min(world.path(a, (a + 1) % world.nodes) for a in range(world.nodes))
    seconds = ranks * 2 * world.round_trip + size * times / (world.carried * world.achieved * slowest)
    time = _figure(draw, seconds, world.batches, world.noise, world.wander)
    calls = 5 * world.batches
    formula = least_bytes(collective, size, ranks) * calls
    across = crossing_share(collective, ranks, world.nodes)
    if world.backend == "nccl":
        formula *= across  # within a node it has other ways
    sockets = int(formula * 1.001) + 2000 * calls
    within = int(sockets * (1 - across)) if world.backend == "gloo" else 0
    stray = int((sockets - within) * world.strays) if network == "net1" else 0
    by_interface = {network: sockets - within - stray, **({"eth0": stray} if stray else {})}
    around = (world.mtu + 14) / lines.payload(world.mtu, 6) * 1.005
    busbw = size / time.median * times
    return Collective(
        network=network,
        collective=name,
        size=size,
        elements=size // 4,
        dtype="float32",
        redop="sum" if "reduce" in name else "none",
        root=0 if name in ("broadcast", "reduce") else -1,
        in_place=False,
        time=time,
        calls=calls,
        algbw=size / time.median,
        busbw=busbw,
        busbw_low=size / time.high * times,
        busbw_high=size / time.low * times,
        wrong=0,
        ceiling_share=_share(world, busbw * lines.line_factor(name, ranks, world.nodes)),
        formula_bytes=formula,
        sockets_bytes={**by_interface, **({"lo": within} if within else {})},
        interface_bytes={one: int(count * around) for one, count in by_interface.items()},
        busy=world.busy,
        throttled=world.throttled,
        core=world.thread,
    )


def _tcp(world: World, draw: random.Random, network: str) -> list[Tcp]:
    found = []
    for a, b in _pairs(world):
        for streams in world.streams:
            for both in (False, True):
                for source, target in ((a, b), (b, a)):
                    found.append(_direction(world, draw, network, source, target, streams, both))
    return found


def _direction(
    world: World, draw: random.Random, network: str, source: int, target: int, streams: int, both: bool
) -> Tcp:
    carried = world.carried * world.path(source, target) * (world.one_stream if streams == 1 else 1.0)
    carried *= 0.99 if world.rate else 0.6 if both else 1.0
    rate = _figure(draw, carried, world.slices, world.noise, world.wander)
    segments = int(rate.median / lines.payload(world.mtu, 6)) + 1
    return Tcp(
        network=network,
        source=source,
        target=target,
        both=both,
        streams=streams,
        rate=rate,
        ceiling_share=_share(world, rate.median),
        repeated=int(segments * world.repeats(source, target) * draw.uniform(0, 2)),
        segments=segments,
        busy=world.busy,
        throttled=world.throttled,
        core=world.core,
        window_limited=world.window_limited if streams == 1 else 0.0,
    )


def _latency(world: World, draw: random.Random, network: str, source: int, target: int) -> Latency:
    p50 = world.round_trip * _near(draw, 0.05)
    return Latency(
        network=network,
        source=source,
        target=target,
        bytes=64,
        count=500,
        p50=p50,
        p99=p50 * 2.5,
        least=p50 * 0.7,
    )
