"""The test pods of ``torchnet verify`` while they exist: waits for them, reads their results, explains failures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torchnet.constants import WORKER
from torchnet.errors import NetworkError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.backoff import Backoff
from torchnet.k8s.client.kinds import EVENT, POD
from torchnet.k8s.run.event_texts import latest_event_texts
from torchnet.k8s.run.worker_set import worker
from torchnet.k8s.verify.installation import MULTUS
from torchnet.k8s.verify.pod_report import NO_PYTHON
from torchnet.k8s.verify.pod_start import (
    find_rejected_token,
    has_clock_stopped,
    not_started_error,
    of_pod,
    rejected_token_error,
)
from torchnet.text import loads, printable

Object = dict[str, Any]
START_SECONDS, ANSWER_SECONDS = 90.0, 60.0
PAUSE = 0.3
LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 5.0, 30.0  # between two reads of a pod's Events, at first and at last
_NOT_RUN = (126, 127, 128)  # exit codes of shells and the kubelet for a command that could not be run
_AGAIN = "run torchnet verify again: the address of a recently deleted pod may still be in use"
_LONGEST = 65536  # bytes of a test pod's log


class Stopped(Exception):
    """The caller no longer waits for the result."""


class LivePods:
    """The existing test pods. Errors include all the details, because the pods are deleted right afterwards.

    Once ``alive()`` is false, waiting ends with `Stopped`.

    Args:
        multus: Multus's DaemonSet, as kubectl's arguments.
        progress: Receives a line while a pod waits for something that has no time limit.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        alive: Callable[[], bool],
        *,
        multus: str = MULTUS,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client, self.namespace, self._alive = client, namespace, alive
        self.multus, self.progress = multus, progress

    def wait(self, name: str, stage: str, seconds: float) -> Object:
        """Wait until the pod is in this stage, and return it.

        The time during which a queue holds the pod, or the kubelet pulls its image, does not count.

        Raises:
            NetworkError: The pod ended first, its node's Multus cannot use the API, or the pod did not reach the stage
                within ``seconds``.
            Stopped: The caller no longer waits.
        """
        until, looked, shown = time.monotonic() + seconds, time.monotonic(), ""
        backoff = Backoff(LOOK_SECONDS, _LONGEST_LOOK_SECONDS)
        every = backoff.next()
        while True:
            body = self._get(name)
            one = worker(body)
            if one.stage == stage:
                return body
            self.require_running(body)
            now, reason = time.monotonic(), one.why if one.stage == "queued" else ""
            if one.stage == "creating" and now > min(looked + every, until):
                looked, every, events = now, backoff.next(), self._events(body)
                if find_rejected_token(events):
                    raise rejected_token_error(one.node, self.multus)
                reason = "its node pulls the image" if has_clock_stopped(one, events) else ""
            if reason:
                until = now + seconds
                if reason != shown:
                    self.progress(f"{name}: {printable(reason, 500)}")
                shown = reason
            if now > until:
                events = self._events(body)
                uid = str(body["metadata"].get("uid") or "")
                why = latest_event_texts(events, {name: uid}).get(name, "") or one.why or one.stage
                raise not_started_error(name, stage, seconds, why, self.namespace)
            self.pause()

    def log(self, name: str) -> Object:
        """Wait for the JSON line that a pod prints once it serves, after any error output, and return it.

        Returns:
            The parsed line, or ``{"problem": TEXT}`` if there is none within 60 s.

        Raises:
            NetworkError: The pod ended first.
            Stopped: The caller no longer waits.
        """
        until = time.monotonic() + ANSWER_SECONDS
        text = ""
        while time.monotonic() < until:
            text = self._read(name)
            for line in text.splitlines():
                if (found := _parsed(line)) is not None:
                    return found
            self.require_running(self._get(name))
            self.pause()
        return {"problem": f"no result within {ANSWER_SECONDS:g} s; its log ends with: {_end(text)}"}

    def result(self, body: Object) -> Object:
        """Return the last line of JSON that a pod has left, or as ``{"problem": TEXT}`` how it ended without one.

        Its termination message is that line, unless it was too long for one.
        """
        found = _parsed(_termination(body))
        if found is not None and "results" in found:
            return found
        lines = [_parsed(line) for line in self._read(body["metadata"]["name"]).splitlines()]
        last = next((line for line in reversed(lines) if line is not None), found)
        if last is None or not ("results" in last or "blocked" in last):
            return {"problem": self._describe_end(body)}
        return last

    def require_running(self, body: Object) -> None:
        """Check that the pod has not ended.

        Raises:
            NetworkError: It has; the text says how.
        """
        ended = worker(body).ended
        if ended is not None:
            name = body["metadata"]["name"]
            fix = NO_PYTHON if ended.code in _NOT_RUN else _AGAIN
            raise NetworkError(f"{name} has terminated: {printable(self._describe_end(body), 500)}", fix=fix)

    def pause(self) -> None:
        """Wait a moment.

        Raises:
            Stopped: The caller no longer waits.
        """
        self.check_caller()
        time.sleep(PAUSE)

    def check_caller(self) -> None:
        """Check that the caller still waits.

        Raises:
            Stopped: It does not.
        """
        if not self._alive():
            raise Stopped

    def _describe_end(self, body: Object) -> str:
        ended = worker(body).ended
        output = _termination(body) or self._read(body["metadata"]["name"])
        return f"{ended.why if ended else 'still running'}; output: {_end(output)}"

    def _get(self, name: str) -> Object:
        call = POD.call("get", self.namespace, name)
        return self._client.call("GET", POD.path(self.namespace, name), call)

    def _read(self, name: str) -> str:
        """Return the log as far as it is available now."""
        call = POD.call("get", self.namespace, name, "log")
        query = {"container": WORKER, "limitBytes": _LONGEST}
        try:
            data = self._client.read(
                POD.path(self.namespace, name, "log"), call, query=query, silence=10.0, patience=0.0
            )
        except ApiUnreachable:
            return ""  # the kubelet does not respond; the pod's status may show why
        except ApiRefusal as error:
            if error.status not in (400, 404):
                raise
            return ""
        return data.decode("utf-8", "replace")

    def _events(self, body: Object) -> list[Object]:
        """Return the Events about the pod; [] if this user may not list them."""
        query = {"fieldSelector": f"involvedObject.uid={body['metadata'].get('uid')}"}
        call = EVENT.call("list", self.namespace)
        try:
            answer = self._client.call("GET", EVENT.path(self.namespace), call, query=query)
        except ApiRefusal:
            return []
        return [
            dict(one) for one in of_pod(answer.get("items") or (), str(body["metadata"].get("uid") or ""))
        ]


def _termination(body: Object) -> str:
    states = [one.get("state") or {} for one in (body.get("status") or {}).get("containerStatuses") or ()]
    return next((str((one.get("terminated") or {}).get("message") or "") for one in states), "")


def _parsed(text: str) -> Object | None:
    try:
        value = loads(text, max_size=_LONGEST, max_depth=8)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _end(text: str) -> str:
    return " ".join(text[-300:].split()) or "nothing"
