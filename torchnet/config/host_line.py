"""One host's part of a job whose command line is started on each host, as with torchrun and srun."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostLine:
    """What the command line and its environment say about this host.

    Attributes:
        host: Where the rendezvous takes place: an address or a name, as it was given.
        port: Of the rendezvous.
        node_rank: As given; None: rank 0 assigns it, unless this is the endpoint's own host.
        wished: The node rank that this host gets if it is free: its number in the Slurm job step, if srun set it, or a
            rank that torchrun would ignore.
        names: Of the hosts by node rank, if Slurm tells them.
        where: How the endpoint was given, such as ``--rdzv-endpoint``.
    """

    host: str
    port: int
    node_rank: int | None = None
    wished: int | None = None
    names: tuple[str, ...] = ()
    where: str = ""

    @property
    def endpoint(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
