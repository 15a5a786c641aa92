"""Which nodes test the path to which other nodes, and in which round (pure).

All pairs of 1,000 nodes would be 499,500 tests. ceil(log2 n) partners of each node are enough to tell a faulty node
from the partners that it fails with, and they take as many rounds.
"""

from __future__ import annotations

Pair = tuple[int, int]


def partners(count: int) -> int:
    """Return with how many others each of ``count`` nodes is paired at least: ceil(log2(count))."""
    return max(0, count - 1).bit_length()


def rounds(count: int) -> list[list[Pair]]:
    """Return the pairs of ``count`` nodes in rounds; in each round, a node has at most one partner.

    The rounds are the first ones of a round-robin tournament (circle method), so no pair comes twice, and together they
    connect all nodes. With an even number, each node has exactly ``partners(count)`` partners, one in each round. With
    an odd number, a different node pauses in each round; one more round gives those the same number, and the others one
    more.

    Returns:
        Pairs (one, other) with one < other, sorted within each round.
    """
    if count < 2:
        return []
    seats = count + count % 2
    ring = seats - 1  # all seats but the last one rotate
    found = []
    for number in range(partners(count) + count % 2):
        facing = [(number, ring)]
        facing += [((number + step) % ring, (number - step) % ring) for step in range(1, seats // 2)]
        pairs = ((min(pair), max(pair)) for pair in facing)
        found.append(sorted(pair for pair in pairs if pair[1] < count))
    return found
