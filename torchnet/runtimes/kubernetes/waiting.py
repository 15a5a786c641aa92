"""What keeps workers from starting, told once per change (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torchnet.runtimes.kubernetes.facts import Facts
from torchnet.runtimes.kubernetes.pods import Worker, seconds

_LISTED = 16  # workers told one by one; further ones with the same reason are counted
_PULLING = "Pulling"
_ORDINARY_SECONDS, _ERROR_SECONDS = 5.0, 1.0  # that a reason has held before it is worth a line
_LONGEST = 400  # characters of a reason
# What the kubelet and the controllers say while they try; the pod's status has no word of it.
_TELLING = (
    "FailedCreatePodSandBox",
    "FailedCreate",
    "FailedMount",
    "FailedAttachVolume",
    "NoNetworkFound",
    "Pulling",
)


class Waiting:
    """Turns states into lines; holds what was said."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._said: dict[str, str] = {}
        self._since: dict[str, tuple[str, float]] = {}

    def lines(
        self,
        workers: Mapping[int, Worker],
        told: Mapping[str, str],
        queued: str,
        now: float,
        *,
        replaced: Mapping[int, str] | None = None,
    ) -> list[str]:
        """New lines for workers that have not started.

        Args:
            told: events' texts by the name of the pod, or of the workload.
            queued: why the whole run waits, if it does.
            now: seconds of any clock.
            replaced: why ranks have no pod now, where it is known.
        """
        reasons = self.reasons(workers, told, queued, replaced=replaced)
        failing = {
            self._facts.node(rank)
            for rank, one in workers.items()
            if one.failing or told.get(one.pod, _PULLING).partition(":")[0] != _PULLING
        }
        failing |= (
            {self._facts.run} if queued or {self._facts.name, self._facts.maker} & told.keys() else set()
        )
        grouped: dict[str, list[str]] = {}
        for name, why in reasons.items():
            before, since = self._since.get(name, ("", now))
            if before != why:
                since = now
            self._since[name] = why, since
            held = now - since >= (_ERROR_SECONDS if name in failing else _ORDINARY_SECONDS)
            if held and self._said.get(name) != why:
                self._said[name] = why
                grouped.setdefault(why, []).append(name)
        out = []
        for why, group in grouped.items():
            if len(group) > _LISTED:
                out.append(f"{group[0]} and {len(group) - 1} more workers: {why}")
            else:
                out += [f"{name}: {why}" for name in group]
        return out

    def reasons(
        self,
        workers: Mapping[int, Worker],
        told: Mapping[str, str],
        queued: str,
        *,
        replaced: Mapping[int, str] | None = None,
    ) -> dict[str, str]:
        """Why each worker that has not started has not."""
        if queued:
            return {self._facts.run: queued}
        found: dict[str, str] = {}
        absent = [rank for rank in range(self._facts.nnodes) if rank not in workers]
        if absent:
            said = told.get(self._facts.maker) or told.get(self._facts.name)
            why = said or "has no pod yet"
            last = {rank: text for rank, text in (replaced or {}).items() if rank in absent}
            if len(absent) == self._facts.nnodes and self._facts.nnodes > 1 and not last:
                found[self._facts.run] = f"no pod yet{': ' + said if said else ''}"
            else:
                names = {rank: self._facts.node(rank) for rank in absent}
                found |= {name: last.get(rank, why).removeprefix(f"{name}: ") for rank, name in names.items()}
        for rank, one in workers.items():
            if one.started or one.ended:
                continue
            why = one.why
            if one.stage in ("creating", "unscheduled") and one.pod in told and not one.failing:
                why = told[one.pod]  # a status that is an error says more than the events
            found[self._facts.node(rank)] = " ".join(why.split())[:_LONGEST]
        return found


def events_told(
    events: Iterable[Mapping[str, Any]], uids: Mapping[str, str] | None = None, *, since: float = 0.0
) -> dict[str, str]:
    """The newest telling text of each object, from a list of Events.

    Args:
        uids: by name, where known. A name alone may be an earlier run's: its events stay for an hour.
        since: unix time, before which events tell of something else; for names that ``uids`` has not.
    """
    newest: dict[str, tuple[float, str]] = {}
    for event in events:
        if event.get("reason") not in _TELLING:
            continue
        about = event.get("involvedObject") or {}
        name, uid = str(about.get("name") or ""), about.get("uid")
        meta = event.get("metadata") or {}
        stamp = event.get("lastTimestamp") or event.get("eventTime") or meta.get("creationTimestamp")
        text = f"{event['reason']}: {' '.join(str(event.get('message') or '').split())}"
        at = seconds(stamp)
        known = (uids or {}).get(name)
        if (uid != known) if known and uid else at < since:
            continue
        if name and (name not in newest or at >= newest[name][0]):
            newest[name] = (at, _stable(text))
    return {name: text for name, (_, text) in newest.items()}


def _stable(text: str) -> str:
    """Without the sandbox's id, which is another one at each try: the same reason is said once."""
    words = [word for word in text.split(" ") if not _is_id(word.strip('"():,'))]
    return " ".join(words)


def _is_id(word: str) -> bool:
    return len(word) == 64 and all(letter in "0123456789abcdef" for letter in word)
