"""Tests that run at the same time, each in a namespace of its own: most of a launch is waiting."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.launcher import Launcher
from tests.durations import BESIDE_OTHERS

AT_ONCE = 3  # more would only wait for the processors: a launch takes some 5 s of CPU


@dataclass(frozen=True)
class Body:
    """What a concurrent test does, and whether it may leave objects of runs in its namespace."""

    function: Callable[..., None]
    keeps_runs: bool


def concurrent(body: Callable[..., None], *, keeps_runs: bool = False) -> Callable[..., None]:
    """A test that runs beside the other concurrent ones, with a verdict of its own: it neither disturbs them, nor
    depends on how fast the machine is.

    It is given a ``launcher`` in a namespace of its own, its parameters, and fixtures of the session.
    """

    def test(concurrent_tests: ConcurrentTests, request: pytest.FixtureRequest, **_: object) -> None:
        __tracebackhide__ = True
        concurrent_tests.wait(request.node)

    functools.update_wrapper(test, body)
    # What pytest reads: the fixtures of both.
    of_test, of_body = inspect.signature(test, follow_wrapped=False), inspect.signature(body)
    parameters = [*of_test.parameters.values(), *of_body.parameters.values()]
    signature = inspect.Signature([one for one in parameters if one.name not in ("_", "launcher")])
    vars(test).update(__signature__=signature, body=Body(body, keeps_runs))
    return test


def is_concurrent(item: pytest.Item) -> bool:
    return _body(item) is not None


def _body(item: Any) -> Body | None:
    found = getattr(getattr(item, "obj", None), "body", None)
    return found if isinstance(found, Body) else None


class ConcurrentTests:
    """The concurrent ones of these tests, begun in their order, ``AT_ONCE`` at a time."""

    def __init__(
        self, cluster: Cluster, folder: Path, request: pytest.FixtureRequest, items: Iterable[pytest.Item]
    ) -> None:
        self._cluster = cluster
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._seconds: dict[str, float] = {}
        self._ends = {}
        for number, item in enumerate(items):
            if body := _body(item):
                values = _values(item, body, request)
                place = folder / str(number)
                self._ends[item.nodeid] = self._pool.submit(self._run, item.nodeid, body, place, values)

    def __enter__(self) -> ConcurrentTests:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def wait(self, item: pytest.Item) -> None:
        """Until this test has ended; its own error if it failed."""
        __tracebackhide__ = True
        self._ends[item.nodeid].result()
        item.user_properties.append((BESIDE_OTHERS, self._seconds[item.nodeid]))

    def _run(self, name: str, body: Body, folder: Path, values: dict[str, Any]) -> None:
        began = time.monotonic()
        folder.mkdir()
        with self._cluster.namespace(keeps_runs=body.keeps_runs) as namespace:
            body.function(launcher=Launcher(self._cluster, namespace, folder), **values)
        self._seconds[name] = time.monotonic() - began


def _values(item: Any, body: Body, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the test takes beside ``launcher``: its parameters, and the values of fixtures."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    names = [name for name in inspect.signature(body.function).parameters if name != "launcher"]
    return {name: given[name] if name in given else request.getfixturevalue(name) for name in names}
