"""Concurrent tests do run at the same time, and each has its own verdict; no cluster is needed to see it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cluster.concurrency import ConcurrentTests, concurrent
from tests.cluster.launcher import Launcher
from tests.durations import BESIDE_OTHERS

BOTH = threading.Barrier(2, timeout=10)


class Namespaces:
    """A cluster that has namespaces, and nothing in them."""

    @contextmanager
    def namespace(self, *, keeps_runs: bool) -> Iterator[str]:
        yield f"of its own, {keeps_runs}"


@concurrent
def good(launcher: Launcher, number: int) -> None:
    BOTH.wait()
    assert (launcher.namespace, number) == ("of its own, False", 7)


@concurrent
def bad(launcher: Launcher) -> None:
    BOTH.wait()
    raise LookupError("this one")


def test_each_has_its_own_verdict(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    items: list[Any] = [
        SimpleNamespace(
            nodeid="good", obj=good, user_properties=[], callspec=SimpleNamespace(params={"number": 7})
        ),
        SimpleNamespace(nodeid="bad", obj=bad),
        SimpleNamespace(nodeid="another", obj=print),
    ]
    cluster: Any = Namespaces()
    with ConcurrentTests(cluster, tmp_path, request, items) as begun:
        begun.wait(items[0])
        assert 0 < dict(items[0].user_properties)[BESIDE_OTHERS] < 10
        with pytest.raises(LookupError, match="this one"):
            begun.wait(items[1])
        with pytest.raises(KeyError):
            begun.wait(items[2])
