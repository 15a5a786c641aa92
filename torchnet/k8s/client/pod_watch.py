"""The pods that a selector matches, as they are now: one list, which a watch keeps up to date."""

from __future__ import annotations

import threading
from typing import Any

from torchnet.errors import TorchnetError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.backoff import Backoff
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.client.watch import Watch, list_pages

Object = dict[str, Any]
FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 16.0  # seconds between two lists, if this user may not watch pods


class PodWatch:
    """Follows pods while the block runs.

    Users who may list pods but not watch them get new lists, at growing intervals.

    Args:
        labels: The label selector.
        metadata: Whether the pods' metadata is enough.
    """

    def __init__(self, client: ApiClient, namespace: str, labels: str, *, metadata: bool = False) -> None:
        self._client = client.sibling()  # of its own, because the end of the block stops it
        self._namespace, self._labels, self._metadata = namespace, labels, metadata
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._bodies: dict[str, Object] = {}
        self._is_listed = False
        self._error: TorchnetError | None = None
        self._watch = Watch(
            self._client,
            namespace,
            "",
            labels=labels,
            metadata=metadata,
            patience=client.patience,
            on_list=self._list,
            on_event=self._event,
            on_error=self._fail,
        )

    def __enter__(self) -> PodWatch:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop.set()

    @property
    def is_listed(self) -> bool:
        """Whether a complete list has arrived, or none can be read."""
        with self._lock:
            return self._is_listed or self._error is not None

    def bodies(self) -> dict[str, Object]:
        """Return the pods by name.

        Raises:
            ClusterError: The pods cannot be listed, or the API server cannot be reached any more.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            return dict(self._bodies)

    def wait(self, seconds: float) -> None:
        """Wait for a change since the last wait, up to ``seconds``."""
        if self._changed.wait(seconds):
            self._changed.clear()

    def _list(self, pods: list[Object]) -> None:
        with self._lock:
            self._bodies = {one["metadata"]["name"]: one for one in pods}
            self._is_listed = True
        self._changed.set()

    def _event(self, kind: str, body: Object) -> None:
        with self._lock:
            name = body["metadata"]["name"]
            if kind == "DELETED":
                self._bodies.pop(name, None)
            else:
                self._bodies[name] = body
        self._changed.set()

    def _fail(self, error: TorchnetError) -> None:
        if isinstance(error, ApiRefusal) and error.status == 403 and error.call.verb == "watch":
            try:
                self._poll()
                return
            except TorchnetError as other:
                error = other
        with self._lock:
            self._error = error
        self._changed.set()

    def _poll(self) -> None:
        backoff = Backoff(FIRST_PAUSE, _LONGEST_PAUSE)
        path, call = POD.path(self._namespace), POD.call("list", self._namespace)
        while not self._client.stop.wait(backoff.next()):
            query: dict[str, object] = {"labelSelector": self._labels}
            self._list(list_pages(self._client, path, call, query, metadata=self._metadata)[0])
