"""Plans of jobs whose traffic is known in advance: each process of the job follows the plan."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torchnet.local import topology

OUTSIDER = -1  # in place of a rank: a host outside the job, on the frontend and on the first rail
OUTSIDER_ADDRESSES = {False: ("172.30.9.9", "fcbb:0:800:ffff::9:9"), True: ("172.30.9.9", "198.18.9.9")}
OUTSIDER_PREFIX = {False: 64, True: topology.node(0, 1, ipv4=True).backend[0].prefix}
_FIRST_PORT = 20_000  # below the kernel's ephemeral ports; one for each flow
_KILOBYTE, _LARGEST = 1_000, 30_000_000


@dataclass(frozen=True)
class Flow:
    """Bytes from one rank to another, and the bytes that come back.

    Attributes:
        source: a rank; it opens the connections.
        target: a rank, which listens; or ``OUTSIDER``.
        way: the interface whose address the target listens on: eth0, net1, …; lo is 127.0.0.1.
        size: payload bytes from source to target, over all connections.
        back: payload bytes that the target answers on each connection (TCP).
        protocol: tcp, udp, udp-connected (the source calls connect()), or unix.
        port: 0 is one of the flow's own.
        connections: one after the other.
        process: own, child (forked, and sends everything), or shared (both send on one connection that was opened
            before the fork).
        address: plain; mapped (the source uses ::ffff:a.b.c.d); any (the target listens on [::]); link-local.
        bind: "", source (the source binds to its own address on ``way``), device (SO_BINDTODEVICE), or foreign (the
            source binds to its address on the other network, so that the answers take that one).
        end: close; reset (SO_LINGER 0); half (shutdown() before the answer); exit (no close: the process ends).
        seconds: how long sending takes at least.
        datagram: payload bytes of each UDP datagram.
    """

    source: int
    target: int
    way: str
    size: int
    back: int = 1
    protocol: str = "tcp"
    port: int = 0
    connections: int = 1
    process: str = "own"
    address: str = "plain"
    bind: str = ""
    end: str = "close"
    seconds: float = 0.0
    datagram: int = 1_000

    def __str__(self) -> str:
        default = Flow(0, 0, "", 0)
        words = [f"{self.source}>{'outsider' if self.target == OUTSIDER else self.target}", self.way]
        words.append(f"{self.size / 1e6:.3g}MB")
        for name in ("protocol", "process", "address", "bind", "end"):
            if getattr(self, name) != getattr(default, name):
                words.append(getattr(self, name))
        words += [f"x{self.connections}"] if self.connections > 1 else []
        words += [f"back={self.back / 1e6:.3g}MB"] if self.back > 1 else []
        words += [f":{self.port}"] if self.port else []
        words += [f"{self.seconds:g}s"] if self.seconds else []
        words += [f"{self.datagram}B"] if self.protocol.startswith("udp") else []
        return " ".join(words)


@dataclass(frozen=True)
class Plan:
    nodes: int = 2
    nproc: int = 1
    rails: int = 1
    ipv4: bool = False  # the rails' family; eth0 has IPv4, and both have an IPv6 link-local address
    flows: tuple[Flow, ...] = ()
    gloo: int = (
        0  # bytes of an all-reduce, 10 times, by torch; the truth is a range then, if flows leave the rails
    )
    seed: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        family = "ipv4" if self.ipv4 else "ipv6"
        words = [f"{self.nodes}x{self.nproc} rails={self.rails} {family}"]
        words += [f"gloo {self.gloo / 1e6:.3g}MB"] if self.gloo else []
        return ", ".join((*words, *map(str, self.flows)))

    def node(self, rank: int) -> int:
        return rank if rank == OUTSIDER else rank // self.nproc

    def interfaces(self, flow: Flow) -> tuple[str, str]:
        """Return the interface that carries the flow's bytes, and the one that carries the answers."""
        if self.node(flow.source) == self.node(flow.target):
            return "lo", "lo"  # whatever the address, the kernel delivers within the node
        if flow.bind == "foreign":
            return flow.way, "net1" if flow.way == "eth0" else "eth0"
        return flow.way, flow.way

    def to_json(self) -> dict[str, Any]:
        """Return what the job's script reads: the plan with all addresses, ports and interfaces."""
        flows = []
        for index, flow in enumerate(self.flows):
            out, back = self.interfaces(flow)
            foreign = "net1" if flow.way == "eth0" else "eth0"
            flows.append(
                asdict(flow)
                | {
                    "port": flow.port or _FIRST_PORT + index,
                    "to": self._address(flow.target, flow),
                    "from": self._address(flow.source, replace(flow, way=foreign))
                    if flow.bind == "foreign"
                    else self._address(flow.source, flow),
                    "out_interface": out,
                    "back_interface": back,
                }
            )
        return {
            "ranks": self.nodes * self.nproc,
            "nproc": self.nproc,
            "gloo": self.gloo,
            "flows": flows,
        }

    def _address(self, rank: int, flow: Flow) -> str:
        if flow.way == "lo":
            return "127.0.0.1"
        if rank == OUTSIDER:
            return OUTSIDER_ADDRESSES[self.ipv4][flow.way != "eth0"]
        node = topology.node(self.node(rank), self.rails, ipv4=self.ipv4)
        port = next(port for port in node.ports() if port.interface == flow.way)
        if flow.address == "link-local":
            mac = bytes.fromhex(port.mac.replace(":", ""))
            interface = bytes([mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]]).hex()
            return f"fe80::{interface[:4]}:{interface[4:8]}:{interface[8:12]}:{interface[12:]}"
        return port.address


def draw(seed: int) -> Plan:
    """Return a random plan, the same for the same seed."""
    rng = random.Random(seed)
    plan = Plan(
        nodes=rng.choice((2, 2, 2, 3, 4)),
        nproc=rng.randint(1, 3),
        rails=rng.randint(1, 3),
        ipv4=rng.random() < 0.35,
        seed=seed,
    )
    leak = rng.choice((0.0, 0.1, 0.3, 0.6, 1.0))
    taken: set[tuple[int, str, int]] = set()
    flows = [_draw_flow(rng, plan, leak, taken) for _ in range(rng.randint(2, 7))]
    for _ in range(rng.choice((0, 0, 1, 2))):
        flow = _draw_flow(rng, plan, 0.5, taken, target=OUTSIDER)
        flows.append(replace(flow, way=flow.way if flow.way == "eth0" else "net1"))
    if plan.nproc > 1 and rng.random() < 0.4:
        protocol = rng.choice(("tcp", "udp", "unix"))
        flows.append(Flow(0, 1, rng.choice(("lo", "net1", "eth0")), _size(rng), protocol=protocol))
    return replace(plan, flows=tuple(flows))


def _draw_flow(
    rng: random.Random, plan: Plan, leak: float, taken: set[tuple[int, str, int]], target: int | None = None
) -> Flow:
    source = rng.randrange(plan.nodes * plan.nproc)
    others = [rank for rank in range(plan.nodes * plan.nproc) if plan.node(rank) != plan.node(source)]
    way = "eth0" if rng.random() < leak else f"net{rng.randint(1, plan.rails)}"
    flow = Flow(source, rng.choice(others) if target is None else target, way, _size(rng))
    v4 = way == "eth0" or plan.ipv4
    if rng.random() < 0.25:
        flow = replace(
            flow,
            protocol=rng.choice(("udp", "udp-connected")),
            datagram=rng.choice((100, 1_000, 1_400, 8_000, 30_000)),
        )
        flow = replace(flow, size=min(flow.size, flow.datagram * 5_000))
    elif rng.random() < 0.3:
        count = rng.choice((20, 200, 1_000))
        flow = replace(
            flow,
            connections=count,
            size=min(flow.size, count * 20_000),
            end=rng.choice(("close", "reset", "exit")),
        )
    else:
        flow = replace(
            flow,
            end=rng.choice(("close", "close", "reset", "half", "exit")),
            back=rng.choice((1, 1, 1, _size(rng))),
            seconds=rng.choice((0, 0, 0, 0.5, 1.5)),
        )
    process = rng.choice(("own", "own", "own", "child", "shared"))
    if process != "shared" or (flow.protocol == "tcp" and flow.connections == 1 and flow.end != "half"):
        flow = replace(flow, process=process)
    addresses = ["plain"] * 3 + ["any"] + ["mapped"] * v4 + ["link-local"] * (target is None)
    binds = [""] * 4 + ["source", "device"] + ["foreign"] * (plan.ipv4 and target is None)
    flow = replace(flow, address=rng.choice(addresses))
    if flow.address == "plain":
        flow = replace(flow, bind=rng.choice(binds))
    port = rng.choice((0, 0, 0, 29_500, 29_400, rng.randrange(1_024, 19_999)))
    where = (plan.node(flow.target), way, port)
    if flow.address != "any" and where not in taken:
        taken.add(where)
        flow = replace(flow, port=port)
    return flow


def _size(rng: random.Random) -> int:
    return int(_KILOBYTE * (_LARGEST / _KILOBYTE) ** rng.random())
