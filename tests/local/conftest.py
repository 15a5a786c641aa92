"""Fixtures of several modules here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api_server import Server
from tests.api_world import Fake


@pytest.fixture(scope="module", params=["127.0.0.1", "::1"])
def api_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("api"), request.param) as running:
        yield running


@pytest.fixture
def world(api_server: Server) -> Iterator[Fake]:
    """The server as it was at first: without pods, faults or anything asked."""
    state = api_server.state
    state.pods.clear()
    state.asked.clear()
    state.fault, state.connections = None, 0
    fake = Fake(api_server)
    yield fake
    fake.close()
