"""Runs commands in containers, over the official client's websocket."""

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
_ERROR_CHANNEL = 3  # of v4.channel.k8s.io: the command's result, as a Status object


def execute(door: ApiClient, namespace: str, pod: str, container: str, words: Sequence[str]) -> None:
    """Run a command in a container and wait for its end, up to 10 seconds.

    Its output is discarded, and there are no retries. The official client has no time-out for opening the connection: a
    caller that must not block calls this in a daemon thread.

    Raises:
        ApiRefusal: The server refused the request.
        ApiUnreachable: The connection failed, or the command did not end in time.
        ClusterError: The command could not be run, or failed.
    """
    from kubernetes.client import ApiException
    from kubernetes.stream.ws_client import websocket_call

    # A GET opens the websocket, so the verb for RBAC is get; servers from 1.35 on also require create.
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
        client.sock.shutdown()  # close() leaves the socket open if the server closed first


def _refusal(door: ApiClient, call: ApiCall, error: Any) -> ClusterError:
    """Parse a refusal's status and body from the reason's text: the official client has no fields for them."""
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
