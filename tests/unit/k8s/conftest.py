"""The tests of what runs beside a cluster mostly wait, for an API server in their own process and for clocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lanes import WAITS
from torchnet.k8s.client.api_client import ApiClient

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(WAITS)


@pytest.fixture(autouse=True)
def _no_watch_goes_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command leaves to the end of its process would ask a server that is gone, beside the next tests."""
    made: list[ApiClient] = []
    construct = ApiClient.__init__

    def noted(self: ApiClient, *arguments: Any, **named: Any) -> None:
        made.append(self)
        construct(self, *arguments, **named)

    monkeypatch.setattr(ApiClient, "__init__", noted)
    yield
    for client in made:
        client.stop.set()
