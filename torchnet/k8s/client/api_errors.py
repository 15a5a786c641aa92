"""Errors of the API server as errors for users: verb, resource, namespace, reason, and the next command."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torchnet.errors import ClusterError
from torchnet.text import printable

_DEEPEST = 8


def why(error: BaseException) -> str:
    """The end of a sentence that has named the server. ``error``: the client's, urllib3's or the system's own."""
    from urllib3.exceptions import HTTPError, ProxyError

    chain = list(_chain(error))
    # The first that is not the client's wrapping; what that one came from is no longer about the connection.
    found = next((one for one in chain if isinstance(one, (OSError, http.client.HTTPException))), error)
    wrapped = any(isinstance(one, HTTPError) for one in chain)
    said = _said(found, wrapped=wrapped, all_of_it=" ".join(map(str, chain)))
    return f"the proxy: {said}" if any(isinstance(one, ProxyError) for one in chain) else said


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised for, the outermost first."""
    one: BaseException | None = error
    for _ in range(_DEEPEST):
        if one is None:
            return
        yield one
        inner = [
            value for value in (*one.args, one.__cause__, one.__context__) if isinstance(value, BaseException)
        ]
        one = inner[0] if inner else None


def _said(error: BaseException, *, wrapped: bool, all_of_it: str) -> str:
    if isinstance(error, socket.gaierror):
        # The system's error knows no name; urllib3's text has it.
        name = re.search(r"resolve '([^']+)'", all_of_it)
        return f"the name {name[1]} cannot be resolved" if name else "its name cannot be resolved"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_bare(str(error))}"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer broke off"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.BadStatusLine):
        return "what it answers is no HTTP"
    if isinstance(error, TimeoutError) and (wrapped or error.errno is not None):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}"
    return _bare(str(getattr(error, "reason", "") or error)) or type(error).__name__


def _bare(text: str) -> str:
    """Without numbers and places in the source, on one line."""
    return re.sub(r"^\[[^\]]*\] |^TLS/SSL |\(?_ssl\.c:\d+\)?:? ?", "", " ".join(text.split())).strip()


_LONGEST = 2000  # characters of the server's own words
# The API server's own form (k8s.io/apiserver). Admission's words may begin as it does and say "cannot", too, but speak
# of no User.
_RIGHTS = re.compile(r'(?:\S+(?: "[^"]*")? is )?forbidden: User ".*" cannot ')


@dataclass(frozen=True)
class ApiCall:
    """What was asked: ``verb`` and ``resource`` as RBAC calls them (``create``, ``jobs.batch``)."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        name = f"/{self.name}" if self.name else ""
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{name}{where}"

    @property
    def question(self) -> str:
        """The command that asks the API server whether this is allowed."""
        where = f" -n {self.namespace}" if self.namespace else ""
        return f"kubectl auth can-i {self.verb} {self.resource}{where}"


class ApiRefusal(ClusterError):
    """The server answered, with ``status`` (HTTP), ``reason`` (Kubernetes' word) and ``said`` (its own words)."""

    def __init__(self, call: ApiCall, status: int, reason: str, said: str) -> None:
        self.call, self.status, self.reason, self.said = call, status, reason, said
        super().__init__(*_words(call, status, said), fix=_fix(call, status, said))


class ApiUnreachable(ClusterError):
    """No answer, or none that the server stands by: connection refused, time-out, 429 or 5xx until the end."""


def refused(call: ApiCall, status: int, body: bytes) -> ApiRefusal:
    """The error that an answer with ``status`` and ``body`` (a Status object, most times) is."""
    parsed: Any
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        parsed = {"message": body[:_LONGEST].decode("utf-8", "backslashreplace")}
    said = " ".join(str(parsed.get("message") or f"HTTP {status}").split())
    return ApiRefusal(call, status, str(parsed.get("reason") or ""), printable(said, _LONGEST))


def _words(call: ApiCall, status: int, said: str) -> tuple[str]:
    if status == 401:
        return (f"the API server does not know who asks ({call}): {said}",)
    if is_rights(status, said):
        return (f"not allowed to {call}: {said}",)
    return (f"the cluster refuses to {call}: {said}",)


def is_rights(status: int, said: str) -> bool:
    """Whether a 403 is of missing rights; admission (Pod Security, quotas, policies) answers with 403, too."""
    return status == 403 and _RIGHTS.match(said) is not None


def _fix(call: ApiCall, status: int, said: str) -> str:
    if status == 401:
        return "log in again; kubectl auth whoami"
    if is_rights(status, said):
        return call.question
    if "exceeded quota" in said:
        return f"kubectl describe quota -n {call.namespace}"
    if "violates PodSecurity" in said:
        return f"kubectl get namespace {call.namespace} --show-labels; --security restricted is torchnet's default"
    if status == 404 and call.verb == "create" and "namespaces" in said:
        return f"kubectl create namespace {call.namespace}, or -n ANOTHER"
    return ""
