"""Why workers do not start: the workload's state, Events and container states, reported once per change (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from torchnet.k8s.run.event_texts import NEW_NODE, PULLING
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.worker_set import WorkerStatus

_LISTED = 16  # up to this many workers with the same reason are listed; more are summed up in one line
_ORDINARY_SECONDS, _ERROR_SECONDS = 5.0, 1.0  # how long a reason holds before it is reported
_LONGEST = 400  # characters of a reason


class PendingReasons:
    """Turns states into lines for the console, and remembers which were reported."""

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._reported: dict[str, str] = {}
        self._since: dict[str, tuple[str, float]] = {}

    def lines(
        self,
        workers: Mapping[int, WorkerStatus],
        event_texts: Mapping[str, str],
        queued: str,
        now: float,
        *,
        replaced: Mapping[int, str] | None = None,
    ) -> list[str]:
        """New lines for workers that have not started.

        Args:
            event_texts: texts of Events, by the name of the pod or the workload.
            queued: why the whole run waits in a queue; "" if it does not.
            now: seconds of any clock.
            replaced: by rank, why it has no pod now, if known.
        """
        reasons = self.reasons(workers, event_texts, queued, replaced=replaced)
        failing = {
            self._info.node(rank)
            for rank, one in workers.items()
            if one.failing or event_texts.get(one.pod, PULLING).partition(":")[0] != PULLING
        }
        failing |= (
            {self._info.run}
            if queued or {self._info.name, self._info.pod_creator} & event_texts.keys()
            else set()
        )
        grouped: dict[str, list[str]] = {}
        for name, why in reasons.items():
            before, since = self._since.get(name, ("", now))
            if before != why:
                since = now
            self._since[name] = why, since
            held = now - since >= (_ERROR_SECONDS if name in failing else _ORDINARY_SECONDS)
            if held and self._reported.get(name) != why:
                self._reported[name] = why
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
        workers: Mapping[int, WorkerStatus],
        event_texts: Mapping[str, str],
        queued: str,
        *,
        replaced: Mapping[int, str] | None = None,
    ) -> dict[str, str]:
        """By worker name, why it has not started; by the run's name, if the reason concerns all workers."""
        if queued:
            return {self._info.run: queued}
        found: dict[str, str] = {}
        absent = [rank for rank in range(self._info.nnodes) if rank not in workers]
        if absent:
            event_text = event_texts.get(self._info.pod_creator) or event_texts.get(self._info.name)
            why = event_text or "has no pod yet"
            last = {rank: text for rank, text in (replaced or {}).items() if rank in absent}
            if len(absent) == self._info.nnodes and self._info.nnodes > 1 and not last:
                found[self._info.run] = f"no pod yet{': ' + event_text if event_text else ''}"
            else:
                names = {rank: self._info.node(rank) for rank in absent}
                found |= {name: last.get(rank, why).removeprefix(f"{name}: ") for rank, name in names.items()}
        for rank, one in workers.items():
            if one.started or one.ended:
                continue
            why = one.why
            text = event_texts.get(one.pod, "")
            added = one.stage == "unscheduled" and text.partition(":")[0] in NEW_NODE
            if one.stage in ("creating", "unscheduled") and text and (added or not one.failing):
                why = text  # but an error in the status says more than the Events
            found[self._info.node(rank)] = " ".join(why.split())[:_LONGEST]
        return found


def cold_start(workers: Mapping[int, WorkerStatus], event_texts: Mapping[str, str]) -> str:
    """What a cold cluster still prepares for these workers: "images" or "new nodes"; "" if nothing is known."""
    waiting = [one for one in workers.values() if not one.started and one.ended is None]
    reasons = {one.pod: event_texts.get(one.pod, "").partition(":")[0] for one in waiting}
    if any(one.stage == "unscheduled" and reasons[one.pod] in NEW_NODE for one in waiting):
        return "new nodes"
    pulls = [one for one in waiting if one.stage == "creating" and not one.failing]
    return "images" if any(one.pulls or reasons[one.pod] == PULLING for one in pulls) else ""
