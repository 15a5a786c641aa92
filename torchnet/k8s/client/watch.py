"""The watch on objects, a run's pods for example: a list, then all changes from its resourceVersion, in a thread.

A stream that ends (each does, after some minutes), breaks (the API server restarts) or is too old (410 Gone) is opened
again: from the last resourceVersion where possible, otherwise after a new list. `torchnet.k8s.run.worker_set` merges
the lists and events into one state. Lists are read in pages, and streams that bring nothing are opened again at growing
intervals: a thousand pods are 10 MB, and an API server that fails must not be asked for them several times a second.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torchnet.constants import RUN_LABEL
from torchnet.errors import TorchnetError
from torchnet.k8s.client.api_client import JSON, METADATA, METADATA_OBJECT, ApiClient
from torchnet.k8s.client.api_errors import ApiCall, ApiRefusal, ApiUnreachable, parse_refusal
from torchnet.k8s.client.backoff import Backoff
from torchnet.k8s.client.kinds import POD, Kind, selector
from torchnet.text import printable

_ROUND = 240  # seconds after which the server closes a stream normally
_SILENCE = 90.0  # seconds without a byte: bookmarks come once a minute, so the connection is dead
_PATIENCE = 300.0  # seconds without an API server before the watch gives up; the job itself goes on
# Seconds between two streams, doubled while they bring nothing, and between two lists, doubled unless the last one has
# served for a while.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_CALM = 60.0
_LONGEST = 8 << 20  # bytes of one event
_PAGE = 500  # objects

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
        fields: A field selector; it replaces that of ``run`` and ``label``, too.
        metadata: Whether the objects' metadata is enough.
        patience: Seconds without an API server before the watch gives up.
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
        fields: str = "",
        metadata: bool = False,
        patience: float = _PATIENCE,
    ) -> None:
        self._client, self._namespace, self._kind = client, namespace, kind
        if not labels and not fields:
            labels = selector(run, label)
        selectors = {"labelSelector": labels, "fieldSelector": fields}
        self._selectors: dict[str, object] = {name: text for name, text in selectors.items() if text}
        self._metadata, self._patience = metadata, patience
        self._streams, self._lists = (Backoff(_FIRST_PAUSE, _LONGEST_PAUSE) for _ in range(2))
        self._what = f"the watch on the {kind.plural} of {run or 'the runs'}"
        self._on_list, self._on_event, self._on_error = on_list, on_event, on_error
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        version, listed = "", 0.0
        try:
            while not self._client.stop.is_set():
                if not version:
                    version, listed = self._list(), time.monotonic()
                version = self._follow(version)
                if not version and time.monotonic() - listed > _CALM:
                    self._lists.reset()
                pause = (self._streams if version else self._lists).next()
                self._client.stop.wait(pause * random.uniform(0.5, 1.0))
        except TorchnetError as error:
            self._give_up(error)
        except Exception as error:
            self._give_up(internal_error(self._what, error))

    def _give_up(self, error: TorchnetError) -> None:
        if not self._client.stop.is_set():
            self._on_error(error)

    def _list(self) -> str:
        """Pass on a complete list; return its resourceVersion."""
        items, version = list_pages(
            self._client,
            self._kind.path(self._namespace),
            self._kind.call("list", self._namespace),
            self._selectors,
            metadata=self._metadata,
            patience=self._patience,
        )
        self._on_list(items)
        return version

    def _follow(self, version: str) -> str:
        """Follow one stream; return the last resourceVersion seen, or "" if a new list is needed."""
        query = self._selectors | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": _ROUND,
        }
        call = self._kind.call("watch", self._namespace)
        try:
            response = self._client.stream(
                self._kind.path(self._namespace),
                call,
                query=query,
                silence=_SILENCE,
                patience=self._patience,
                accept=METADATA_OBJECT if self._metadata else "*/*",
            )
        except ApiRefusal as error:
            if error.status == 410:
                return ""
            raise
        try:
            for event in events(lines(response)):
                if event is None:
                    return ""
                kind, body = event["type"], event["object"]
                if kind == "ERROR":
                    code = int(body.get("code") or 0)
                    problem = parse_refusal(call, code, json.dumps(body).encode())
                    if code == 403:
                        raise problem
                    # 401: the new list renews the credentials, or reports that it cannot. 410: the version is too old.
                    return ""
                version = str(body["metadata"].get("resourceVersion") or version)
                self._streams.reset()
                if kind != "BOOKMARK":
                    self._on_event(kind, body)
        except ApiUnreachable:
            pass  # the stream broke: resume from the last version
        finally:
            response.close()
        return version


def list_pages(
    client: ApiClient,
    path: str,
    call: ApiCall,
    selectors: Mapping[str, object],
    *,
    metadata: bool = False,
    limit: int | None = None,
    patience: float | None = None,
) -> tuple[list[Pod], str]:
    """Return all objects that the selectors match, read in pages of 500, and the list's resourceVersion.

    Args:
        limit: Return only the first ones, of a single page of this size.

    Raises:
        ApiRefusal: The server refused the request.
        ApiUnreachable: No usable response within ``patience`` seconds (default: the client's).
    """
    found: list[Pod] = []
    query: dict[str, object] = {**selectors, "limit": limit or _PAGE}
    accept = METADATA if metadata else JSON
    while True:
        try:
            answer = client.call("GET", path, call, query=query, accept=accept, patience=patience)
        except ApiRefusal as error:
            if error.status != 410 or "continue" not in query:
                raise
            query, found = dict(selectors), []  # the pages' version is too old: all at once
            continue
        found += [item for item in answer.get("items") or () if isinstance(item, dict)]
        meta = answer.get("metadata") or {}
        if limit or not meta.get("continue"):
            return found, str(meta.get("resourceVersion") or "")
        query = {**selectors, "limit": _PAGE, "continue": str(meta["continue"])}


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
