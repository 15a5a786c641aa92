"""The API client: every HTTP request to the API server is made by :class:`ApiClient`.

The client uses paths and plain JSON instead of the official client's generated classes: the request is exactly what was
rendered, and the response may have fields that the library does not know. The library provides the connection
(configuration, TLS, proxies, credentials and their renewal).

429, 5xx, failed connections and truncated responses are retried with jitter for up to ``patience`` seconds, honouring
Retry-After. So is a conflict at creation (two requests updated the same quota). A 5xx because of a failing webhook is
not: the webhook's owner has to act. 403 is never retried, and 401 once, with new credentials, if the server accepted
the old ones before. Errors in a stream that has begun are left to the caller.

`urllib3.util.Retry` does not fit: it has no total deadline, an event cannot end its sleep, it decides before the body
is read (a truncated body is retried here, and a conflict is identified by its reason), and it does not report attempts.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from torchnet.errors import ClusterError
from torchnet.k8s.client.access import Access, PendingRequest, load
from torchnet.k8s.client.api_errors import ApiCall, ApiRefusal, ApiUnreachable, failure_reason, parse_refusal
from torchnet.text import printable

JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
METADATA_OBJECT = METADATA.replace("MetadataList", "Metadata")  # of one object, also in a watch
PATIENCE = 30.0  # seconds for which a call is retried
_CONNECT, _READ = 10.0, 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between two attempts
_LONGEST_BODY = 256 << 20

Object = dict[str, Any]
_LOST = object()


@dataclass(frozen=True)
class _Request:
    """One HTTP request: ``read`` is the time-out in seconds without a byte, ``content`` the type of the body."""

    method: str
    path: str
    query: Mapping[str, object] | None
    read: float
    accept: str = "*/*"
    body: object = None
    content: str = JSON


class ApiClient:
    """A client of the API server that several threads can share.

    Once :attr:`stop` is set, failed attempts are not retried.

    Args:
        patience: Seconds for which a call is retried.
        timeout: Seconds without a byte that end one attempt of a :meth:`call`.
    """

    def __init__(self, access: Access, *, patience: float = PATIENCE, timeout: float = _READ) -> None:
        self.access = access
        self._patience, self._timeout = patience, timeout
        self.stop = threading.Event()
        self.clock_offset = float("-inf")
        """The server's clock (Unix time) minus this machine's monotonic clock, in seconds, as of the last response."""

    def sibling(self) -> ApiClient:
        """Return a client of the same server with the same time limits and a :attr:`stop` of its own."""
        return ApiClient(self.access, patience=self._patience, timeout=self._timeout)

    @property
    def patience(self) -> float:
        """Seconds for which a call is retried."""
        return self._patience

    def call(
        self,
        method: str,
        path: str,
        call: ApiCall,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        content: str = JSON,
        accept: str = JSON,
        patience: float | None = None,
    ) -> Object:
        """Send a request and return the response, a JSON object.

        Raises:
            ApiRefusal: The server refused the request.
            ApiUnreachable: No usable response within ``patience`` seconds (default: the client's).
            ClusterError: The response is not a JSON object.
        """
        request = _Request(method, path, query, self._timeout, accept, body, content)
        data = self._send(call, request, patience, take=partial(_read_body, call))
        try:
            answer = json.loads(data) if data else {}
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise ClusterError(
                f"{self.access.place} returned an unexpected response to {call}: not a JSON object"
            )
        return answer

    def read(
        self,
        path: str,
        call: ApiCall,
        *,
        query: Mapping[str, object],
        silence: float = _READ,
        patience: float | None = None,
    ) -> bytes:
        """Return a response that is not a JSON object, such as a log, up to 256 MiB.

        Args:
            silence: Seconds without a byte that end one attempt.

        Raises:
            ApiRefusal: The server refused the request.
            ApiUnreachable: No usable response within ``patience`` seconds (default: the client's).
        """
        data: bytes = self._send(
            call, _Request("GET", path, query, silence), patience, take=partial(_read_body, call)
        )
        return data

    def stream(
        self,
        path: str,
        call: ApiCall,
        *,
        query: Mapping[str, object],
        silence: float,
        patience: float | None = None,
        accept: str = "*/*",
    ) -> Any:
        """Return a response that the caller reads as it arrives (a watch, a log) and closes.

        Args:
            silence: Seconds without a byte after which reading fails.

        Raises:
            ApiRefusal: The server refused the request.
            ApiUnreachable: No usable response within ``patience`` seconds (default: the client's).
        """
        return self._send(call, _Request("GET", path, query, silence, accept), patience, take=None)

    def _send(
        self, call: ApiCall, request: _Request, patience: float | None, *, take: Callable[[Any], Any] | None
    ) -> Any:
        """Send with retries; ``take`` reads the response, and None returns it unread."""
        patience = self._patience if patience is None else patience
        credentials = self.access.credentials
        client = credentials.client
        try:
            return self._send_as(client, call, request, patience, take)
        except ApiRefusal as error:
            if error.status != 401 or self.stop.is_set() or not credentials.renew(client):
                raise
        return self._send_as(credentials.client, call, request, patience, take)

    def _send_as(
        self,
        client: Any,
        call: ApiCall,
        request: _Request,
        patience: float,
        take: Callable[[Any], Any] | None,
    ) -> Any:
        """Send with the credentials of ``client``, the official one."""
        silence, place = self.access.silence, self.access.place
        with silence.track(place, patience=patience, read=request.read, stream=take is None) as pending:
            return self._send_until(client, call, request, patience, take, pending)

    def _send_until(
        self,
        client: Any,
        call: ApiCall,
        request: _Request,
        patience: float,
        take: Callable[[Any], Any] | None,
        pending: PendingRequest,
    ) -> Any:
        until = time.monotonic() + patience
        pause, sent = _FIRST_PAUSE, False
        while True:
            try:
                response = self._send_once(client, request)
                self._record_clock(response.headers.get("Date"))
                if 200 <= response.status < 300:
                    pending.answered()
                    self.access.credentials.accept(client)
                    return take(response) if take else response
            except _network_errors() as error:
                # The request may have succeeded and only its response been lost: see `after_lost_answer`.
                problem: ClusterError = self.unreachable_error(call, error)
                after, sent = 0.0, True
                pending.failed(printable(failure_reason(error), 300))
            else:
                answer = _read_error_body(response)
                problem = parse_refusal(call, response.status, answer)
                is_conflict = (
                    request.method == "POST" and response.status == 409 and problem.reason == "Conflict"
                )
                is_retried = response.status == 429 or response.status >= 500 or is_conflict
                if not is_retried or problem.webhook:
                    pending.answered()
                    if sent and request.method == "POST" and response.status == 409:
                        problem.args = (*problem.args, _LOST)
                    raise problem
                # A gateway time-out does not mean that the server did nothing, either.
                sent = sent or response.status >= 500
                after = _retry_after(response.headers.get("Retry-After"))
                pending.failed(f"HTTP {response.status}")
                if not is_conflict:
                    problem = ApiUnreachable(
                        f"{self.access.place} is too busy to {call} (HTTP {response.status}): {problem.message}",
                        fix="try again later; kubectl get --raw /readyz?verbose",
                    )
            wait = max(after, pause * random.uniform(0.5, 1.5))
            pause = min(_LONGEST_PAUSE, pause * 2)
            if time.monotonic() + wait > until:
                raise problem
            if self.stop.wait(wait):
                raise problem

    def _send_once(self, client: Any, request: _Request) -> Any:
        import urllib3

        headers = {"Accept": request.accept, "User-Agent": "torchnet"}
        client.update_params_for_auth(headers, [], ["BearerToken"], request.path, request.method, None)
        if request.body is not None:
            headers["Content-Type"] = request.content
        query = f"?{urlencode(request.query)}" if request.query else ""
        return client.rest_client.pool_manager.request(
            request.method,
            f"{self.access.server}{request.path}{query}",
            headers=headers,
            body=None if request.body is None else json.dumps(request.body),
            timeout=urllib3.Timeout(connect=min(_CONNECT, request.read), read=request.read),
            preload_content=False,
            retries=False,
        )

    def _record_clock(self, date: str | None) -> None:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            self.clock_offset = parsedate_to_datetime(date or "").timestamp() - time.monotonic()

    def unreachable_error(self, call: ApiCall, error: Exception) -> ApiUnreachable:
        """Return the error for a call that got no response."""
        return ApiUnreachable(
            f"no response from {self.access.place} ({call}): {printable(failure_reason(error), 300)}",
            fix="kubectl cluster-info" + (f" --context {self.access.context}" if self.access.context else ""),
        )


def connect(kubeconfig: str | None = None, context: str | None = None) -> ApiClient:
    """Return a client for the cluster that the options and the environment name; sends no request.

    Raises:
        ClusterError: The kubeconfig or its credentials cannot be used (see `torchnet.k8s.client.access.load`).
    """
    return ApiClient(load(kubeconfig, context))


def after_lost_answer(error: ApiRefusal) -> bool:
    """Whether an AlreadyExists may come from an earlier attempt of the same call.

    That attempt's response was lost or was a 5xx, so it may have created the object.
    """
    return error.status == 409 and error.args[-1:] == (_LOST,)


def _network_errors() -> tuple[type[Exception], ...]:
    from urllib3.exceptions import HTTPError

    return HTTPError, OSError


def _read_body(call: ApiCall, response: Any) -> bytes:
    try:
        body = bytes(response.read(_LONGEST_BODY + 1))
    finally:
        response.release_conn()
    if len(body) > _LONGEST_BODY:
        raise ClusterError(f"{call}: the response is larger than {_LONGEST_BODY >> 20} MiB")
    return body


def _read_error_body(response: Any) -> bytes:
    try:
        return bytes(response.read(1 << 20))
    except _network_errors():
        return b""
    finally:
        response.release_conn()


def _retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header; 0.0 for a date, which HTTP allows but API servers do not send."""
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        return 0.0
