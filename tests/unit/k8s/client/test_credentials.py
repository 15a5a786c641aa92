"""Credentials that the server rejects in mid-run: obtained once more, by one thread, and only for the same server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import until
from tests.unit.api_answers import Answer, Server, kubeconfig
from torchnet.errors import ClusterError
from torchnet.k8s.client.access import load
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.client.watch import Watch

# Each run prints another token: token-1, token-2, …
PLUGIN = """\
#!/bin/sh
echo x >> {folder}/runs
n=$(wc -l < {folder}/runs)
[ -e {folder}/broken ] && {{ echo 'please log in' >&2; exit 1; }}
echo '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"token-'$n'"}}}}'
"""
DENIED: Answer = (
    401,
    {},
    {"kind": "Status", "code": 401, "reason": "Unauthorized", "message": "Unauthorized"},
)


class Guarded(Server):
    """Accepts the bearers of ``good`` tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.good = {"token-1"}

    def answer(self, method: str, path: str, said: bytes) -> Answer:
        bearer = self.request.headers.get("authorization", "").removeprefix("Bearer ")
        return super().answer(method, path, said) if bearer in self.good else DENIED


@pytest.fixture
def server() -> Iterator[Guarded]:
    made = Guarded()
    yield made
    made.close()


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, Any]:
    """An exec plugin, as a kubeconfig's user."""
    path = tmp_path / "plugin"
    path.write_text(PLUGIN.format(folder=tmp_path))
    path.chmod(0o755)
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(path),
        "interactiveMode": "Never",
    }


@pytest.fixture
def client(server: Guarded, plugin: dict[str, Any], tmp_path: Path) -> ApiClient:
    path = kubeconfig(tmp_path / "config", server.address, exec=plugin)
    return ApiClient(load(str(path)), patience=3.0)


def ask(client: ApiClient) -> dict[str, Any]:
    return client.call("GET", POD.path("ml"), POD.call("list", "ml"))


def refused(client: ApiClient) -> int:
    with pytest.raises(ApiRefusal) as caught:
        ask(client)
    return caught.value.status


def runs(folder: Path) -> int:
    return (folder / "runs").read_text().count("x")


def test_rejected_later_the_plugin_runs_once_more(server: Guarded, client: ApiClient, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        server.good = {f"token-{number}"}
        assert ask(client) == {}
        assert runs(tmp_path) == number
    assert len(server.asked) == 1 + 2 + 2


def test_rejected_again_it_gives_up(server: Guarded, client: ApiClient, tmp_path: Path) -> None:
    ask(client)
    server.good = set()
    for _ in range(3):
        with pytest.raises(ApiRefusal) as caught:
            ask(client)
        assert (caught.value.status, caught.value.exit_code) == (401, 3)
        assert "kubectl auth whoami" in caught.value.fix
    assert runs(tmp_path) == 2, "not for each request"
    assert len(server.asked) == 1 + 2 + 1 + 1


def test_rejected_from_the_start_it_is_not_run_again(
    server: Guarded, client: ApiClient, tmp_path: Path
) -> None:
    server.good = set()
    with pytest.raises(ApiRefusal):
        ask(client)
    assert (runs(tmp_path), len(server.asked)) == (1, 1)


def test_requests_of_many_threads_run_it_once(server: Guarded, client: ApiClient, tmp_path: Path) -> None:
    """Each follower of a log has a request of its own."""
    ask(client)
    server.good = {"token-2"}
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda _: ask(client), range(64))) == [{}] * 64
    assert runs(tmp_path) == 2
    server.good = set()
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: refused(client), range(64))) == {401}
    assert runs(tmp_path) == 3


def test_a_plugin_that_fails_says_why(server: Guarded, client: ApiClient, tmp_path: Path) -> None:
    ask(client)
    server.good = set()
    (tmp_path / "broken").touch()
    with pytest.raises(ClusterError, match="cannot obtain credentials"):
        ask(client)
    (tmp_path / "broken").unlink()


def test_a_client_that_is_stopped_asks_no_plugin(server: Guarded, client: ApiClient, tmp_path: Path) -> None:
    ask(client)
    server.good = set()
    client.stop.set()
    with pytest.raises(ApiRefusal):
        ask(client)
    assert runs(tmp_path) == 1


def test_a_token_in_the_file_is_read_again(server: Guarded, tmp_path: Path) -> None:
    """As a login leaves it there."""
    path = kubeconfig(tmp_path / "config", server.address, token="token-1")
    client = ApiClient(load(str(path)))
    ask(client)
    server.good = {"token-2"}
    kubeconfig(path, server.address, token="token-2")
    assert ask(client) == {}


def test_no_server_gets_anothers_credentials(server: Guarded, tmp_path: Path) -> None:
    """Another current context by now, and then the same name for another server."""
    path = kubeconfig(tmp_path / "config", server.address, token="token-1")
    client = ApiClient(load(str(path)))
    ask(client)
    server.good = set()
    mine = json.loads(path.read_text())
    other = json.loads(
        kubeconfig(tmp_path / "other", "http://127.0.0.1:9", name="other", token="secret").read_text()
    )
    for field in ("clusters", "users", "contexts"):
        mine[field] += other[field]
    mine["current-context"] = "other"
    path.write_text(json.dumps(mine))
    with pytest.raises(ApiRefusal, match="401|not authenticated"):
        ask(client)
    server.good = {"token-1"}
    ask(client)
    server.good = set()
    kubeconfig(path, "http://127.0.0.1:9", token="secret")
    with pytest.raises(ApiRefusal):
        ask(client)
    assert {asked[3]["authorization"] for asked in server.asked} == {"Bearer token-1"}


def test_a_watch_goes_on_with_new_credentials(server: Guarded, client: ApiClient, tmp_path: Path) -> None:
    """Also if the server rejects the old ones in the stream."""
    pods: Answer = (200, {}, {"metadata": {"resourceVersion": "5"}, "items": []})
    event = json.dumps({"type": "ERROR", "object": DENIED[2]}).encode() + b"\n"
    server.answers = [pods, (200, {}, event), pods, (200, {}, b"")]
    listed: list[int] = []
    failed: list[Exception] = []
    watch = Watch(
        client,
        "ml",
        "run",
        on_list=lambda found: listed.append(len(found)),
        on_event=lambda *_: None,
        on_error=failed.append,
    )
    watch.start()
    until(lambda: len(listed) == 2, "a second list")
    server.good = {"token-2"}
    until(lambda: runs(tmp_path) == 2, "the plugin's second run")
    before = len(server.asked)
    until(lambda: len(server.asked) > before + 1, "more requests")
    assert failed == []
    server.good = set()
    until(lambda: bool(failed), "the end of the watch")
    assert isinstance(failed[0], ApiRefusal)
