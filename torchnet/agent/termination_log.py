"""The container's termination message: how this worker ended, in up to 4,096 bytes of JSON.

Kubernetes keeps it in the pod's status, where the launcher can read it long after the log is gone. It is written after
a failure and at the end, and is valid at any moment in between.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import fields
from typing import Any

from torchnet.agent.events import Event, Failure, Reporter
from torchnet.agent.spec import AgentSpec

PATH = "/dev/termination-log"
LIMIT = 4096  # bytes; Kubernetes truncates longer messages
_FORMAT = 1
_TEXTS = (1500, 600, 200)  # length limits of texts, tried until the message fits
_FAILURE = tuple(f.name for f in fields(Failure) if f.name != "tail")
_RECEIPT_LEFT_OUT = ("peers", "unattributed", "payload", "node", "node_rank", "series")
_JOB = (
    "exit_code",
    "reason",
    "backend_share",
    "backend_share_high",
    "proof",
    "min_share",
)


class TerminationLog:
    """A reporter that keeps the message up to date.

    Args:
        path: the file; None selects Kubernetes' own if it exists, "" writes none.
    """

    pending = 0

    def __init__(self, spec: AgentSpec, path: str | None = None) -> None:
        self._spec = spec
        self._path = path if path is not None else PATH if os.path.exists(PATH) else ""
        self._started = False
        self._code: int | None = None
        self._failure: dict[str, Any] | None = None
        self._receipt: dict[str, Any] | None = None
        self._job: dict[str, Any] | None = None
        self._length = 0

    def send(self, event: Event) -> None:
        kind = event["event"]
        self._started = self._started or kind == "started"
        if kind in ("failure", "stopping", "replaced") and not event.get("restart"):
            self._failure = {name: event.get(name) for name in _FAILURE}
        elif kind == "worker_receipt":
            self._receipt = event["receipt"]
        elif kind == "receipt":
            self._job = {n: event["receipt"][n] for n in _JOB}
        elif kind == "end":
            self._code = event["code"]
        else:
            return
        self._put()

    def flush(self) -> None:
        pass

    def text(self) -> str:
        """Return the message, shortened to fit."""
        for limit in _TEXTS:
            for rich in (True, False):
                made = json.dumps(_cut(self._value(rich), limit), separators=(",", ":"))
                if len(made) <= LIMIT:
                    return made
        return json.dumps(
            _cut({**self._value(False), "receipt": None, "job": None}, 200), separators=(",", ":")
        )

    def _value(self, rich: bool) -> dict[str, Any]:
        code = self._code if self._code is not None else (self._failure or {}).get("code", 70)
        return {
            "torchnet": _FORMAT,
            "node": self._spec.name,
            "node_rank": self._spec.node_rank,
            "phase": self._spec.phase,
            "started": self._started,
            "code": code,
            "failure": self._failure,
            "receipt": _short(self._receipt, rich) if self._receipt else None,
            "job": self._job,
        }

    def _put(self) -> None:
        if not self._path:
            return
        data = self.text().encode()
        with contextlib.suppress(OSError):  # a missing message must not fail the job
            # Write in place: the file is a mount. Spaces cover a longer previous message until it is truncated.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(descriptor, data.ljust(self._length), 0)
                os.ftruncate(descriptor, len(data))
            finally:
                os.close(descriptor)
            self._length = len(data)


class TeeReporter:
    """Forwards events to several reporters."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    @property
    def pending(self) -> int:
        return max(reporter.pending for reporter in self._reporters)

    def send(self, event: Event) -> None:
        for reporter in self._reporters:
            reporter.send(event)

    def flush(self) -> None:
        for reporter in self._reporters:
            reporter.flush()


def _short(receipt: dict[str, Any], rich: bool) -> dict[str, Any]:
    kept = {name: value for name, value in receipt.items() if name not in _RECEIPT_LEFT_OUT}
    kept["findings"] = kept.get("findings", [])[: 3 if rich else 1]
    kept["flaps"] = kept.get("flaps", [])[: 5 if rich else 0]
    if not rich:
        used = kept.get("interfaces", {}).items()
        kept["interfaces"] = {n: v for n, v in used if v["role"] == "backend"}
        failed = {rank: code for rank, code in kept.get("codes", {}).items() if code}
        kept["codes"] = dict(list(failed.items())[:16])
    return kept


def _cut(value: Any, limit: int) -> Any:
    """Shorten texts to ``limit`` characters of JSON, in which a non-ASCII character takes six or twelve."""
    if isinstance(value, str):
        while len(json.dumps(value)) > limit:
            value = value[: max(1, len(value) * 3 // 4) - 1].rstrip() if len(value) > 1 else ""
        return value
    if isinstance(value, dict):
        return {key: _cut(item, limit) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item, limit) for item in value]
    return value
