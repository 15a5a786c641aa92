"""Turns errors of the API server into errors for users: verb, resource, namespace, reason and the next command."""

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


def failure_reason(error: BaseException) -> str:
    """Return why a request failed, as the end of a sentence that has named the server.

    Args:
        error: An exception of the official client, urllib3 or the operating system.
    """
    from urllib3.exceptions import HTTPError, ProxyError

    chain = list(_chain(error))
    # The first error that is not a wrapper of the client; its own causes no longer concern the connection.
    found = next((one for one in chain if isinstance(one, (OSError, http.client.HTTPException))), error)
    wrapped = any(isinstance(one, HTTPError) for one in chain)
    message = _describe(found, wrapped=wrapped, chain_text=" ".join(map(str, chain)))
    return f"the proxy: {message}" if any(isinstance(one, ProxyError) for one in chain) else message


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it, outermost first, up to 8."""
    one: BaseException | None = error
    for _ in range(_DEEPEST):
        if one is None:
            return
        yield one
        inner = [
            value for value in (*one.args, one.__cause__, one.__context__) if isinstance(value, BaseException)
        ]
        one = inner[0] if inner else None


def _describe(error: BaseException, *, wrapped: bool, chain_text: str) -> str:
    if isinstance(error, socket.gaierror):
        # The system's error does not contain the name; urllib3's message does.
        name = re.search(r"resolve '([^']+)'", chain_text)
        return f"the name {name[1]} cannot be resolved" if name else "its name cannot be resolved"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_bare(str(error))}"
    if isinstance(error, http.client.IncompleteRead):
        return "the response was truncated"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without a response"
    if isinstance(error, http.client.BadStatusLine):
        return "not an HTTP server"
    if isinstance(error, TimeoutError) and (wrapped or error.errno is not None):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}"
    return _bare(str(getattr(error, "reason", "") or error)) or type(error).__name__


def _bare(text: str) -> str:
    """Return ``text`` on one line, without error numbers and source locations."""
    return re.sub(r"^\[[^\]]*\] |^TLS/SSL |\(?_ssl\.c:\d+\)?:? ?", "", " ".join(text.split())).strip()


_LONGEST = 2000  # characters of the server's message
# The API server's message for missing permissions (k8s.io/apiserver). A message of an admission plugin may begin in the
# same way and contain "cannot", but it names no User.
_RIGHTS = re.compile(r'(?:\S+(?: "[^"]*")? is )?forbidden: User ".*" cannot ')
# Webhooks that cannot be called, that answer with an error of their own, or that cannot convert an object; and where
# the API server called them (k8s.io/apiserver: ErrCallingWebhook, ToStatusErr; k8s.io/apiextensions-apiserver:
# webhook_converter.go).
_WEBHOOK = re.compile(
    r'failed calling webhook "(?P<called>[^"]+)"|admission webhook "(?P<answered>[^"]+)" denied the request'
    r"|(?P<conversion>conversion webhook for .+?) (?:failed|returned)"
)
_SERVICE = re.compile(r"https://[a-z0-9-]+\.(?P<namespace>[a-z0-9-]+)\.svc\b")
_CONFIGURATIONS = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"

# Options without which a launch does not need a right.
_WITHOUT = {
    ("create", "networkpolicies.networking.k8s.io"): "--network-policy none",
    ("create", "services"): "--static-ips",
}
# Of an admission policy or OpenShift that restricts the users of pods.
_IDS = re.compile(r"\b(?:runAsUser|runAsGroup|runAsNonRoot|fsGroup)\b|security context constraint")


@dataclass(frozen=True)
class ApiCall:
    """A requested operation: ``verb`` and ``resource`` as RBAC names them (``create``, ``jobs.batch``).

    ``everywhere`` is set if the resource has namespaces, and the operation concerns all of them.
    """

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""
    everywhere: bool = False

    def __str__(self) -> str:
        name = f"/{self.name}" if self.name else ""
        where = f" in namespace {self.namespace}" if self.namespace else ""
        where = " in all namespaces" if self.everywhere else where
        return f"{self.verb} {self.resource}{name}{where}"

    @property
    def question(self) -> str:
        """The kubectl command that checks whether the operation is allowed."""
        where = f" -n {self.namespace}" if self.namespace else " -A" if self.everywhere else ""
        return f"kubectl auth can-i {self.verb} {self.resource}{where}"


class ApiRefusal(ClusterError):
    """The server refused a request.

    ``status`` is the HTTP status, ``reason`` Kubernetes' reason code, and ``message`` the server's message.
    ``webhook`` is the webhook whose failure is the reason, as in a sentence; "" if there is none.
    """

    def __init__(self, call: ApiCall, status: int, reason: str, message: str) -> None:
        self.call, self.status, self.reason, self.message = call, status, reason, message
        self.webhook = failing_webhook(status, message)
        super().__init__(*_error_text(call, status, message), fix=_fix(call, status, message))


class ApiUnreachable(ClusterError):
    """There was no usable response: connection refused, time-out, or 429 and 5xx until retries ended."""


def parse_refusal(call: ApiCall, status: int, body: bytes) -> ApiRefusal:
    """Return the error for a response with ``status`` and ``body``, which is usually a Status object."""
    parsed: Any
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        parsed = {"message": body[:_LONGEST].decode("utf-8", "backslashreplace")}
    message = " ".join(str(parsed.get("message") or f"HTTP {status}").split())
    return ApiRefusal(call, status, str(parsed.get("reason") or ""), printable(message, _LONGEST))


def _error_text(call: ApiCall, status: int, message: str) -> tuple[str]:
    if status == 401:
        return (f"not authenticated to the API server ({call}): {message}",)
    if is_permission_error(status, message):
        return (f"not allowed to {call}: {message}",)
    if webhook := failing_webhook(status, message):
        return (f"the {webhook} failed, so the API server cannot {call}: {message}",)
    return (f"the API server refused to {call}: {message}",)


def failing_webhook(status: int, message: str) -> str:
    """Return the webhook whose failure made the server refuse a request, as in a sentence; "" if there is none.

    A webhook that denies a request on purpose answers with a status below 500.
    """
    found = _WEBHOOK.search(message) if status >= 500 else None
    if found is None:
        return ""
    return found["conversion"] or f'admission webhook "{found["called"] or found["answered"]}"'


def is_permission_error(status: int, message: str) -> bool:
    """Whether an error is a 403 for missing permissions.

    Admission (Pod Security, quotas, policies) also responds with 403.
    """
    return status == 403 and _RIGHTS.match(message) is not None


def _fix(call: ApiCall, status: int, message: str) -> str:
    if status == 401:
        return "log in again; kubectl auth whoami"
    if is_permission_error(status, message):
        without = _WITHOUT.get((call.verb, call.resource))
        return f"{call.question}; or launch with {without}" if without else call.question
    if failing_webhook(status, message):
        service = _SERVICE.search(message)
        return f"kubectl get pods -n {service['namespace']}" if service else _CONFIGURATIONS
    if "exceeded quota" in message:
        return f"kubectl describe quota -n {call.namespace}"
    if "violates PodSecurity" in message and "hostNetwork=true" in message:
        return (
            "--network host: needs a namespace that admits privileged pods: kubectl label --overwrite namespace "
            f"{call.namespace} pod-security.kubernetes.io/enforce=privileged; or use --network NAMESPACE/NAME"
        )
    if "violates PodSecurity" in message:
        return (
            f"kubectl get namespace {call.namespace} --show-labels; --rdma, --run-as 0 and hostpath volumes need a "
            "namespace that admits privileged pods"
        )
    if call.verb == "create" and _IDS.search(message):
        return "--run-as UID[:GID], or --run-as namespace to leave all ids to the namespace"
    if status == 404 and call.verb == "create" and "namespaces" in message:
        return f"kubectl create namespace {call.namespace}, or -n NAMESPACE"
    return ""
