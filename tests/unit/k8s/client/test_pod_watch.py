"""The pods of a selector, as they are now."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.api_answers import client
from tests.unit.api_store import Store, forbidden, refusal, storing
from tests.unit.kubernetes_objects import NAMESPACE, RUN, pod
from torchnet.errors import ClusterError
from torchnet.k8s.client import pod_watch
from torchnet.k8s.client.pod_watch import PodWatch

store = pytest.fixture(storing)


def until(done: Callable[[], object]) -> None:
    """Wait up to 10 s for this."""
    limit = time.monotonic() + 10
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.01)


LABELS = f"torchnet.alt/run={RUN}"


def test_it_follows_what_comes_and_goes(store: Store, tmp_path: Path) -> None:
    name = [store.put(pod(rank))["metadata"]["name"] for rank in range(2)]
    one = client(store, tmp_path)
    with PodWatch(one, NAMESPACE, LABELS, metadata=True) as watch:
        until(lambda: watch.is_listed)
        assert set(watch.bodies()) == set(name)
        added = store.put(pod(2))["metadata"]["name"]
        until(lambda: added in watch.bodies())
        store.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name[0]}")
        until(lambda: set(watch.bodies()) == {name[1], added})
    assert not one.stop.is_set()
    time.sleep(0.6)
    asked = len(store.asked)
    time.sleep(0.6)
    assert len(store.asked) == asked, "its end is the end of the questions"
    accepts = {headers["Accept"].partition(";g=")[0] for _, _, _, headers in store.asked}
    assert accepts == {
        "application/json;as=PartialObjectMetadataList",
        "application/json;as=PartialObjectMetadata",
    }


def test_without_the_right_to_watch_it_lists_ever_more_rarely(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_watch, "FIRST_PAUSE", 0.1)
    store.faults = [("GET", "watch=true", forbidden("pods"))]
    name = store.put(pod(0))["metadata"]["name"]
    with PodWatch(client(store, tmp_path), NAMESPACE, LABELS) as watch:
        until(lambda: name in watch.bodies())
        store.objects.clear()
        until(lambda: watch.is_listed and not watch.bodies())
        time.sleep(1.5)
    assert len(store.asked) <= 8


@pytest.mark.parametrize(
    ("pattern", "fault", "text"),
    [
        ("/pods", forbidden("pods"), "not allowed to list pods"),
        ("/pods", refusal(503, "", "etcd is away"), "too busy"),
        ("watch=true", refusal(503, "", "etcd is away"), "too busy"),
    ],
)
def test_a_failure_is_told(store: Store, tmp_path: Path, pattern: str, fault: object, text: str) -> None:
    store.faults = [("GET", pattern, fault)]  # type: ignore[list-item]
    with PodWatch(client(store, tmp_path, patience=0.5), NAMESPACE, LABELS) as watch:
        with pytest.raises(ClusterError, match=text):
            until(lambda: watch.bodies() is None)
