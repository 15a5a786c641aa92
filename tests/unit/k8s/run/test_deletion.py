"""What is removed of a run, how long its pods are waited for, and what is said of what nobody may see."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import until as until_true
from tests.unit.api_answers import client
from tests.unit.api_store import Store, forbidden, refusal, stamp, storing
from tests.unit.aside import aside, pause, until
from tests.unit.kubernetes_objects import NAMESPACE, RUN, facts, job, labelled, pod, running
from torchnet.constants import OLD_RUN_LABEL
from torchnet.errors import ClusterError
from torchnet.k8s.run import deletion as removal
from torchnet.k8s.run import grace_periods
from torchnet.k8s.run.stop import RunStop

store = pytest.fixture(storing)
NOT_ENDED = {
    "True": "the node is Ready",
    "False": "the kubelet reports the node as not Ready (KubeletNotReady: PLEG is not healthy)",
    "not readable": "the node cannot be read",
}
SECRET: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": labelled(f"{RUN}-token")}


def test_all_that_bears_the_label_goes_and_nothing_else(store: Store, tmp_path: Path) -> None:
    for body in (job(), SECRET, pod(0), pod(1)):
        store.put(body)
    other = SECRET | {"metadata": labelled("other") | {"labels": {"torchnet.alt/run": "other"}}}
    store.put(other)
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5)
    assert (done.left, done.problems, done.unseen) == ([], [], [])
    assert store.names() == ["Secret/other"]


POLICY: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": labelled(RUN),
}
CODE = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": labelled(f"{RUN}-code")}
PROTECTION = [f"NetworkPolicy/{RUN}", f"Secret/{RUN}-token"]


@pytest.mark.parametrize("now", [False, True])
def test_what_protects_the_pods_outlives_them(store: Store, tmp_path: Path, now: bool) -> None:
    """Their ports stay closed while the processes save their state."""
    for body in (CODE, job(), SECRET, POLICY, pod(0), pod(1)):
        store.put(body)
    store.lingers = 30
    there: list[list[str]] = []

    def nodes() -> None:
        until(lambda: f"ConfigMap/{RUN}-code" not in store.names())
        pause(0.5)
        there.append(store.names())
        store.kubelet(pod(0)["metadata"]["name"])
        pause(0.5)
        there.append(store.names())
        store.kubelet()

    with aside(nodes):
        done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, now=now)
    names = [f"Pod/{pod(rank)['metadata']['name']}" for rank in range(2)]
    assert there == [sorted([*PROTECTION, *names]), sorted([*PROTECTION, names[1]])]
    assert (done.left, done.problems, store.names()) == ([], [], [])


def owned(body: dict[str, Any], owner: dict[str, str]) -> dict[str, Any]:
    return body | {"metadata": body["metadata"] | {"ownerReferences": [owner]}}


def owners(store: Store, name: str) -> list[tuple[str, str]]:
    (found,) = [body for body in store.objects.values() if body["metadata"]["name"] == name]
    return [(one["kind"], one["uid"]) for one in found["metadata"].get("ownerReferences", ())]


@pytest.mark.parametrize("count", [2, 40])
def test_the_pods_own_it_before_the_workload_goes(store: Store, tmp_path: Path, count: int) -> None:
    """So that the garbage collector deletes it after the pods, even if nobody waits for their end."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": RUN, "uid": "u"}
    for body in (SECRET, POLICY):
        store.put(owned(body, owner))
    for body in (CODE, job(), *map(pod, range(count))):
        store.put(body)
    store.lingers = 30
    assert removal.stop(client(store, tmp_path), NAMESPACE, RUN).problems == []
    pods = {("Pod", f"uid-{rank}") for rank in range(count)}
    for name in (RUN, f"{RUN}-token"):
        assert set(owners(store, name)) <= pods
        assert len(owners(store, name)) == min(count, 16)
    verbs = [verb for _, verb, path, _ in store.asked if verb != "GET"]
    assert verbs == ["PATCH", "PATCH", "DELETE", "DELETE"]
    assert owners(store, f"{RUN}-code") == []


def test_pods_that_own_it_already_are_not_set_again(store: Store, tmp_path: Path) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "uid-0"}
    for body in (SECRET, POLICY):
        store.put(owned(body, owner))
    store.put(pod(0))
    removal.stop(client(store, tmp_path), NAMESPACE, RUN)
    assert store.patches == []


@pytest.mark.parametrize("fault", [forbidden("secrets"), refusal(422, "Invalid", "no")])
def test_a_stop_does_not_depend_on_it(store: Store, tmp_path: Path, fault: Any) -> None:
    for body in (job(), SECRET, POLICY, pod(0)):
        store.put(body)
    store.faults = [("PATCH", "", fault)]
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5)
    assert (done.left, done.problems, store.names()) == ([], [], [])


BROKEN = refusal(500, "InternalError", 'failed calling webhook "checks.example.com": no answer')


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/pods"), ("GET", "/networkpolicies"), ("DELETE", r"/pods\?")]
)
def test_what_a_broken_webhook_refuses_does_not_keep_the_others(
    store: Store, tmp_path: Path, method: str, path: str
) -> None:
    for body in (job(), SECRET, POLICY, pod(0), pod(1)):
        store.put(body)
    store.faults = [(method, path, BROKEN)]
    done = removal.stop(client(store, tmp_path, patience=0), NAMESPACE, RUN)
    assert (done.problems, store.names()) == ([], PROTECTION)


def test_in_a_hurry_the_workload_is_deleted_at_once(store: Store, tmp_path: Path) -> None:
    """A second signal came while the first request was on its way."""
    for body in (job(), SECRET, POLICY, pod(0)):
        store.put(body)
    held = threading.Event()
    said: list[object] = []
    store.faults = [("GET", "limit=16", held)]
    info = facts(1)
    stopping = RunStop(client(store, tmp_path), info, keep=False, notice=said.append, on_error=said.append)
    stopping.begin(None, 0)
    until_true(lambda: store.wanted("GET", "limit=16"), "the first request")
    assert "not confirmed" in stopping.progress(0.1)
    held.set()
    assert stopping.progress(10) == "it is being deleted"
    assert (said, store.names()) == ([], PROTECTION)
    assert store.wanted("GET", "/networkpolicies|/secrets") == store.wanted("PATCH", "") == 0


def test_it_stays_with_a_pod_that_does_not_end(store: Store, tmp_path: Path) -> None:
    for body in (SECRET, POLICY, pod(0, worker=running())):
        store.put(body)
    store.lingers = 1
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=0.5)
    assert store.names() == sorted([*PROTECTION, f"Pod/{pod(0)['metadata']['name']}"])
    assert len(done.left) == 3


def test_a_run_under_the_old_label_is_removed_by_it(store: Store, tmp_path: Path) -> None:
    old = [CODE, job(), SECRET, POLICY, pod(0)]
    for body in old:
        meta = body["metadata"]
        store.put(body | {"metadata": meta | {"labels": {"torchnet/run": RUN}}})
    store.put(SECRET | {"metadata": labelled("another")})
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, label=OLD_RUN_LABEL)
    assert (done.left, done.problems, store.names()) == ([], [], ["Secret/another"])


def test_pods_are_waited_for_as_long_as_they_get_for_their_end(store: Store, tmp_path: Path) -> None:
    """A run with a long --grace: it is not "still there" before its own time is over."""
    store.put(pod(0, worker=running()))
    store.lingers = 4
    began = time.monotonic()
    with aside(2.0, store.kubelet):
        done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=0.5)
    assert time.monotonic() - began > 1.5
    assert done.left == []


def test_beyond_that_the_patience_ends(store: Store, tmp_path: Path) -> None:
    store.put(pod(0, worker=running()))
    store.lingers = 2
    began = time.monotonic()
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=0.5)
    assert 2 < time.monotonic() - began < 5
    assert done.left == [f"pods/{pod(0)['metadata']['name']}"]


def test_the_patience_is_with_each_pod(store: Store, tmp_path: Path) -> None:
    """A thousand pods go one after another, longer than the patience with one of them."""
    pods = [store.put(pod(rank, worker=running()))["metadata"]["name"] for rank in range(4)]
    store.lingers = 1
    went = [(0.7, partial(store.kubelet, name)) for name in pods]
    with aside(1.0, *(step for steps in went for step in steps)):
        done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=1.2)
    assert done.left == []


def terminating(rank: int, ago: float, grace: int) -> dict[str, Any]:
    """A pod that was deleted so many seconds ago, by the server's clock."""
    body = pod(rank, phase="Running", worker=running())
    body["metadata"] |= {
        "deletionTimestamp": stamp(time.time() - ago + grace),
        "deletionGracePeriodSeconds": grace,
    }
    return body


def forced(store: Store) -> list[str]:
    """The names of the pods that were taken out by force."""
    return [
        path.partition("/pods/")[2].partition("?")[0]
        for _, _, path, _ in store.asked
        if "gracePeriodSeconds=0" in path
    ]


def test_only_pods_whose_time_is_long_over_are_taken_out_by_force(store: Store, tmp_path: Path) -> None:
    """Of a node that says nothing. One that still has its time is at its end's work, and would go on with it."""
    store.put(pod(0, worker=running()))
    lost = store.put(terminating(1, ago=45, grace=30))
    store.lingers = 30
    with aside(lambda: until(lambda: forced(store)), 0.5, store.kubelet):
        began = time.monotonic()
        done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, force=True)
    assert time.monotonic() - began < 10, "the server's own time tells that it is over"
    assert (done.left, done.problems) == ([], [])
    assert forced(store) == [lost["metadata"]["name"]]


def node(status: str) -> dict[str, Any]:
    """The node of all pods here, with this status of its condition Ready."""
    ready = {"type": "Ready", "status": status}
    if status == "False":
        ready |= {"reason": "KubeletNotReady", "message": "PLEG is not healthy"}
    conditions = [{"type": "MemoryPressure", "status": "False"}, ready]
    meta = {"name": "node1", "namespace": ""}
    # What keeps new pods away does not keep the kubelet from ending the old ones.
    taints = [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]
    body = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints}}
    return body | {"status": {"conditions": conditions}}


def test_pods_of_a_node_that_has_lost_its_kubelet_are_deleted_by_force(store: Store, tmp_path: Path) -> None:
    store.put(node("Unknown"))
    lost = [store.put(terminating(rank, ago=60, grace=30))["metadata"]["name"] for rank in range(3)]
    store.lingers = 30
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, force=True)
    assert (done.left, done.problems) == ([], [])
    assert forced(store) == lost
    assert store.wanted("GET", "/nodes/") == 1


@pytest.mark.parametrize("cause", NOT_ENDED)
@pytest.mark.parametrize("force", [True, False])
def test_the_kubelet_alone_ends_the_pods_of_a_node_that_is_not_known_to_be_lost(
    store: Store, tmp_path: Path, cause: str, force: bool
) -> None:
    if cause != "not readable":
        store.put(node(cause))
    else:
        store.faults = [("GET", "/nodes/", forbidden("nodes"))]
    name = store.put(terminating(0, ago=60, grace=1))["metadata"]["name"]
    store.lingers = 1
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=0.5, force=force)
    assert forced(store) == []
    assert done.left == [f"pods/{name}"]
    (problem,) = done.problems
    assert f"node node1 has not terminated it, and {NOT_ENDED[cause]}" in problem
    assert f"kubectl delete pod {name} -n {NAMESPACE} --grace-period=0 --force" in problem


def test_a_node_that_falls_silent_meanwhile_gives_its_pods_up(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace_periods, "_AGAIN_SECONDS", 0.3)
    store.put(node("True"))
    lost = store.put(terminating(0, ago=60, grace=30))
    store.lingers = 30
    with aside(
        lambda: until(lambda: store.wanted("GET", "/nodes/")), 0.5, lambda: store.put(node("Unknown"))
    ):
        done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, force=True)
    assert (done.left, done.problems, forced(store)) == ([], [], [lost["metadata"]["name"]])


def test_a_pod_that_ends_late_is_no_problem(store: Store, tmp_path: Path) -> None:
    store.put(node("True"))
    store.put(terminating(0, ago=60, grace=30))
    store.lingers = 30
    with aside(lambda: until(lambda: store.wanted("GET", "/nodes/")), 0.5, store.kubelet):
        done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, force=True)
    assert (done.left, done.problems, forced(store)) == ([], [], [])


def test_a_pod_that_a_finalizer_holds_is_not_the_kubelets(store: Store, tmp_path: Path) -> None:
    store.put(node("True"))
    store.put(terminating(0, ago=60, grace=0))
    store.lingers = 30
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=0.5, force=True)
    assert (len(done.left), done.problems, forced(store)) == (1, [], [])


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_launchers_clock_that_is_wrong_forces_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    store.put(terminating(0, ago=20, grace=30))
    store.lingers = 30
    real = time.time
    monkeypatch.setattr(grace_periods, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * hours)
    with aside(3.0, store.kubelet):
        done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, force=True, now=True)
    assert (done.left, forced(store)) == ([], [])


def test_a_silent_nodes_pods_are_taken_out_when_all_their_time_has_passed_here(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has given no stamp of a later time than their deletion's."""
    monkeypatch.setattr(grace_periods, "SILENT_SECONDS", 1.0)
    store.put(terminating(0, ago=-3600, grace=2))  # the server's clock is another one
    store.lingers = 2
    began = time.monotonic()
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, force=True)
    assert 3 <= time.monotonic() - began < 6
    assert (done.left, len(forced(store))) == ([], 1)


def test_stamps_of_the_server_tell_how_late_it_is() -> None:
    known = grace_periods.GracePeriods()
    body = terminating(0, ago=60, grace=30)["metadata"]
    known.record(body)
    assert not known.is_overdue(body)
    known.record({"creationTimestamp": stamp(time.time() - 50)})
    assert not known.is_overdue(body), "older than the end of its time"
    known.record({"managedFields": [{"manager": "kubelet", "time": stamp(time.time() - 10)}, {}]})
    assert known.is_overdue(body)


def test_a_pod_whose_node_has_been_silent_is_not_waited_for_anew(store: Store, tmp_path: Path) -> None:
    """Nothing else was changed since its deletion: the date of the server's answers tells how long ago that was."""
    lost = store.put(terminating(1, ago=60, grace=30))
    lost["metadata"]["creationTimestamp"] = stamp(time.time() - 600)
    store.lingers = 30
    began = time.monotonic()
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, force=True)
    assert time.monotonic() - began < 5
    assert (done.left, forced(store)) == ([], [lost["metadata"]["name"]])


def test_a_time_that_is_shortened_later_is_not_the_nodes() -> None:
    known = grace_periods.GracePeriods()
    known.record(terminating(0, ago=14, grace=30)["metadata"])
    shortened = terminating(0, ago=14, grace=1)["metadata"]
    known.record(shortened)
    known.record({"creationTimestamp": stamp(time.time())})
    assert not known.is_overdue(shortened)
    assert known.longest == 30


def asked_with(store: Store, seconds: int) -> list[str]:
    """The paths of the pods, or of all of them, that were deleted with so much time."""
    found = [path for _, verb, path, _ in store.asked if verb == "DELETE" and f"Seconds={seconds}" in path]
    return [path.partition("?")[0].rpartition("/")[2] for path in found]


def test_now_is_a_second_for_all_that_are_not_being_stopped(store: Store, tmp_path: Path) -> None:
    for rank in range(2):
        store.put(pod(rank, worker=running()))
    assert removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, now=True).left == []
    assert asked_with(store, 1) == ["pods"], "one call"


def test_now_leaves_pods_that_are_being_stopped_their_time(store: Store, tmp_path: Path) -> None:
    """A node does not shorten a stop that is under way; only what the API tells of it would be shortened."""
    for rank in (0, 2):
        store.put(pod(rank, worker=running()))
    for rank in (1, 3):
        store.put(terminating(rank, ago=5, grace=30 + rank))
    store.lingers = 60
    told: list[tuple[int, float]] = []
    names = [pod(rank)["metadata"]["name"] for rank in range(4)]

    def nodes() -> None:
        until(lambda: len(asked_with(store, 1)) == 2)
        pause(0.5)
        store.kubelet(names[0], names[2])
        pause(0.5)
        graces = [one["metadata"]["deletionGracePeriodSeconds"] for one in store.objects.values()]
        assert graces == [31, 33]
        store.kubelet()

    with aside(nodes):
        done = removal.remove(
            client(store, tmp_path),
            NAMESPACE,
            RUN,
            patience=0.5,
            now=True,
            on_terminating=lambda count, seconds: told.append((count, seconds)),
        )
    assert done.left == [], "they are waited for"
    assert asked_with(store, 1) == [names[0], names[2]]
    assert told == [(2, 33.0)]


def test_now_without_the_right_for_one_call_goes_one_by_one(store: Store, tmp_path: Path) -> None:
    for rank in range(2):
        store.put(pod(rank, worker=running()))
    store.faults = [("DELETE", r"/pods\?", forbidden("pods"))]
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5, now=True)
    assert (done.left, done.problems) == ([], [])
    first, *pods = asked_with(store, 1)
    assert (first, sorted(pods)) == ("pods", [pod(rank)["metadata"]["name"] for rank in range(2)])


@pytest.mark.parametrize("count", [1, 40])
def test_while_they_are_waited_for_hardly_anything_is_asked(store: Store, tmp_path: Path, count: int) -> None:
    for body in (CODE, job(), SECRET, POLICY, *(pod(rank, worker=running()) for rank in range(count))):
        store.put(body)
    store.lingers = 30
    asked: list[int] = []

    def nodes() -> None:
        until(lambda: f"ConfigMap/{RUN}-code" not in store.names())
        pause(1.0)
        asked.append(lists(store))
        pause(3.0)
        asked.append(lists(store))
        store.kubelet()

    with aside(nodes):
        assert removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5).left == []
    assert asked[1] - asked[0] <= 2


def lists(store: Store) -> int:
    """How many lists were asked for."""
    found = [path for _, verb, path, _ in store.asked if verb == "GET" and "abelSelector" in path]
    return sum("watch=" not in path for path in found)


def test_pods_that_may_not_be_watched_are_listed_ever_more_rarely(store: Store, tmp_path: Path) -> None:
    store.put(pod(0, worker=running()))
    store.lingers = 30
    store.faults = [("GET", "watch=true", forbidden("pods"))]
    with aside(lambda: until(lambda: store.deleted), 2.0, store.kubelet):
        done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5)
    assert (done.left, done.problems) == ([], [])
    assert store.wanted("GET", r"/pods\?") <= 8


def test_a_server_that_falls_silent_meanwhile_is_told(store: Store, tmp_path: Path) -> None:
    store.put(pod(0, worker=running()))
    store.lingers = 30
    gone: list[Any] = [("GET", "", (503, {}, {"message": "etcd is away"}))]
    with aside(lambda: until(lambda: store.deleted), lambda: store.faults.extend(gone)):
        with pytest.raises(ClusterError, match="too busy"):
            removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=60)


def test_what_goes_wrong_while_they_are_waited_for_is_told_once(store: Store, tmp_path: Path) -> None:
    store.put(pod(0, worker=running()))
    lost = store.put(terminating(1, ago=45, grace=1))
    store.lingers = 1
    store.faults = [("DELETE", "gracePeriodSeconds=0", forbidden("pods"))]
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=1.0, force=True)
    assert store.wanted("DELETE", "gracePeriodSeconds=0") > 1
    (problem,) = done.problems
    assert f"delete pods/{lost['metadata']['name']}" in problem
    assert len(done.left) == 2


def test_nothing_left_is_not_said_by_who_may_not_look(store: Store, tmp_path: Path) -> None:
    store.put(pod(0, worker=running()))
    store.faults = [("GET", r"/pods\?", forbidden("pods"))]
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=1.0)
    assert done.left == []
    (problem,) = done.problems
    assert "list pods" in problem


def test_a_door_that_is_stopped_ends_the_waiting(store: Store, tmp_path: Path) -> None:
    store.put(pod(0, worker=running()))
    store.lingers = 60
    one = client(store, tmp_path)
    began = time.monotonic()
    with aside(0.5, one.stop.set):
        done = removal.remove(one, NAMESPACE, RUN, patience=60)
    assert time.monotonic() - began < 10
    assert len(done.left) == 1


def test_kinds_that_nobody_may_list_are_told(store: Store, tmp_path: Path) -> None:
    store.put(job())
    store.faults = [
        ("GET", "/secrets", forbidden("secrets")),
        ("GET", "/roles", forbidden("roles")),
        ("GET", "/jobsets", forbidden("jobsets")),
    ]
    done = removal.remove(client(store, tmp_path), NAMESPACE, RUN, patience=5)
    assert (done.left, done.problems) == ([], [])
    # Runs have no roles, which the built-in role `edit` may not list.
    assert sorted(done.unseen) == ["jobsets.jobset.x-k8s.io", "secrets"]


def test_those_very_objects_go_and_none_that_has_the_same_name(store: Store, tmp_path: Path) -> None:
    ours, theirs = store.put(SECRET), store.put(job())
    done = removal.delete_objects(
        client(store, tmp_path), [ours, theirs | {"metadata": theirs["metadata"] | {"uid": "another"}}]
    )
    assert (done.left, done.problems) == ([], [])
    assert store.names() == [f"Job/{facts().name}"]


def test_of_those_very_objects_pods_get_a_second(store: Store, tmp_path: Path) -> None:
    store.lingers = 30
    assert removal.delete_objects(client(store, tmp_path), [store.put(pod(0))]).problems == []
    (left,) = store.objects.values()
    assert left["metadata"]["deletionGracePeriodSeconds"] == 1
