"""Follow the runs of a namespace, or of all namespaces: the rows of ``torchnet status`` as they change.

Watches on the workloads and the pods keep the objects up to date, so that nothing is listed again to find a change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torchnet.errors import TorchnetError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import JOBSET, POD, Kind
from torchnet.k8s.client.watch import Watch
from torchnet.k8s.run.listing import (
    WORKLOAD_KINDS,
    RunRow,
    RunTable,
    build_search,
    build_table,
    selector_error,
    selector_of,
    unseen_jobsets,
)

Object = dict[str, Any]
INTERVAL_SECONDS = 0.5  # between two tables: a start changes each pod several times
DELETED = "deleted"


class StatusWatch:
    """Watches the runs that ``torchnet status`` would show with the same arguments.

    Args:
        namespace: "" for all namespaces.
        run: only this run, with its workers.
        labels: a label selector that the runs' workloads must match.
    """

    def __init__(self, client: ApiClient, namespace: str, run: str | None, labels: str) -> None:
        self._client, self._namespace, self._run, self._labels = client, namespace, run, labels
        self._lock = threading.Lock()
        # The last are the pods of runs whose workloads match, whatever their own labels.
        self._sources: list[tuple[Kind, str]] = [
            *((kind, selector_of(run, labels)) for kind in WORKLOAD_KINDS),
            *([(POD, selector_of(run))] if labels else []),
        ]
        self._objects: list[dict[str, Object] | None] = [None] * len(
            self._sources
        )  # by UID; None: not listed yet
        self._unseen: ApiRefusal | None = None
        self._errors: list[TorchnetError] = []
        self._changed = False
        self._is_first = True
        self._shown: dict[tuple[str, str], RunRow] = {}
        self._next = 0.0

    def start(self) -> None:
        """Start the watches; they end once the client's ``stop`` is set."""
        for number, (kind, labels) in enumerate(self._sources):
            Watch(
                self._client,
                self._namespace,
                self._run or "",
                kind=kind,
                labels=labels,
                on_list=partial(self._on_list, number),
                on_event=partial(self._on_event, number),
                on_error=partial(self._on_error, number),
            ).start()

    def take(self) -> RunTable | None:
        """The rows that have changed since the last call; None if there are none, or not everything is listed yet.

        The first table is returned even if it has no rows. A run that no longer exists has the state ``deleted``.

        Raises:
            UsageError: there is no such run, or ``labels`` is not a selector.
            ClusterError: the objects cannot be listed or watched, or the server cannot be reached.
        """
        with self._lock:
            if self._errors:
                raise self._errors[0]
            now = time.monotonic()
            if not self._changed or now < self._next or None in self._objects:
                return None
            self._changed, self._next = False, now + INTERVAL_SECONDS
            listed = [list(one.values()) for one in self._objects if one is not None]
            unseen = self._unseen
        return self._difference(listed, unseen)

    def _difference(self, listed: Sequence[list[Object]], unseen: ApiRefusal | None) -> RunTable | None:
        workloads = dict(zip(WORKLOAD_KINDS, listed, strict=False))
        search = build_search(self._namespace, workloads, unseen)
        is_first, self._is_first = self._is_first, False
        run = self._run if is_first or self._run in search.names else None
        table = build_table(search, listed[-1], run)
        rows = {(row.namespace, row.run): row for row in table.rows}
        changed = [
            row for key, row in rows.items() if _apart_from_age(row) != _apart_from_age(self._shown.get(key))
        ]
        gone = [row for key, row in self._shown.items() if key not in rows]
        self._shown = rows
        if not changed and not gone and not is_first:
            return None
        ended = [replace(row, state=DELETED, reason="", ready=0, workers=()) for row in gone]
        return RunTable([*changed, *ended], table.remark)

    def _on_list(self, number: int, found: list[Object]) -> None:
        with self._lock:
            self._objects[number] = {one["metadata"]["uid"]: one for one in found}
            self._changed = True

    def _on_event(self, number: int, kind: str, found: Object) -> None:
        with self._lock:
            objects = self._objects[number]
            assert objects is not None  # the list comes first
            if kind == "DELETED":
                objects.pop(found["metadata"]["uid"], None)
            else:
                objects[found["metadata"]["uid"]] = found
            self._changed = True

    def _on_error(self, number: int, error: TorchnetError) -> None:
        kind, _ = self._sources[number]
        if not isinstance(error, ApiRefusal):
            self._errors.append(error)
        elif kind is JOBSET and error.status in (403, 404) and self._objects[number] is None:
            try:
                self._unseen = unseen_jobsets(self._client, error)
                self._on_list(number, [])
            except TorchnetError as other:
                self._errors.append(other)
        else:
            self._errors.append(selector_error(error, self._labels))


def _apart_from_age(row: RunRow | None) -> RunRow | None:
    return None if row is None else replace(row, age_s=0.0)
