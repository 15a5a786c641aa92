"""What Kueue reports of a queued run: the conditions of its Workload, in Kueue's own words, and its evictions.

A thread of its own reads the Workload at intervals, which grow while nothing changes, and only while somebody asks for
it. Users who may not read Workloads see the suspension of the Job or JobSet alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from torchnet.errors import ClusterError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.client.kueue_api import GROUP, get_workload, list_workloads, served_version
from torchnet.k8s.run.run_info import RunInfo
from torchnet.text import printable

Object = Mapping[str, Any]
READ_SECONDS, _LONGEST_SECONDS = 2.0, 10.0  # between two reads, doubled while they bring nothing new
QUIET_SECONDS = (
    30.0  # between two messages of one condition: with each job of the queue, the missing quota changes
)
_PREVIOUSLY = "Previously: "  # in the message of a condition that Kueue has set to False
_LONGEST = 400  # characters of a condition
# Conditions that are shown, in the order in which Kueue sets them during a preemption, with the status in question.
# Preempted repeats Evicted; PodsReady and Finished say what the pods say.
_SHOWN = (
    ("Evicted", "True"),
    ("Requeued", "False"),
    ("DeactivationTarget", "True"),
    ("QuotaReserved", "False"),
    ("Admitted", "True"),
)


def condition_texts(workload: Object) -> dict[str, str]:
    """Return the conditions of a Workload that users should know, and its admission checks, as text by their names."""
    status = workload.get("status") or {}
    conditions = {str(one.get("type")): one for one in status.get("conditions") or ()}
    found = {}
    for kind, wanted in _SHOWN:
        one = conditions.get(kind)
        if one is not None and one.get("status") == wanted:
            found[kind] = _text(kind if wanted == "True" else f"not {kind}", one.get("reason"), one)
    if found.get("Admitted") is None:
        for check in status.get("admissionChecks") or ():
            name = f"admission check {check.get('name')}"
            found[name] = _text(name, check.get("state"), check)
    return found


def queue_state(workload: Object) -> tuple[str, str]:
    """Return the state of a Workload that has not been admitted, and why; ("", "") once it is admitted."""
    texts = condition_texts(workload)
    if "Admitted" in texts:
        return "", ""
    why = texts.get("QuotaReserved") or next(iter(texts.values()), "")
    return ("preempted" if evictions(workload) or "Evicted" in texts else "queued"), why


def evictions(workload: Object) -> int:
    """Return how often Kueue has evicted the Workload, as far as its status says."""
    stats = (workload.get("status") or {}).get("schedulingStats") or {}
    counts = [one.get("count") for one in stats.get("evictions") or ()]
    return sum(count for count in counts if isinstance(count, int))


def eviction_text(workload: Object) -> str:
    """Return why Kueue has evicted the Workload last, also if it has admitted it again; "" if it has not."""
    for one in (workload.get("status") or {}).get("conditions") or ():
        message = str(one.get("message") or "")
        if one.get("type") == "Evicted" and one.get("status") == "True":
            return _text("Evicted", one.get("reason"), one)
        if one.get("type") == "Evicted" and message.startswith(_PREVIOUSLY):
            return _text("Evicted", "", {"message": message.removeprefix(_PREVIOUSLY)})
    return ""


def _text(name: str, reason: object, one: Object) -> str:
    why = f" ({reason})" if reason and reason != name else ""
    message = " ".join(str(one.get("message") or "").split())
    return printable(f"Kueue: {name}{why}" + (f": {message}" if message else ""), _LONGEST)


class QueueStatus:
    """Reads the Workload of one run. For one thread, which never waits: answers come from the last read."""

    def __init__(self, client: ApiClient, info: RunInfo) -> None:
        self._client, self._info = client, info
        self._lock = threading.Lock()
        self._workload: dict[str, Any] | None = None
        self._version, self._name = "", info.run if info.kind is POD else ""
        self._busy = False
        self._asked_at = float("-inf")
        self._unchanged = 0  # reads that have brought nothing new
        self._shown: dict[str, tuple[str, float]] = {}
        self._problem = ""
        self._off = not info.queue

    @property
    def evictions(self) -> int | None:
        """How often Kueue had evicted the run at the last read; None if that is not known."""
        with self._lock:
            return None if self._workload is None else evictions(self._workload)

    @property
    def is_evicted(self) -> bool:
        """Whether Kueue had evicted the run at the last read, and not admitted it again."""
        with self._lock:
            return "Evicted" in condition_texts(self._workload or {})

    @property
    def deactivation(self) -> str:
        """The message with which a launcher leaves a run that Kueue does not admit again by itself; "" if it does."""
        with self._lock:
            workload = self._workload or {}
        if (workload.get("spec") or {}).get("active", True) is not False:
            return ""
        name, namespace = workload["metadata"]["name"], self._info.namespace
        return (
            "its Kueue Workload is deactivated, so that its queue does not admit it again by itself; its objects stay "
            f"on the cluster. To queue it again: kubectl patch workloads.{GROUP} {name} -n {namespace} --type merge "
            """-p '{"spec":{"active":true}}'"""
        )

    @property
    def eviction(self) -> str:
        """Why Kueue has evicted the run, which it may have admitted again; "" if that is not known."""
        with self._lock:
            return eviction_text(self._workload or {})

    @property
    def is_read(self) -> bool:
        """Whether the Workload was read, or cannot be."""
        with self._lock:
            return self._off or self._workload is not None

    def changes(self, now: float) -> list[str]:
        """Return what is new since the last call, and have the Workload read again.

        Args:
            now: monotonic time.
        """
        self._refresh(now)
        with self._lock:
            texts = condition_texts(self._workload or {})
            problem, self._problem = self._problem, ""
        lines = [problem] if problem else []
        for name in [name for name in self._shown if name not in texts]:
            del self._shown[name]
        for name, text in texts.items():
            before, at = self._shown.get(name, ("", float("-inf")))
            if text != before and (name != "QuotaReserved" or now - at >= QUIET_SECONDS):
                self._shown[name] = text, now
                lines.append(text)
        return lines

    def next_attempt(self) -> None:
        """Forget what was read and shown: the next attempt meets the same conditions again."""
        with self._lock:
            self._workload, self._unchanged = None, 0
        self._shown.clear()
        self._asked_at = float("-inf")

    def _refresh(self, now: float) -> None:
        every = min(READ_SECONDS * 2.0**self._unchanged, max(READ_SECONDS, _LONGEST_SECONDS))
        if self._off or self._busy or now - self._asked_at < every:
            return
        self._asked_at, self._busy = now, True
        try:
            threading.Thread(target=self._work, name="read the queue", daemon=True).start()
        except RuntimeError:  # the machine allows no more threads: the next call tries again
            self._busy = False

    def _work(self) -> None:
        try:
            found = self._read()
        except ApiUnreachable:
            pass  # the watch reports an API server that does not respond
        except ClusterError as error:
            if isinstance(error, ApiRefusal) and error.status in (401, 403):
                self._end(f"cannot read what Kueue reports of the run: {error.text}")
        else:
            with self._lock:
                self._unchanged = min(10, self._unchanged + 1) if found in (None, self._workload) else 0
                self._workload = self._workload if found is None else found
        finally:
            self._busy = False

    def _end(self, problem: str) -> None:
        with self._lock:
            self._off, self._problem = True, problem

    def _read(self) -> dict[str, Any] | None:
        self._version = self._version or served_version(self._client)
        if not self._version:
            self._end(
                f"the cluster does not have Kueue: nothing admits the run to its queue {self._info.queue}"
            )
            return None
        if not self._name:
            found = list_workloads(self._client, self._version, self._info.namespace, self._info.uid)
            self._name = str(found[0]["metadata"]["name"]) if found else ""
            return found[0] if found else None
        found_one = get_workload(self._client, self._version, self._info.namespace, self._name)
        if found_one is None and self._info.kind is not POD:
            self._name = ""  # Kueue creates another one when the job's pods change
        return found_one
