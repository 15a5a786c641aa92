"""Events of a run's objects: the texts that say why workers do not start."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from torchnet.errors import TorchnetError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.kinds import EVENT
from torchnet.k8s.client.watch import Watch
from torchnet.k8s.run.worker_set import seconds

PULLING = "Pulling"
# Events of the cluster autoscaler and of Karpenter: a node is added for the pod.
NEW_NODE = ("TriggeredScaleUp", "Nominated")
# Event reasons of the kubelet and the controllers during retries, which the pod's status does not show.
_TELLING = (
    "FailedCreatePodSandBox",
    "FailedCreate",
    "FailedMount",
    "FailedAttachVolume",
    "NoNetworkFound",
    PULLING,
    *NEW_NODE,
)
# ipvlan and macvlan (plugins 1.9.1): the node has no interface of this name. The kubelet quotes the text.
_NO_MASTER = re.compile(r'failed to lookup master \\*"([^"\\]{1,127})\\*": Link not found')


class EventTexts:
    """The newest text of each object, of those that say why workers do not start. Pure."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], tuple[float, str]] = {}  # by name and UID: unix time, text

    def add(self, event: Mapping[str, Any]) -> bool:
        """Take in one Event; return whether it changes anything."""
        if event.get("reason") not in _TELLING:
            return False
        about = event.get("involvedObject") or {}
        name, uid = str(about.get("name") or ""), str(about.get("uid") or "")
        meta = event.get("metadata") or {}
        stamp = event.get("lastTimestamp") or event.get("eventTime") or meta.get("creationTimestamp")
        at = seconds(stamp)
        if not name or at < self._newest.get((name, uid), (at, ""))[0]:
            return False
        message = " ".join(str(event.get("message") or "").split())
        self._newest[name, uid] = at, _stable(f"{event['reason']}: {_explanation(event, message)}{message}")
        return True

    def latest(self, uids: Mapping[str, str], *, since: float = 0.0) -> dict[str, str]:
        """By object name, the newest text.

        Args:
            uids: the objects' UIDs by name, where known. An earlier run may have used a name: Events are kept for an
                hour.
            since: unix time; for objects without a known UID, older Events are ignored.
        """
        newest: dict[str, tuple[float, str]] = {}
        for (name, uid), (at, text) in self._newest.items():
            known_uid = uids.get(name)
            if (uid != known_uid) if known_uid and uid else at < since:
                continue
            if name not in newest or at >= newest[name][0]:
                newest[name] = at, text
        return {name: text for name, (_, text) in newest.items()}


def latest_event_texts(
    events: Iterable[Mapping[str, Any]], uids: Mapping[str, str] | None = None, *, since: float = 0.0
) -> dict[str, str]:
    """By object name, the newest text that says why workers do not start, from a list of Events.

    Args:
        uids: as in `EventTexts.latest`.
        since: as there.
    """
    texts = EventTexts()
    for event in events:
        texts.add(event)
    return texts.latest(uids or {}, since=since)


def _explanation(event: Mapping[str, Any], message: str) -> str:
    """Return what a message means and what to do, for the front of it: the kubelet's are long; "" if it is plain."""
    missing = _NO_MASTER.search(message)
    if missing is None:
        return ""
    node = (event.get("source") or {}).get("host") or event.get("reportingInstance") or "its node"
    return (
        f"{node} has no interface {missing[1]}, the attachment's master; fix: --node-selector for nodes that have it, "
        "or torchnet manifests backend-network --master NAME; "
    )


def _stable(text: str) -> str:
    """Remove sandbox IDs, which change with each try, so that the same reason is reported once."""
    words = [word for word in text.split(" ") if not _is_id(word.strip('"():,'))]
    return " ".join(words)


def _is_id(word: str) -> bool:
    return len(word) == 64 and all(letter in "0123456789abcdef" for letter in word)


class RunEvents:
    """Watches the Events of a namespace that may concern a run. What this user may not read is left out.

    Field selectors have no alternatives, so that there is a watch for each. A list of Events at intervals was rejected:
    the API server finds them by reading all those of the namespace, thousands while a thousand pods start.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._watching: ApiClient | None = None
        self._fields: set[str] = set()
        self._lock = threading.Lock()
        self._texts = EventTexts()
        self._is_new = False
        self._last: tuple[Mapping[str, str], dict[str, str]] = {}, {}

    def texts(self, uids: Mapping[str, str], *, since: float, unscheduled: bool) -> dict[str, str]:
        """Return the newest texts so far, as `EventTexts.latest`; the first call starts the watches.

        Args:
            unscheduled: whether nodes may be added for some pods.
        """
        for reason in (PULLING, *(NEW_NODE if unscheduled else ())):
            self._watch(f"reason={reason}")
        self._watch("type=Warning")
        with self._lock:
            if self._is_new or uids != self._last[0]:
                self._last = dict(uids), self._texts.latest(uids, since=since)
                self._is_new = False
            return dict(self._last[1])

    def stop(self) -> None:
        """End the watches; the next call of `texts` starts them again."""
        if self._watching is not None:
            self._watching.stop.set()
        self._watching = None
        self._fields.clear()

    def _watch(self, field: str) -> None:
        if field in self._fields:
            return
        self._watching = self._watching or self._client.sibling()
        watch = Watch(
            self._watching,
            self._namespace,
            "",
            kind=EVENT,
            fields=field,
            on_list=self._add,
            on_event=lambda _, event: self._add([event]),
            on_error=_ignore,
        )
        try:
            watch.start()
        except RuntimeError:  # the machine allows no more threads: the next call tries again
            return
        self._fields.add(field)

    def _add(self, events: Iterable[Mapping[str, Any]]) -> None:
        with self._lock:
            for event in events:
                self._is_new = self._texts.add(event) or self._is_new


def _ignore(_: TorchnetError) -> None:
    """Events only explain; the watch on the pods reports an API server that does not respond."""
