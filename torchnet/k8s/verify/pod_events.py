"""The Events about the test pods, as a watch reports them."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from torchnet.errors import TorchnetError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.kinds import EVENT
from torchnet.k8s.client.watch import Watch

Object = dict[str, Any]


class PodEvents:
    """Watches the Events about pods whose names begin with ``prefix``, while the block runs.

    Users who may not list or watch Events see none.
    """

    def __init__(self, client: ApiClient, namespace: str, prefix: str) -> None:
        self._client, self._prefix = client.sibling(), prefix
        self._lock = threading.Lock()
        self._events: dict[str, dict[str, Object]] = {}  # by the pods' UID and the Events' names
        self._watch = Watch(
            self._client,
            namespace,
            "",
            kind=EVENT,
            fields="involvedObject.kind=Pod",
            on_list=self._add,
            on_event=lambda _, event: self._add([event]),
            on_error=_ignore,
        )

    def __enter__(self) -> PodEvents:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop.set()

    def of(self, uid: str) -> list[Object]:
        """Return the Events about the pod with this UID."""
        with self._lock:
            return list(self._events.get(uid, {}).values())

    def _add(self, events: Iterable[Object]) -> None:
        with self._lock:
            for event in events:
                about = event.get("involvedObject") or {}
                if str(about.get("name") or "").startswith(self._prefix):
                    name = str((event.get("metadata") or {}).get("name") or "")
                    self._events.setdefault(str(about.get("uid") or ""), {})[name] = event


def _ignore(_: TorchnetError) -> None:
    """Events only explain; the watch on the pods reports an API server that does not respond."""
