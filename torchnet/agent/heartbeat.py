"""Detect silent workers, and describe the failures that follow."""

from __future__ import annotations

import time

from torchnet.agent.events import Failure
from torchnet.agent.membership import Member, Membership
from torchnet.text import listed

BEAT_SECONDS = 1.0
SILENT_SECONDS = 3.5  # heartbeats arrive once a second
RENEW_SECONDS = 10.0  # to determine a restart's addresses


def silence_seconds(link_grace: float) -> float:
    """Return the silence after which a worker is lost: enough for a flap of ``link_grace`` and TCP retransmission."""
    return 2 * link_grace + 3.0


def silent(roll: Membership, own: int, limit: float) -> list[Member]:
    """Return workers other than rank ``own`` that sent nothing for more than ``limit`` seconds."""
    now = time.monotonic()
    return [member for rank, member in roll.items() if rank != own and now - member.heard > limit]


def lost(member: Member, limit: float) -> Failure:
    row = member.row
    address = row.rails[0].address if row.rails else "?"
    passed = time.monotonic() - member.heard
    text = f"lost {row.name} (node rank {row.node_rank}): nothing heard from it over {address} for {passed:.0f} s"
    return Failure("network", text, 4, node=row.name, at=time.time() - limit)


def went(member: Member) -> Failure:
    row = member.row
    text = f"lost {row.name} (node rank {row.node_rank}): its agent's connection ended"
    return Failure("lost", text, 70, node=row.name, at=time.time())


def overdue(members: list[Member], seconds: float) -> Failure:
    """Describe workers that did not stop, which rules a restart out."""
    names = listed([f"{member.row.name} (node rank {member.row.node_rank})" for member in members])
    text = f"lost {names}: not stopped {seconds:g} s after the word to, so there is no restart"
    return Failure("lost", text, 70, node=members[0].row.name, at=time.time())


def cut_off(own: Member, others: int, limit: float) -> Failure:
    """Describe rank 0 as cut off: all others are silent at once."""
    row = own.row
    text = (
        f"{row.name} (node rank {row.node_rank}) hears nothing from any of the {others} other workers over "
        f"{row.rails[0].interface}: it is the one that is cut off"
    )
    return Failure("network", text, 4, node=row.name, at=time.time() - limit)


def missing(roll: Membership, count: int) -> str:
    """Return ``node rank 1, 2 …`` for workers that have not joined."""
    ranks = [str(rank) for rank in range(count) if rank not in roll]
    return f"node rank {', '.join(ranks[:8])}{' …' if len(ranks) > 8 else ''}"
