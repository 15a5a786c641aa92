"""A command in a container, by the official client's websocket."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from torchnet.errors import ClusterError
from torchnet.k8s.client.api import ApiClient
from torchnet.k8s.client.api_errors import ApiCall, refused
from torchnet.k8s.client.kinds import POD
from torchnet.text import printable

_SECONDS = 10.0
_ERROR_CHANNEL = 3  # of v4.channel.k8s.io: how the command ended, as a Status


def execute(door: ApiClient, namespace: str, pod: str, container: str, words: Sequence[str]) -> None:
    """Run a command to its end, 10 seconds at most; what it prints is not read. Tried once.

    The client has no time-out for the connection itself: whoever cannot wait for it calls this in a daemon's thread.

    Raises:
        Refused: the server said no.
        ClusterError: the command could not be run, or failed.
        Unreachable: the connection failed, or the command has not ended.
    """
    from kubernetes.client import ApiException
    from kubernetes.stream.ws_client import websocket_call

    # A websocket is opened by a GET, so that is the right that is asked for; servers from 1.35 on ask for create, too.
    access, call = door.access, POD.call("get", namespace, pod, "exec")
    path = POD.path(namespace, pod, "exec")
    headers: dict[str, str] = {}
    access.client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
    query = [("container", container), ("stderr", "true"), *(("command", word) for word in words)]
    try:
        client = websocket_call(
            access.client.configuration,
            "GET",
            f"{access.server}{path}",
            query_params=query,
            headers=headers,
            _preload_content=False,
        )
    except ApiException as error:
        raise _refusal(door, call, error) from None
    try:
        client.run_forever(timeout=_SECONDS)
        if client.is_open():
            raise door.unreachable(call, TimeoutError(f"the command has not ended within {_SECONDS:g} s"))
        _judge(pod, client.read_channel(_ERROR_CHANNEL))
    except OSError as error:
        raise door.unreachable(call, error) from None
    finally:
        client.close(timeout=1)
        client.sock.shutdown()  # close() leaves the socket open where the other side was first


def _refusal(door: ApiClient, call: ApiCall, error: Any) -> ClusterError:
    """The client has no field for a refusal: status, headers and body are in the reason's text."""
    found = re.match(
        r".*?Handshake status ([0-9]{3}) .*? -\+-\+- .*? -\+-\+- (.*)", str(error.reason), re.DOTALL
    )
    if found is None:
        return door.unreachable(call, error)
    return refused(call, int(found[1]), found[2].encode())


def _judge(pod: str, said: str) -> None:
    try:
        status = json.loads(said)
        if status["status"] == "Success":
            return
        why = str(status.get("message") or status.get("reason"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        why = "nothing tells how the command ended"
    raise ClusterError(f"{pod}: {printable(why, 300)}")
