"""Questions to an API server: what it answers, refuses, delays and garbles."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.api_contract import *  # noqa: F403
from tests.api_server import GOOD, certificate
from tests.api_world import JSON, OWN, Fake, both, pods
from torchnet.agent.kube_api import LIMIT, ApiServer, Ask, DeniedError
from torchnet.constants import STATUS_ANNOTATION
from torchnet.errors import ClusterError, NetworkError, NotYetError

pytestmark = pytest.mark.waits

STRANGE = {"Wed, 01 Jan 2020 00:00:00 GMT": 0.5, "1e9": 0.5, "999999": 60, "-5": 0.5, "x": 0.5}


@pytest.mark.parametrize("after", STRANGE)
def test_a_strange_retry_after_is_kept_within_reason(world: Fake, after: str) -> None:
    world.server.state.fault = lambda _path, _n: (429, {"Retry-After": after}, b"")
    with pytest.raises(NotYetError) as caught:
        world.api("good").get(Ask("ml", "own"))
    assert caught.value.seconds == STRANGE[after]


def test_the_token_is_read_anew_for_each_question(world: Fake) -> None:
    both(world)
    api = world.api("good")
    folder = world.server.account()
    (folder / "token").write_text("expired")
    with pytest.raises(DeniedError, match="401"):
        api.get(Ask("ml", "own"))
    (folder / "token").write_text(GOOD)
    assert api.get(Ask("ml", "own"))


def test_a_connection_that_the_server_has_closed_is_made_anew(world: Fake) -> None:
    both(world)
    api = world.api("good")
    world.server.state.fault = lambda _path, n: (
        (200, JSON | {"Connection": "close"}, b"{}") if n == 1 else None
    )
    assert api.get(Ask("ml", "own")) == {}
    assert api.get(Ask("ml", "own"))


GARBAGE = {
    "no JSON": (b"<html>", "is not JSON"),
    "no object": (b"[]", "is not an object"),
    "deep": (b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "deeper than"),
    "large": (b'{"a": "' + b"x" * (LIMIT + 1) + b'"}', "is longer than"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_an_answer_that_is_none_is_refused(world: Fake, kind: str) -> None:
    body, why = GARBAGE[kind]
    world.server.state.fault = lambda _path, _n: (200, JSON, body)
    with pytest.raises(ClusterError, match=why):
        world.api("good").get(Ask("ml", "own"))


def test_a_hostile_annotation_is_data(world: Fake) -> None:
    world.put(
        "own",
        OWN,
        {STATUS_ANNOTATION: '[{"name": "ml/net\\u001b[2J", "interface": "$(reboot)", "ips": ["x"]}]'},
    )
    with pytest.raises(NetworkError) as caught:
        pods(world).attachments()
    assert "\x1b" not in str(caught.value)
    world.server.state.fault = lambda _path, _n: (403, JSON, b'{"message": "\\u001b[2J\\nno"}')
    with pytest.raises(DeniedError) as refused:
        world.api("good").get(Ask("ml", "own"))
    assert "\\x1b[2J\\x0ano" in str(refused.value)


def test_a_server_that_drips_is_left_after_a_while(world: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchnet.agent.kube_api._WHOLE_SECONDS", 0.3)

    def slow(_path: str, _n: int) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.5)
        return 200, JSON, b"{}"

    world.server.state.fault = slow
    with pytest.raises(NotYetError, match="takes too long"):
        world.api("good").get(Ask("ml", "own"))


def test_nobody_listening_and_another_authority(world: Fake, tmp_path: Path) -> None:
    folder = str(world.server.account())
    with pytest.raises(NotYetError, match="cannot reach .*: Connection refused"):
        ApiServer("127.0.0.1", 1, folder).get(Ask("ml", "own"))
    certificate(tmp_path, "127.0.0.1")
    for name in ("token", "namespace"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ClusterError, match="cannot reach .*certificate verify failed"):
        ApiServer(world.server.host, world.server.port, str(tmp_path)).get(Ask("ml", "own"))
    with pytest.raises(ClusterError, match="token: No such file"):
        ApiServer(world.server.host, world.server.port, str(tmp_path / "none")).get(Ask("ml", "own"))


def test_configuration_of_a_pod() -> None:
    with pytest.raises(ClusterError, match="outside of a pod") as caught:
        ApiServer.from_pod({})
    assert "--address-source host:" in caught.value.fix
    api = ApiServer.from_pod(
        {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, "/none"
    )
    with pytest.raises(ClusterError, match="/none/namespace: No such file"):
        api.namespace()
