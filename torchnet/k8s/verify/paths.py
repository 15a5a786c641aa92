"""The results of the pairs of nodes: what works, which nodes are to blame, and which are slow (pure)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torchnet.k8s.verify.check import Check
from torchnet.text import listed
from torchnet.units import bit_rate, counted

SLOW = 0.5
"""Share of the other nodes' rate below which a node is reported as slow. `torchnet bench` is stricter: there, a job has
the nodes to itself, while here other load of a node can cost some of its rate."""
_MTU = "set the same MTU on every node's network card and on the switches between them"
_NODE = "check that node's network card, cable, switch port, VLAN and MTU: ip -s link show"
_PATH = "check the switches between the two nodes, and the routes of both: ip route get ADDRESS"
_ALL = "check the attachment's interface and VLAN, and the switches: no node reaches another one"
_SLOW = "check that node's link speed, and what else uses it: ethtool; torchnet bench --pairs all"


@dataclass(frozen=True)
class Path:
    """The result of one pair of nodes over one rail.

    Attributes:
        size: Bytes of the packets that were sent; None if unknown.
        problem: Why the path does not work; "" if it does.
        there: TCP from ``one`` to ``other``, in bytes per second; None if not measured.
        back: TCP from ``other`` to ``one``.
    """

    one: str
    other: str
    rail: str
    size: int | None = None
    problem: str = ""
    there: float | None = None
    back: float | None = None

    @property
    def works(self) -> bool:
        """Whether packets of full size passed in both directions, and TCP if it was to be measured."""
        return not self.problem

    def partner(self, node: str) -> str:
        """Return the other one of the two nodes."""
        return self.other if node == self.one else self.one


@dataclass(frozen=True)
class Blame:
    """Who is to blame for the paths of one rail that do not work.

    Attributes:
        nodes: Nodes that failed with all of their partners, while other nodes reach each other.
        paths: Paths that do not work although both of their nodes reach others.
        everywhere: Whether no path works, so that nobody can be told apart.
    """

    nodes: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    everywhere: bool = False


def blame(paths: Sequence[Path]) -> Blame:
    """Return who is to blame for the paths of one rail that do not work."""
    failed = [path for path in paths if not path.works]
    reached = {node for path in paths if path.works for node in (path.one, path.other)}
    if failed and not reached:
        return Blame(everywhere=True)
    nodes = {node for path in failed for node in (path.one, path.other)} - reached
    left = tuple(path for path in failed if not nodes & {path.one, path.other})
    return Blame(tuple(sorted(nodes)), left)


def faulty_nodes(paths: Sequence[Path]) -> list[str]:
    """Return the nodes that are to blame on any rail: for paths that do not work, or because they are slow."""
    found: set[str] = set()
    for on_rail in _by_rail(paths):
        found |= set(blame(on_rail).nodes) | {slow.node for slow in slow_nodes(on_rail)}
    return sorted(found)


@dataclass(frozen=True)
class SlowNode:
    """A node whose best rates, in bytes per second, are far below those of the others."""

    node: str
    sent: float
    received: float
    usual: float
    partners: int


def slow_nodes(paths: Sequence[Path]) -> list[SlowNode]:
    """Return the nodes of one rail that are slow with all of their partners.

    A node counts by the best of its pairs, so that a slow partner is not its fault, and is compared with the median of
    the nodes. Fewer than three nodes cannot be told apart.
    """
    sent: dict[str, list[float]] = {}
    received: dict[str, list[float]] = {}
    for path in paths:
        for source, target, rate in ((path.one, path.other, path.there), (path.other, path.one, path.back)):
            if rate is not None:
                sent.setdefault(source, []).append(rate)
                received.setdefault(target, []).append(rate)
    if len(sent) < 3:
        return []
    usual = statistics.median([max(rates) for each in (sent, received) for rates in each.values()])
    found = []
    for node in sorted(sent.keys() & received.keys()):
        best = max(sent[node]), max(received[node])
        if min(best) < SLOW * usual:
            found.append(SlowNode(node, *best, usual, len(sent[node])))
    return found


def check_paths(paths: Sequence[Path]) -> Iterator[Check]:
    """Yield the checks of all paths, rail by rail: what works, each node and each path that does not, the bandwidth."""
    for on_rail in _by_rail(paths):
        yield from _check_rail(on_rail)


def _by_rail(paths: Sequence[Path]) -> list[list[Path]]:
    rails = dict.fromkeys(path.rail for path in paths)
    return [[path for path in paths if path.rail == rail] for rail in rails]


def _check_rail(paths: Sequence[Path]) -> Iterator[Check]:
    rail, failed = paths[0].rail, [path for path in paths if not path.works]
    nodes = {node for path in paths for node in (path.one, path.other)}
    title = f"full size, both ways, {rail}"
    sizes = sorted({path.size for path in paths if path.works and path.size})
    size = f"{' or '.join(map(str, sizes))} bytes" if sizes else "packets"
    pairs = f"{counted(len(paths), 'pair')} of {counted(len(nodes), 'node')}"
    guilty = blame(paths)
    if len(paths) == 1 and failed:
        (path,) = paths
        yield Check(title, False, f"{path.one} and {path.other}: {path.problem}", _MTU)
    elif guilty.everywhere:
        evidence = f"none of {pairs} works: "
        yield Check(title, False, evidence + failed[0].problem, _ALL)
    else:
        yield Check(title, True, f"{size} in {f'{len(paths) - len(failed)} of ' if failed else ''}{pairs}")
    for node in guilty.nodes:
        of_node = [path for path in failed if node in (path.one, path.other)]
        partners = listed([path.partner(node) for path in of_node], limit=4)
        evidence = f"{rail}: failed with all of its partners ({partners}): {of_node[0].problem}"
        yield Check(f"node {node}", False, evidence, _NODE)
    for path in guilty.paths:
        evidence = f"{rail}: {path.problem}, while both nodes reach others"
        yield Check(f"path {path.one} to {path.other}", False, evidence, _PATH)
    rates = sorted(rate for path in paths for rate in (path.there, path.back) if rate is not None)
    if rates:
        middle = _bits(statistics.median(rates))
        evidence = f"{_bits(rates[0])} to {_bits(rates[-1])}, median {middle}: TCP, each direction by itself"
        yield Check(f"bandwidth, {rail}", True, evidence)
    for slow in slow_nodes(paths):
        evidence = (
            f"{rail}: sends at most {_bits(slow.sent)} and receives at most {_bits(slow.received)}, with "
            f"{counted(slow.partners, 'partner')}; the median of the nodes is {_bits(slow.usual)}"
        )
        yield Check(f"node {slow.node}", False, evidence, _SLOW)


def _bits(rate: float) -> str:
    return bit_rate(8 * rate)
