"""A real HTTP server that keeps objects by their paths, as an API server does, and fails where a test asks for it.

tests/unit/store_contract.py says what it has in common with a real one.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.api_answers import Answer, Server
from torchnet.k8s.client.kinds import JOBSET, kind_of
from torchnet.k8s.run.worker_set import seconds as unix

Object = dict[str, Any]
_PATH = re.compile(
    r"(/.*/namespaces/[^/]+/[^/]+|/api/v1/nodes|/(?:api|apis/[^/]+)/v[^/]+/[^/]+)(?:/([^/]+))?(?:/(log))?"
)


def refusal(status: int, reason: str, said: str) -> Answer:
    return status, {}, {"kind": "Status", "code": status, "reason": reason, "message": said}


def forbidden(what: str) -> Answer:
    return refusal(403, "Forbidden", f'{what} is forbidden: User "u" cannot do that')


_FIRST_VERSION = 1000  # a watch from an earlier resourceVersion is too old
_WATCH_SECONDS = 0.2  # a stream may end at any time; a short one lets the launcher list again soon


@dataclass(frozen=True)
class Event:
    """A change of one object: from ``before`` (None: it did not exist) to ``after`` (None: it is gone)."""

    version: int
    path: str
    before: Object | None
    after: Object | None

    def line(self, chosen: Callable[[Object], bool]) -> bytes:
        """Its line in a watch on the ``chosen`` objects; empty if it does not concern them."""
        before = self.before is not None and chosen(self.before)
        after = self.after is not None and chosen(self.after)
        if not before and not after:
            return b""
        body = copy.deepcopy(self.after or self.before or {})
        body["metadata"]["resourceVersion"] = str(self.version)
        return _line("DELETED" if not after else "MODIFIED" if before else "ADDED", body)


def _line(kind: str, body: Object) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def _selector(text: str) -> Callable[[Object], bool]:
    """Whether an object has the labels of a selector such as ``a=b,c!=d,e,!f``."""
    wanted = [re.fullmatch(r"(!?)([^!=]+)(?:(!?=)(.*))?", part) for part in text.split(",") if part]

    def matches(found: re.Match[str] | None, labels: dict[str, str]) -> bool:
        assert found is not None, text
        absent, key, operator, value = found.groups()
        has = labels.get(key) == value if operator else key in labels
        return has != (bool(absent) or operator == "!=")

    return lambda body: all(matches(one, body["metadata"].get("labels") or {}) for one in wanted)


def _fields(text: str) -> Callable[[Object], bool]:
    """Whether an object has the values of a field selector such as ``metadata.name=a,type!=b``."""
    wanted = [re.split("(!?=)", part, maxsplit=1) for part in text.split(",") if part]

    def value(body: Any, path: str) -> str:
        for key in path.split("."):
            body = body.get(key) or {}
        return str(body or "")

    return lambda body: all((value(body, path) == text) == (sign == "=") for path, sign, text in wanted)


def _is_in(path: str, place: str) -> bool:
    """Whether an object's path is in a collection, of its namespace or of all."""
    folder = path.rpartition("/")[0]
    return place in (folder, re.sub("/namespaces/[^/]+", "", folder))


class Store(Server):
    """``logs``: the worker containers', by the pods' names; the preparations', by NAME/prepare.

    ``faults``: (method, pattern of the path, answer), the first that matches goes before the store; an event holds the
    answer back until it is set. ``lingers``: seconds that pods get for their end by their own spec: deleted ones stay
    until they are taken out by force, or a :meth:`kubelet` says that they have ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Object] = {}
        self.logs: dict[str, str] = {}
        self.faults: list[tuple[str, str, Answer | threading.Event]] = []
        self.lingers = 0
        self.deleted: list[str] = []
        self.patches: list[tuple[str, Object]] = []  # paths and bodies
        self._lock = threading.RLock()
        self._count = _FIRST_VERSION
        self._uids = 0
        self._last: dict[str, Object] = {}  # the objects as of the newest event
        self._events: list[Event] = []
        self._pages: dict[str, list[Object]] = {}  # by their continue token: the rest of a list

    def answer(self, method: str, path: str, said: bytes) -> Answer:
        for verb, pattern, fault in list(self.faults):
            if verb == method and re.search(pattern, path):
                if not isinstance(fault, threading.Event):
                    return fault
                fault.wait(30)
        with self._lock:
            self._record()
            answer = self._stored(method, path, json.loads(said) if said else {})
            self._record()
            status, headers, body = answer
            # What a write returns has the resourceVersion of the change.
            return status, headers, copy.deepcopy(body) if isinstance(body, dict) else body

    def _record(self) -> None:
        """Give each object that has changed since the last call a new resourceVersion, and keep the event.

        Tests change :attr:`objects` themselves, as controllers and other clients would.
        """
        for path in [*self._last, *(self.objects.keys() - self._last.keys())]:
            before, now = self._last.get(path), self.objects.get(path)
            if before == now:
                continue
            if before is not None and (now is None or now["metadata"]["uid"] != before["metadata"]["uid"]):
                self._count += 1
                del self._last[path]
                self._events.append(Event(self._count, path, before, None))
                before = None
            if now is not None:
                self._count += 1
                now["metadata"]["resourceVersion"] = str(self._count)
                self._last[path] = copy.deepcopy(now)
                self._events.append(Event(self._count, path, before, self._last[path]))

    def _watch(self, place: str, query: dict[str, str]) -> Iterator[bytes]:
        version = int(query["resourceVersion"])
        if version < _FIRST_VERSION:
            status = refusal(410, "Expired", f"too old resource version: {version}")[2]
            yield _line("ERROR", status)
            return
        labels, fields = _selector(query.get("labelSelector", "")), _fields(query.get("fieldSelector", ""))
        chosen = lambda body: labels(body) and fields(body)  # noqa: E731
        until = time.monotonic() + min(float(query.get("timeoutSeconds", 60)), _WATCH_SECONDS)
        while time.monotonic() < until:
            with self._lock:
                self._record()
                fresh = [one for one in self._events if one.version > version]
                version = self._count
            for event in fresh:
                if _is_in(event.path, place) and (line := event.line(chosen)):
                    yield line
            time.sleep(0.01)
        yield _line("BOOKMARK", {"kind": "Bookmark", "metadata": {"resourceVersion": str(version)}})

    def put(self, body: Object) -> Object:
        """Keep it as it is, with a UID."""
        made = copy.deepcopy(body)
        meta = made["metadata"]
        self._uids += 1
        meta.setdefault("uid", f"uid-{self._uids}")
        with self._lock:
            self.objects[f"{kind_of(made).path(meta['namespace'], meta['name'])}"] = made
            self._record()
        return made

    def names(self) -> list[str]:
        """KIND/NAME of all that is there."""
        return sorted(f"{one['kind']}/{one['metadata']['name']}" for one in self.objects.values())

    def wanted(self, method: str, pattern: str) -> int:
        """How often this was asked for."""
        return sum(verb == method and bool(re.search(pattern, path)) for _, verb, path, _ in self.asked)

    def _stored(self, method: str, asked: str, said: Object) -> Answer:
        url = urlsplit(asked)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        found = _PATH.fullmatch(url.path)
        assert found is not None, asked
        place, name, log = found.groups()
        grace = query.get("gracePeriodSeconds", said.get("gracePeriodSeconds"))
        if log:
            container = query.get("container")
            lines = self.logs.get(name if container == "worker" else f"{name}/{container}", "").splitlines(
                True
            )
            tail = int(query.get("tailLines", len(lines)))
            return 200, {}, "".join(lines[len(lines) - tail :]).encode()
        if method == "POST":
            path = f"{place}/{said['metadata']['name']}"
            if path in self.objects:
                return refusal(409, "AlreadyExists", f"{path} already exists")
            said["metadata"].setdefault("creationTimestamp", stamp(time.time()))
            return 201, {}, said if "dryRun" in query else self.put(said)
        if name is None:
            matches = _selector(query.get("labelSelector", ""))
            chosen = [path for path, body in self.objects.items() if _is_in(path, place) and matches(body)]
            if method == "DELETE":
                for path in chosen:
                    self._delete(path, grace)
                return 200, {}, {}
            if "watch" in query:
                return 200, {}, self._watch(place, query)
            chosen.sort()
            by_fields = _fields(query.get("fieldSelector", ""))
            items = [self.objects[path] for path in chosen if by_fields(self.objects[path])]
            if not any(kind_of(item).api == JOBSET.api for item in items):
                items = [
                    {key: item[key] for key in item if key not in ("apiVersion", "kind")} for item in items
                ]
            return self._page(items, query)
        path = f"{place}/{name}"
        if path not in self.objects:
            return refusal(404, "NotFound", f"{path} not found")
        if method == "PATCH":
            self.patches.append((path, said))
        if method == "DELETE":
            if (
                said.get("preconditions", {}).get("uid", self.objects[path]["metadata"]["uid"])
                != (self.objects[path]["metadata"]["uid"])
            ):
                return refusal(409, "Conflict", "the UID in the precondition is another one")
            self._delete(path, grace)
        if method == "PATCH":
            version = said.get("metadata", {}).get("resourceVersion")
            if version not in (None, self.objects[path]["metadata"]["resourceVersion"]):
                return refusal(409, "Conflict", "the object has been modified")
            self._patch(self.objects[path], said)
        return 200, {}, self.objects.get(path, {})

    def _page(self, items: list[Object], query: dict[str, str]) -> Answer:
        """The first of these, or the next of an earlier list, which stays as it was."""
        version, token = str(self._count), query.get("continue", "")
        if token:
            version = token.partition("-")[0]
            items = self._pages.pop(token)
        meta = {"resourceVersion": version}
        limit = int(query.get("limit", 0))
        # The watch cache, from which resourceVersion=0 is answered, has no pages.
        if limit and len(items) > limit and query.get("resourceVersion") != "0":
            meta["continue"] = f"{version}-{len(self._pages)}-{len(items)}"
            self._pages[meta["continue"]] = copy.deepcopy(items[limit:])
            items = items[:limit]
        return 200, {}, {"metadata": meta, "items": items}

    def _patch(self, there: Object, said: Object) -> None:
        """What is there changed by a merge patch (RFC 7396); a pod whose time is over has failed, and stays."""
        for key, value in said.items():
            if isinstance(value, dict):
                self._patch(there.setdefault(key, {}), value)
            elif value is None:
                there.pop(key, None)
            else:
                there[key] = value
        if (
            there.get("kind") == "Pod"
            and said.get("spec", {}).get("activeDeadlineSeconds")
            and not self.lingers
        ):
            self._over(there)

    def deadlines(self) -> None:
        """All pods whose time is over have ended, also where they linger."""
        with self._lock:
            for one in self.objects.values():
                if one["kind"] == "Pod" and one["spec"].get("activeDeadlineSeconds"):
                    self._over(one)

    def _over(self, there: Object) -> None:
        there["status"] = there["status"] | {"phase": "Failed", "reason": "DeadlineExceeded"}
        for one in there["status"].get("containerStatuses") or ():
            one["state"] = {"terminated": {"exitCode": 143, "reason": "Error"}}

    def kubelet(self, *pods: str) -> None:
        """All that is being deleted has ended, or these pods."""
        with self._lock:
            for path, one in list(self.objects.items()):
                meta = one["metadata"]
                if "deletionTimestamp" in meta and (not pods or meta["name"] in pods):
                    del self.objects[path]

    def delete(self, path: str) -> None:
        """As if somebody else had asked for it."""
        with self._lock:
            self._delete(path, None)

    def _delete(self, path: str, asked: object) -> None:
        """As rest.BeforeDelete has it: a later deletion can only shorten what the API tells of the time."""
        self.deleted.append(path)
        meta = self.objects[path]["metadata"]
        seconds = self.lingers if asked is None else int(str(asked))
        if self.objects[path]["kind"] != "Pod" or not self.lingers or not seconds:
            del self.objects[path]
            return
        before = meta.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in meta and (asked is None or before is None or seconds >= before):
            return
        over = time.time() + seconds
        if "deletionTimestamp" in meta:
            over = unix(meta["deletionTimestamp"]) - before + seconds
        meta["deletionTimestamp"] = stamp(over)
        meta["deletionGracePeriodSeconds"] = seconds


def stamp(at: float) -> str:
    """Unix time, as the API gives it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def storing() -> Iterator[Store]:
    """For a fixture."""
    made = Store()
    yield made
    made.close()
