"""The API server's answers that are no success, as errors for people: verb, resource, namespace, the next command."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from torchnet.errors import ClusterError
from torchnet.network.text import printable

_LONGEST = 2000  # characters of the server's own words
# The API server's own form (k8s.io/apiserver). Admission's words may begin as it does and say "cannot", too, but speak
# of no User.
_RIGHTS = re.compile(r'(?:\S+(?: "[^"]*")? is )?forbidden: User ".*" cannot ')


@dataclass(frozen=True)
class Call:
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


class Refused(ClusterError):
    """The server answered, with ``status`` (HTTP), ``reason`` (Kubernetes' word) and ``said`` (its own words)."""

    def __init__(self, call: Call, status: int, reason: str, said: str) -> None:
        self.call, self.status, self.reason, self.said = call, status, reason, said
        super().__init__(*_words(call, status, said), fix=_fix(call, status, said))


class Unreachable(ClusterError):
    """No answer, or none that the server stands by: connection refused, time-out, 429 or 5xx until the end."""


def refused(call: Call, status: int, body: bytes) -> Refused:
    """The error that an answer with ``status`` and ``body`` (a Status object, most times) is."""
    parsed: Any
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        parsed = {"message": body[:_LONGEST].decode("utf-8", "backslashreplace")}
    said = " ".join(str(parsed.get("message") or f"HTTP {status}").split())
    return Refused(call, status, str(parsed.get("reason") or ""), printable(said, _LONGEST))


def _words(call: Call, status: int, said: str) -> tuple[str]:
    if status == 401:
        return (f"the API server does not know who asks ({call}): {said}",)
    if is_rights(status, said):
        return (f"not allowed to {call}: {said}",)
    return (f"the cluster refuses to {call}: {said}",)


def is_rights(status: int, said: str) -> bool:
    """Whether a 403 is of missing rights; admission (Pod Security, quotas, policies) answers with 403, too."""
    return status == 403 and _RIGHTS.match(said) is not None


def _fix(call: Call, status: int, said: str) -> str:
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
