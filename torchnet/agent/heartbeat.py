"""Who has not been heard for too long, and what is to be said of it."""

from __future__ import annotations

import time

from torchnet.agent.events import Failure
from torchnet.agent.membership import Member, Membership
from torchnet.text import listed

BEAT_SECONDS = 1.0
SILENT_SECONDS = 3.5  # beats come once a second
RENEW_SECONDS = 10.0  # for a restart's addresses to be known


def silence_seconds(link_grace: float) -> float:
    """After how long without a word a worker is lost: a flap of ``link_grace`` and TCP's retransmission fit in."""
    return 2 * link_grace + 3.0


def silent(roll: Membership, own: int, limit: float) -> list[Member]:
    """Workers other than rank ``own`` of which nothing came for more than ``limit`` seconds."""
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
    """They have not stopped, so nothing can be started in their place."""
    names = listed([f"{member.row.name} (node rank {member.row.node_rank})" for member in members])
    text = f"lost {names}: not stopped {seconds:g} s after the word to, so there is no restart"
    return Failure("lost", text, 70, node=members[0].row.name, at=time.time())


def cut_off(own: Member, others: int, limit: float) -> Failure:
    """All others are silent at once: it is rank 0 itself."""
    row = own.row
    text = (
        f"{row.name} (node rank {row.node_rank}) hears nothing from any of the {others} other workers over "
        f"{row.rails[0].interface}: it is the one that is cut off"
    )
    return Failure("network", text, 4, node=row.name, at=time.time() - limit)


def missing(roll: Membership, count: int) -> str:
    """``node rank 1, 2 …`` of those that have not joined."""
    ranks = [str(rank) for rank in range(count) if rank not in roll]
    return f"node rank {', '.join(ranks[:8])}{' …' if len(ranks) > 8 else ''}"
