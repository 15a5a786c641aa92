"""The tests' API server as the contract wants it, with a job's two pods, a clock, and a source that asks for them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.api_contract import RUNNING, PodState, status
from tests.api_server import FORBIDDEN, GOOD, Server
from torchnet.agent.kube_api import ApiServer
from torchnet.agent.pod_address_source import Own, PodSource
from torchnet.constants import INDEX_LABEL, RUN_LABEL, STATUS_ANNOTATION
from torchnet.network.attachment import NetworkAttachment

ACCOUNTS = {"good": GOOD, "forbidden": FORBIDDEN, "unknown": "expired"}
OWN, ZERO = {RUN_LABEL: "r", INDEX_LABEL: "1"}, {RUN_LABEL: "r", INDEX_LABEL: "0"}
JSON = {"Content-Type": "application/json"}


class Fake:
    """The server of the tests, as the contract wants it."""

    namespace = "ml"

    def __init__(self, server: Server) -> None:
        self.server = server
        self._opened: list[ApiServer] = []

    def api(self, account: str) -> ApiServer:
        folder = self.server.account(ACCOUNTS[account])
        api = ApiServer(self.server.host, self.server.port, str(folder))
        self._opened.append(api)
        return api

    def put(
        self,
        name: str,
        labels: dict[str, str],
        annotations: dict[str, str],
        state: PodState = RUNNING,
        **fields: Any,
    ) -> None:
        self.server.put(self.namespace, name, labels, annotations, **asdict(state), **fields)

    def close(self) -> None:
        for api in self._opened:
            api.close()


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pods(world: Fake, clock: Time | None = None, account: str = "good", rank0: str = "") -> PodSource:
    clocked = {"clock": clock} if clock else {}
    own = Own("ml", "own", rank0=rank0)
    network = (NetworkAttachment("ml", "net"),)
    return PodSource(world.api(account), own, network, chance=lambda: 0.5, **clocked)  # type: ignore[arg-type]


def both(world: Fake) -> None:
    world.put("own", OWN, {STATUS_ANNOTATION: status("fd00::1")})
    world.put("zero", ZERO, {STATUS_ANNOTATION: status("fd00::a")})
