"""The addresses of nodes that share this machine's loopback interface."""

from __future__ import annotations

from torchnet.network.network_status import StatusEntry


def address(rank: int, block: int = 0) -> str:
    """Return node ``rank``'s address in 127.``block``.0.0/16; all of 127.0.0.0/8 is local."""
    number = rank + 1
    return f"127.{block}.{number >> 8}.{number & 255}"


class LoopbackSource:
    """The address source of a node on loopback: one rail, on lo."""

    def __init__(self, rank: int, block: int = 0) -> None:
        self._rank = rank
        self._block = block

    def attachments(self) -> tuple[StatusEntry, ...]:
        return (StatusEntry(name="loopback", interface="lo", ips=(address(self._rank, self._block),)),)

    def rank0(self) -> tuple[str, ...]:
        return (address(0, self._block),)
