"""The test pods of ``torchnet verify`` while they exist: waits for them, reads their results, explains failures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torchnet.errors import NetworkError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal, ApiUnreachable
from torchnet.k8s.client.kinds import EVENT, POD
from torchnet.k8s.run.pending import latest_event_texts
from torchnet.k8s.run.worker_set import worker
from torchnet.k8s.verify.checks import NO_PYTHON
from torchnet.text import loads, printable

Object = dict[str, Any]
ANSWER_SECONDS = 60.0
_PAUSE = 0.3
_NOT_RUN = (126, 127, 128)  # exit codes of shells and the kubelet for a command that could not be run
_AGAIN = "run torchnet verify again: the address of a recently deleted pod may still be in use"
_LONGEST = 65536  # bytes of a test pod's log


class Stopped(Exception):
    """The caller no longer waits for the result."""


class LivePods:
    """The existing test pods. Errors include all the details, because the pods are deleted right afterwards.

    Once ``alive()`` is false, waiting ends with `Stopped`.
    """

    def __init__(self, client: ApiClient, namespace: str, alive: Callable[[], bool]) -> None:
        self._client, self._namespace, self._alive = client, namespace, alive

    def wait(self, name: str, stage: str, seconds: float) -> Object:
        """Wait until the pod is in this stage, and return it.

        Raises:
            NetworkError: The pod ended first, or did not reach the stage within ``seconds``.
            Stopped: The caller no longer waits.
        """
        until = time.monotonic() + seconds
        while True:
            body = self._get(name)
            if worker(body).stage == stage:
                return body
            self._require_running(body)
            if time.monotonic() > until:
                one = worker(body)
                why = self._event(body) or one.why or one.stage
                text = f"{name} is not {stage} after {seconds:g} s: {printable(why, 500)}"
                raise NetworkError(text, fix=self._fix(why))
            self._pause()

    def log(self, name: str) -> Object:
        """Wait for the JSON line that the first pod prints once it serves, after any error output, and return it.

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
            self._require_running(self._get(name))
            self._pause()
        return {"problem": f"no result within {ANSWER_SECONDS:g} s; its log ends with: {_end(text)}"}

    def message(self, body: Object) -> Object:
        """Return the second pod's termination message, or as ``{"problem": TEXT}`` how it ended without a valid one."""
        found = _parsed(_termination(body))
        return found if found is not None else {"problem": self._describe_end(body)}

    def _require_running(self, body: Object) -> None:
        ended = worker(body).ended
        if ended is not None:
            name = body["metadata"]["name"]
            fix = NO_PYTHON if ended.code in _NOT_RUN else _AGAIN
            raise NetworkError(f"{name} has terminated: {printable(self._describe_end(body), 500)}", fix=fix)

    def _describe_end(self, body: Object) -> str:
        ended = worker(body).ended
        output = _termination(body) or self._read(body["metadata"]["name"])
        return f"{ended.why if ended else 'still running'}; output: {_end(output)}"

    def _get(self, name: str) -> Object:
        call = POD.call("get", self._namespace, name)
        return self._client.call("GET", POD.path(self._namespace, name), call)

    def _read(self, name: str) -> str:
        """Return the log as far as it is available now."""
        call = POD.call("get", self._namespace, name, "log")
        query = {"limitBytes": _LONGEST}
        try:
            data = self._client.read(
                POD.path(self._namespace, name, "log"), call, query=query, silence=10.0, patience=0.0
            )
        except ApiUnreachable:
            return ""  # the kubelet does not respond; the pod's status may show why
        except ApiRefusal as error:
            if error.status not in (400, 404):
                raise
            return ""
        return data.decode("utf-8", "replace")

    def _event(self, body: Object) -> str:
        name, uid = body["metadata"]["name"], str(body["metadata"].get("uid") or "")
        query = {"fieldSelector": f"involvedObject.name={name}"}
        call = EVENT.call("list", self._namespace)
        try:
            answer = self._client.call("GET", EVENT.path(self._namespace), call, query=query)
        except ApiRefusal:
            return ""
        return latest_event_texts(answer.get("items") or (), {name: uid}).get(name, "")

    def _fix(self, why: str) -> str:
        if "Image" in why or "Pulling" in why:
            return NO_PYTHON
        return f"kubectl get events -n {self._namespace}; check the node's /opt/cni/bin and its network card"

    def _pause(self) -> None:
        if not self._alive():
            raise Stopped
        time.sleep(_PAUSE)


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
