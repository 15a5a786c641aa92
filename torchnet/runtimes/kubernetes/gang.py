"""All workers of a run, from the events of a watch (pure): the same state, whatever the events' order.

A pod is known by its UID. Of two states of one pod the one with the higher resourceVersion counts (they can be compared
within one resource: KEP-5504), and a pod that was deleted never comes back. So a list that is read again after a lost
watch neither doubles nor undoes anything.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torchnet.names import REPLACE_CODE, STOPPED_CODE
from torchnet.runtimes.kubernetes.pods import Ended, Worker, age_key, rank_of, worker

Pod = dict[str, Any]


@dataclass(frozen=True)
class _Gone:
    """A pod that was deleted; ``last`` is what was seen of it last."""

    last: Pod


class Gang:
    """Feed it lists and events; :meth:`workers` is the state. ``restarts``: a pod may take another one's place
    after the training has begun (JobSet). ``replaces``: the workload makes another pod for one that the cluster has
    taken away, or whose agent has asked for it (all but plain Pods)."""

    def __init__(self, nnodes: int, *, restarts: bool = False, replaces: bool = False) -> None:
        self._nnodes = nnodes
        self._restarts = restarts
        self._replaces = replaces
        self._pods: dict[str, Pod] = {}
        self._gone: dict[str, _Gone] = {}
        self._departures: set[tuple[str, str]] = set()
        self._forgotten: set[str] = set()  # UIDs
        self._known: dict[
            Container[int] | None, dict[int, Worker]
        ] = {}  # since the last event: it takes a while

    def event(self, kind: str, pod: Pod) -> None:
        """One event of a watch: ADDED, MODIFIED or DELETED."""
        uid = pod["metadata"]["uid"]
        if rank_of(pod) is None:
            return
        self._known = {}
        newest = self._newer(uid, pod)
        if kind == "DELETED" or uid in self._gone:
            self._pods.pop(uid, None)
            self._gone[uid] = _Gone(newest)
            self._departures.add((uid, "gone"))
        else:
            self._pods[uid] = newest
        one = worker(newest)
        if one.leaving:
            self._departures.add((uid, "leaving"))
        if one.ended is not None:
            self._departures.add((uid, "ended"))

    def listed(self, pods: Iterable[Pod]) -> None:
        """A whole list: what is not in it has been deleted meanwhile."""
        pods = list(pods)
        present = {pod["metadata"]["uid"] for pod in pods}
        self._known = {}
        for uid in self._pods.keys() - present:
            self._gone[uid] = _Gone(self._pods.pop(uid))
            self._departures.add((uid, "gone"))
        for pod in pods:
            self.event("ADDED", pod)

    @property
    def departures(self) -> int:
        """How many changes there were of pods that end, are taken away, or are gone."""
        return len(self._departures)

    def seen(self) -> list[tuple[Pod, bool]]:
        """All pods that were ever seen, as they were last, and whether they are gone."""
        return [(pod, False) for pod in self._pods.values()] + [
            (one.last, True) for one in self._gone.values()
        ]

    def forget(self, uids: Iterable[str]) -> bool:
        """Leave these pods out of the workers for good; whether one of them was not left out before."""
        before = len(self._forgotten)
        self._forgotten.update(uids)
        if len(self._forgotten) == before:
            return False
        self._known = {}
        return True

    def _newer(self, uid: str, pod: Pod) -> Pod:
        known = self._pods.get(uid) or (self._gone[uid].last if uid in self._gone else None)
        return pod if known is None or _version(pod) >= _version(known) else known

    def workers(self, attempts: Container[int] | None = None) -> dict[int, Worker]:
        """The worker of each rank that has, or had, a pod; of these starts of the gang alone, where they are given.

        A rank's newest pod speaks for it. One that was deleted after its training had begun, or ended, stays its
        worker (that it was lost, or how it ended, must not be forgotten). One that was deleted or evicted before, or
        that asks for another one, makes room where the workload makes another; where none does, it is lost until
        somebody else has made one.
        """
        if attempts not in self._known:
            self._known[attempts] = self._workers(attempts)
        return dict(self._known[attempts])

    def _workers(self, attempts: Container[int] | None) -> dict[int, Worker]:
        chosen: dict[int, tuple[tuple[bool, tuple[int, str, str]], Worker]] = {}
        for pod, gone in self.seen():
            if pod["metadata"]["uid"] in self._forgotten:
                continue
            if attempts is not None and age_key(pod)[0] not in attempts:
                continue
            one = worker(pod)
            if self._replaces and gone and not one.started and one.ended is None:
                continue
            if (
                self._replaces
                and one.ended is not None
                and not one.started
                and self._replaced(one.ended, one)
            ):
                continue
            # Without restarts, whoever has trained is the worker: a replacement cannot take part in its job.
            final = not self._restarts and (one.started or (gone and one.ended is not None))
            key = (final, age_key(pod) if not final else _first(age_key(pod)))
            if gone and one.stage != "ended":
                one = replace(
                    one, stage="ended", ended=Ended(70, None, "its pod was deleted, or its node is gone")
                )
            if one.rank < self._nnodes and (one.rank not in chosen or key > chosen[one.rank][0]):
                chosen[one.rank] = (key, one)
        return {rank: chosen[rank][1] for rank in sorted(chosen)}

    def _replaced(self, ended: Ended, one: Worker) -> bool:
        """Of a JobSet, whatever has no such code fails its Job (torchnet.render.workloads)."""
        return ended.code in (REPLACE_CODE, STOPPED_CODE) if self._restarts else one.replaced

    @property
    def attempt(self) -> int:
        """The newest start of the gang of which a pod was seen."""
        return max((age_key(pod)[0] for pod in self._pods.values()), default=0)

    def replaced(self) -> dict[int, str]:
        """Why ranks that have no worker have lost the last one: what its agent said."""
        if not self._replaces:
            return {}
        present = self.workers()
        if len(present) >= self._nnodes:
            return {}
        found = [
            one
            for one in map(worker, sorted(self._pods.values(), key=age_key))
            if one.rank not in present and one.uid not in self._forgotten
        ]
        said = {one.rank: one.ended.message for one in found if one.ended is not None}
        return {rank: m.failure.text for rank, m in said.items() if m is not None and m.failure is not None}

    def pods(self) -> dict[str, Pod]:
        """The pods that exist, by name."""
        return {pod["metadata"]["name"]: pod for pod in self._pods.values()}


def _first(key: tuple[int, str, str]) -> tuple[int, str, str]:
    """Turns the order around: of those that trained, the first is the job's."""
    attempt, made, uid = key
    return -attempt, "".join(chr(0x10FFFF - ord(c)) for c in made), uid


def _version(pod: Pod) -> int:
    text = str(pod["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0
