"""A real HTTP server that keeps objects as an API server does, by their paths, and fails where it is told to."""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.api_answers import Answer, Server
from torchnet.k8s.client.kinds import kind_of
from torchnet.k8s.run.worker_set import seconds as unix

Object = dict[str, Any]
_PATH = re.compile(r"(/.*/namespaces/[^/]+/[^/]+|/api/v1/nodes)(?:/([^/]+))?(?:/(log))?")


def refusal(status: int, reason: str, said: str) -> Answer:
    return status, {}, {"kind": "Status", "code": status, "reason": reason, "message": said}


def forbidden(what: str) -> Answer:
    return refusal(403, "Forbidden", f'{what} is forbidden: User "u" cannot do that')


class Store(Server):
    """``logs``: the worker containers', by the pods' names.

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
        self.patches: list[tuple[str, Object]] = []  # paths and bodies; nothing is changed by them
        self._lock = threading.Lock()
        self._count = 0

    def answer(self, method: str, path: str, said: bytes) -> Answer:
        for verb, pattern, fault in list(self.faults):
            if verb == method and re.search(pattern, path):
                if not isinstance(fault, threading.Event):
                    return fault
                fault.wait(30)
        with self._lock:
            return self._stored(method, path, json.loads(said) if said else {})

    def put(self, body: Object) -> Object:
        """Keep it as it is, with a UID."""
        made = copy.deepcopy(body)
        meta = made["metadata"]
        self._count += 1
        meta.setdefault("uid", f"uid-{self._count}")
        meta.setdefault("resourceVersion", str(self._count))
        self.objects[f"{kind_of(made).path(meta['namespace'], meta['name'])}"] = made
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
            return 200, {}, (self.logs.get(name, "") if query.get("container") == "worker" else "").encode()
        if method == "POST":
            path = f"{place}/{said['metadata']['name']}"
            if path in self.objects:
                return refusal(409, "AlreadyExists", f"{path} already exists")
            return 201, {}, said if "dryRun" in query else self.put(said)
        if name is None:
            chosen = [path for path in self.objects if path.rpartition("/")[0] == place]
            label, _, value = query.get("labelSelector", "").partition("=")
            if value:
                chosen = [
                    path
                    for path in chosen
                    if (self.objects[path]["metadata"].get("labels") or {}).get(label) == value
                ]
            if method == "DELETE":
                for path in chosen:
                    self._delete(path, grace)
                return 200, {}, {}
            if "watch" in query:
                return 200, {}, b""
            return 200, {}, {"metadata": {}, "items": [self.objects[path] for path in chosen]}
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
            self._patch(self.objects[path], said)
        return 200, {}, self.objects.get(path, {})

    def _patch(self, there: Object, said: Object) -> None:
        """What is there changed by a merge patch (RFC 7396); a pod whose time is over has failed, and stays."""
        for key, value in said.items():
            if isinstance(value, dict):
                self._patch(there.setdefault(key, {}), value)
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
        self._count += 1
        there["metadata"]["resourceVersion"] = str(self._count)

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
