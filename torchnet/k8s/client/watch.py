"""The watch on objects, a run's pods for example: a list, then all changes from its resourceVersion, in a thread.

A stream that ends (each does, after some minutes), breaks (the API server restarts) or is too old (410 Gone) is opened
again: from the last resourceVersion where possible, otherwise after a new list. `torchnet.k8s.run.worker_set` merges
the lists and events into one state.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torchnet.constants import RUN_LABEL
from torchnet.errors import TorchnetError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable, parse_refusal
from torchnet.k8s.client.kinds import POD, Kind, selector
from torchnet.text import printable

_ROUND = 240  # seconds after which the server closes a stream normally
_SILENCE = 90.0  # seconds without a byte: bookmarks come once a minute, so the connection is dead
_PATIENCE = 300.0  # seconds without an API server before the watch gives up; the job itself goes on
_UNREAD = 1.0  # seconds before a new list after an event that could not be parsed
_LONGEST = 8 << 20  # bytes of one event

Pod = dict[str, Any]


class Watch:
    """Calls ``on_list(pods)`` and ``on_event(kind, pod)`` from its thread, and ``on_error(error)`` when it gives up.

    Every failure is reported unless the client's ``stop`` is set: an unexpected exception becomes an internal error of
    torchnet (exit code 70).

    Args:
        namespace: "" for all namespaces.
        run: The run whose objects are watched.
        label: The key of the label with the run's name.
        kind: The kind of the objects.
        labels: A label selector that replaces that of ``run`` and ``label``.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        run: str,
        *,
        on_list: Callable[[list[Pod]], None],
        on_event: Callable[[str, Pod], None],
        on_error: Callable[[TorchnetError], None],
        label: str = RUN_LABEL,
        kind: Kind = POD,
        labels: str = "",
    ) -> None:
        self._client, self._namespace, self._kind = client, namespace, kind
        self._labels = labels or selector(run, label)
        self._what = f"the watch on the {kind.plural} of {run or 'the runs'}"
        self._on_list, self._on_event, self._on_error = on_list, on_event, on_error
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        version = ""
        try:
            while not self._client.stop.is_set():
                if not version:
                    version = self._list()
                version = self._follow(version)
                # Limit the request rate if streams end immediately.
                self._client.stop.wait(random.uniform(0.05, 0.3))
        except TorchnetError as error:
            self._give_up(error)
        except Exception as error:
            self._give_up(internal_error(self._what, error))

    def _give_up(self, error: TorchnetError) -> None:
        if not self._client.stop.is_set():
            self._on_error(error)

    def _list(self) -> str:
        call = self._kind.call("list", self._namespace)
        answer = self._client.call(
            "GET",
            self._kind.path(self._namespace),
            call,
            query={"labelSelector": self._labels},
            patience=_PATIENCE,
        )
        self._on_list([item for item in answer.get("items") or () if isinstance(item, dict)])
        return str((answer.get("metadata") or {}).get("resourceVersion") or "")

    def _follow(self, version: str) -> str:
        """Follow one stream; return the last resourceVersion seen, or "" if a new list is needed."""
        query = {
            "labelSelector": self._labels,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": _ROUND,
        }
        call = self._kind.call("watch", self._namespace)
        try:
            response = self._client.stream(
                self._kind.path(self._namespace), call, query=query, silence=_SILENCE, patience=_PATIENCE
            )
        except ApiRefusal as error:
            if error.status == 410:
                return ""
            raise
        try:
            for event in events(lines(response)):
                if event is None:
                    self._client.stop.wait(_UNREAD)
                    return ""
                kind, body = event["type"], event["object"]
                if kind == "ERROR":
                    code = int(body.get("code") or 0)
                    if code == 410:
                        return ""
                    problem = parse_refusal(call, code, json.dumps(body).encode())
                    if code == 403:
                        raise problem
                    return ""  # 401: the new list renews the credentials, or reports that it cannot
                version = str(body["metadata"].get("resourceVersion") or version)
                if kind != "BOOKMARK":
                    self._on_event(kind, body)
        except ApiUnreachable:
            pass  # the stream broke: resume from the last version
        finally:
            response.close()
        return version


def lines(response: Any, longest: int = _LONGEST) -> Iterator[bytes]:
    """Yield the lines of a stream without their newlines; an incomplete last line is dropped.

    A line of more than ``longest`` bytes is yielded in pieces.

    Raises:
        ApiUnreachable: The stream broke.
    """
    from urllib3.exceptions import HTTPError

    rest = bytearray()
    try:
        # read1 returns the bytes that have arrived, without waiting for more.
        while chunk := response.read1(1 << 16):
            start = len(rest)
            rest += chunk
            while (end := rest.find(b"\n", start)) >= 0:
                yield bytes(rest[:end])
                del rest[: end + 1]
                start = 0
            while len(rest) > longest:
                yield bytes(rest[:longest])
                del rest[:longest]
    except (HTTPError, OSError, ValueError) as error:  # ValueError: closed by another thread
        raise ApiUnreachable(f"the stream from the API server broke: {type(error).__name__}") from None


def events(texts: Iterator[bytes]) -> Iterator[dict[str, Any] | None]:
    """Yield the events of a watch; None for a line that is not an event, after which a new list is needed."""
    for text in texts:
        try:
            on_event = json.loads(text)
        except (ValueError, RecursionError):
            on_event = None
        body = on_event.get("object") if isinstance(on_event, dict) else None
        is_complete = isinstance(body, dict) and isinstance(body.setdefault("metadata", {}), dict)
        yield on_event if is_complete and isinstance(on_event.get("type"), str) else None


def internal_error(what: str, error: Exception) -> TorchnetError:
    """Return the internal error for an exception that ended the thread that did ``what``."""
    return TorchnetError(f"{what} failed: {type(error).__name__}: {printable(str(error), 300)}")
