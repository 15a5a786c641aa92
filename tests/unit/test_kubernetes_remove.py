"""What is removed of a run, how long its pods are waited for, and what is said of what nobody may see."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.unit.api_store import Store, door, forbidden, storing
from tests.unit.kubernetes_objects import NAMESPACE, RUN, facts, job, labelled, pod, running
from torchnet.runtimes.kubernetes import remove as removal

store = pytest.fixture(storing)
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": labelled(f"{RUN}-token")}


def test_all_that_bears_the_label_goes_and_nothing_else(store: Store, tmp_path: Path) -> None:
    for body in (job(), SECRET, pod(0), pod(1)):
        store.put(body)
    other = SECRET | {"metadata": labelled("other") | {"labels": {"torchnet/run": "other"}}}
    store.put(other)
    done = removal.remove(door(store, tmp_path), NAMESPACE, RUN, patience=5)
    assert (done.left, done.problems, done.unseen) == ([], [], [])
    assert store.names() == ["Secret/other"]


def test_pods_are_waited_for_as_long_as_they_get_for_their_end(store: Store, tmp_path: Path) -> None:
    """A run with a long --grace: it is not "still there" before its own time is over."""
    store.put(pod(0, worker=running()))
    store.lingers = 4
    threading.Timer(2.0, store.objects.clear).start()
    began = time.monotonic()
    done = removal.remove(door(store, tmp_path), NAMESPACE, RUN, patience=0.5)
    assert time.monotonic() - began > 1.5
    assert done.left == []


def test_beyond_that_the_patience_ends(store: Store, tmp_path: Path) -> None:
    store.put(pod(0, worker=running()))
    store.lingers = 2
    began = time.monotonic()
    done = removal.remove(door(store, tmp_path), NAMESPACE, RUN, patience=0.5)
    assert 2 < time.monotonic() - began < 5
    assert done.left == [f"pods/{pod(0)['metadata']['name']}"]


def test_only_pods_whose_time_is_long_over_are_taken_out_by_force(store: Store, tmp_path: Path) -> None:
    """Of a node that says nothing. One that still has its time is at its end's work, and would go on with it."""
    store.put(pod(0, worker=running()))
    lost = pod(1, worker=running())
    lost["metadata"]["deletionTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 20))
    store.put(lost)
    store.lingers = 3
    done = removal.remove(door(store, tmp_path), NAMESPACE, RUN, patience=0.5, force=True)
    assert done.left == [f"pods/{pod(0)['metadata']['name']}"]
    (forced,) = [path for _, _, path, _ in store.asked if "gracePeriodSeconds=0" in path]
    assert f"/pods/{lost['metadata']['name']}?" in forced


def test_a_door_that_is_stopped_ends_the_waiting(store: Store, tmp_path: Path) -> None:
    store.put(pod(0, worker=running()))
    store.lingers = 60
    one = door(store, tmp_path)
    threading.Timer(0.5, one.stop.set).start()
    began = time.monotonic()
    done = removal.remove(one, NAMESPACE, RUN, patience=60)
    assert time.monotonic() - began < 3
    assert len(done.left) == 1


def test_kinds_that_nobody_may_list_are_told(store: Store, tmp_path: Path) -> None:
    store.put(job())
    store.faults = [
        ("GET", "/secrets", forbidden("secrets")),
        ("GET", "/roles", forbidden("roles")),
        ("GET", "/jobsets", forbidden("jobsets")),
    ]
    done = removal.remove(door(store, tmp_path), NAMESPACE, RUN, patience=5)
    assert (done.left, done.problems) == ([], [])
    assert sorted(done.unseen) == [
        "jobsets.jobset.x-k8s.io",
        "roles.rbac.authorization.k8s.io",
        "secrets",
    ]


def test_those_very_objects_go_and_none_that_has_the_same_name(store: Store, tmp_path: Path) -> None:
    ours, theirs = store.put(SECRET), store.put(job())
    done = removal.those(
        door(store, tmp_path), [ours, theirs | {"metadata": theirs["metadata"] | {"uid": "another"}}]
    )
    assert (done.left, done.problems) == ([], [])
    assert store.names() == [f"Job/{facts().name}"]
