"""The workers of a run, from the events of a watch: the same state, whatever their order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kubernetes_objects import ended, failure, message, pod, running, terminated, waiting
from torchnet.k8s.run import worker_set
from torchnet.k8s.run.worker_set import WorkerSet, WorkerStatus, worker

# A pod's life as the watch tells it, from its making to its removal.
LIFE = (
    {"scheduled": {"status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}},
    {"prepare": waiting("PodInitializing"), "worker": waiting("PodInitializing")},
    {"prepare": running(), "worker": waiting("PodInitializing")},
    {"prepare": terminated(0), "worker": waiting("PodInitializing")},
    {"phase": "Running", "prepare": terminated(0), "worker": running(), "started": False},
    {"phase": "Running", "prepare": terminated(0), "worker": running()},
    {"phase": "Succeeded", "prepare": terminated(0), "worker": terminated(0, message())},
)
Event = tuple[str, dict[str, Any]]


@st.composite
def lives(draw: st.DrawFn) -> list[list[Event]]:
    """The events of some pods, several of them of one rank."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        rank, steps = draw(st.integers(0, 2)), draw(st.integers(1, len(LIFE)))
        made = f"2026-01-01T00:00:0{number}Z"
        base = draw(st.integers(1, 50))
        events: list[Event] = [
            (
                "MODIFIED" if step else "ADDED",
                pod(rank, uid=f"u{number}", version=base + step, made=made, **LIFE[step]),
            )
            for step in range(steps)
        ]
        if draw(st.booleans()):
            last = events[-1][1]
            gone = last | {"metadata": last["metadata"] | {"resourceVersion": str(base + steps)}}
            events.append(("DELETED", gone))
        found.append(events)
    return found


def fed(events: list[Event]) -> WorkerSet:
    gang = WorkerSet(3)
    for kind, body in events:
        gang.event(kind, body)
    return gang


@given(lives(), st.randoms(use_true_random=False))
def test_any_order_of_events_gives_the_same_state(pods: list[list[Event]], random: Any) -> None:
    events = [event for life in pods for event in life]
    expected = fed(events).workers()
    shuffled = [*events, *random.sample(events, len(events) // 2)]  # some twice
    random.shuffle(shuffled)
    assert fed(shuffled).workers() == expected


@given(lives(), st.data())
def test_a_list_in_the_middle_neither_doubles_nor_undoes_anything(
    pods: list[list[Event]], data: st.DataObject
) -> None:
    """410 Gone: what is lost of the stream is made up for by the list, at whatever moment it is read."""
    events = [event for life in pods for event in life]
    gang, expected = WorkerSet(3), fed(events)
    cut = data.draw(st.integers(0, len(events)))
    present: dict[str, dict[str, Any]] = {}
    for kind, body in events[:cut]:
        present[body["metadata"]["uid"]] = body
        if kind == "DELETED":
            del present[body["metadata"]["uid"]]
            gang.event(kind, body)
    gang.relist(present.values())
    gang.relist(present.values())  # and once more
    for kind, body in events[cut:]:
        gang.event(kind, body)
    assert gang.workers() == expected.workers()


@given(lives(), st.randoms(use_true_random=False))
def test_asking_in_between_changes_nothing(pods: list[list[Event]], random: Any) -> None:
    """A change costs the work for one rank; what it leaves alone must be right as well."""
    events = [event for life in pods for event in life]
    random.shuffle(events)
    gang = WorkerSet(3)
    for count, (kind, body) in enumerate(events, 1):
        gang.event(kind, body)
        assert list(gang.workers().items()) == list(fed(events[:count]).workers().items())
        if random.random() < 0.2:
            gone = [body["metadata"]["uid"]]
            gang.forget(gone)
            expected = fed(events[:count])
            expected.forget(gone)
            assert gang.workers() == expected.workers()
            gang = fed(events[:count])


def test_a_change_costs_the_work_for_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    gang = WorkerSet(1000)
    gang.relist([pod(rank, uid=f"u{rank}", prepare=running()) for rank in range(1000)])
    assert len(gang.workers()) == 1000
    read: list[str] = []
    real = worker_set.worker

    def counted(body: dict[str, Any]) -> WorkerStatus:
        read.append(body["metadata"]["uid"])
        return real(body)

    monkeypatch.setattr(worker_set, "worker", counted)
    gang.event("MODIFIED", pod(7, uid="u7", version=2, phase="Running", worker=running()))
    assert gang.workers()[7].started
    assert gang.replaced() == {}
    assert read == ["u7"]


def test_of_a_pod_only_what_is_read_is_kept() -> None:
    body = pod(0, prepare=running())
    body["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    body["spec"]["containers"] = [{"name": "worker"}]
    gang = fed([("ADDED", body)])
    (kept,) = gang.pods().values()
    assert "managedFields" not in kept["metadata"]
    assert kept["spec"] == {"nodeName": body["spec"]["nodeName"]}
    assert kept["status"] == body["status"]


def test_a_pod_that_was_replaced_before_its_training_leaves_its_place_to_the_new_one() -> None:
    gang = WorkerSet(1)
    gang.event("ADDED", pod(uid="old", prepare=running()))
    gang.event("DELETED", pod(uid="old", prepare=running(), version=2))
    gang.event("ADDED", pod(uid="new", version=3, made="2026-01-01T00:01:00Z", prepare=running()))
    assert gang.workers()[0].uid == "new"


def test_a_pod_that_was_deleted_before_its_training_is_lost_where_nobody_makes_another() -> None:
    for replaces in (True, False):
        gang = WorkerSet(1, replaces=replaces)
        gang.event("ADDED", pod(uid="old", prepare=running()))
        gang.relist([])
        found = gang.workers()
        assert bool(found) is not replaces
        assert replaces or (found[0].ended is not None and found[0].ended.code == 70)
        gang.event("ADDED", pod(uid="new", version=3, made="2026-01-01T00:01:00Z", prepare=running()))
        assert gang.workers()[0].uid == "new", "somebody has made one after all"


def test_a_pod_that_trained_and_was_deleted_is_lost_whoever_comes_after_it() -> None:
    gang = WorkerSet(1)
    gang.event("ADDED", pod(uid="old", phase="Running", worker=running()))
    gang.event("DELETED", pod(uid="old", phase="Running", worker=running(), version=2))
    gang.event("ADDED", pod(uid="new", version=3, made="2026-01-01T00:01:00Z", prepare=running()))
    found = gang.workers()[0]
    assert found.uid == "old"
    assert found.ended is not None
    assert found.ended.code == 70
    assert "deleted" in found.ended.why


def test_with_a_jobset_the_newest_attempt_counts() -> None:
    gang = WorkerSet(1, restarts=True)
    gang.event("ADDED", ended(0, 70, uid="old", attempt=0))
    gang.event("ADDED", pod(uid="new", attempt=1, phase="Running", worker=running()))
    assert gang.workers()[0].uid == "new"


def test_a_deleted_pod_whose_end_was_seen_keeps_its_code() -> None:
    gang = WorkerSet(1)
    gang.event("ADDED", ended(0, 42))
    gang.event("DELETED", ended(0, 42, version=2))
    last = gang.workers()[0].ended
    assert last is not None
    assert last.code == 42


def test_states_and_reasons() -> None:
    image = waiting("ImagePullBackOff", 'Back-off pulling image "nosuch:1"')
    for body, stage, said in (
        (
            pod(scheduled={"status": "False", "reason": "Unschedulable", "message": "2 Insufficient cpu"}),
            "unscheduled",
            "Insufficient cpu",
        ),
        (pod(scheduled={"status": "False", "reason": "SchedulingGated"}), "queued", "queued"),
        (pod(prepare=image), "creating", 'ImagePullBackOff: Back-off pulling image "nosuch:1"'),
        (
            pod(prepare=waiting("CreateContainerConfigError", 'secret "x" not found')),
            "creating",
            'secret "x" not found',
        ),
        (pod(prepare=running()), "preparing", "discovery"),
        (pod(phase="Running", worker=running(), started=False), "joining", "rendezvous"),
        (pod(phase="Running", worker=running()), "running", ""),
    ):
        found = worker(body)
        assert (found.stage, said in found.why) == (stage, True), found


def test_ends_tell_what_the_cluster_says() -> None:
    oom = worker(ended(1, 137, "", uid="x") | {}).ended
    assert oom is not None
    assert oom.message is None
    assert "exit code 137" in oom.why
    killed = pod(1, phase="Failed", worker=terminated(137, None, "OOMKilled"))
    found = worker(killed).ended
    assert found is not None
    assert "OOMKilled" in found.why
    evicted = worker(pod(1, phase="Failed", reason="Evicted", message="The node was low on memory.")).ended
    assert evicted is not None
    assert evicted.code == 70
    assert "low on memory" in evicted.why


def test_a_failed_preparation_is_an_end_with_its_message() -> None:
    words = message(2, 4, phase="prepare")
    failed = pod(2, prepare=terminated(4, words), worker=waiting("PodInitializing"))
    found = worker(failed)
    assert found.ended is not None
    assert found.ended.code == 4
    assert not found.started
    assert found.ended.message is not None
    assert found.ended.message.code == 4


EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}


def test_an_evicted_pod_that_never_trained_makes_room_before_its_replacement_is_there() -> None:
    body = pod(phase="Failed", prepare={"terminated": {"exitCode": 143}}, conditions=[EVICTED])
    for replaces in (True, False):
        gang = WorkerSet(1, replaces=replaces)
        gang.event("ADDED", body)
        assert bool(gang.workers()) is not replaces
        gang.event("DELETED", body)
        assert bool(gang.workers()) is not replaces


def test_an_evicted_pod_that_has_trained_is_a_lost_worker() -> None:
    gang = WorkerSet(1, replaces=True)
    ended = {"terminated": {"exitCode": 143}}
    gang.event("ADDED", pod(phase="Failed", worker=ended, conditions=[EVICTED]))
    assert gang.workers()[0].ended is not None


TAKEN = failure("network", 75, text="run-0: the address is taken; another pod is made in this one's place")


def test_a_pod_that_asks_for_another_one_makes_room_and_its_words_are_kept() -> None:
    words = message(0, 75, phase="prepare", failure=TAKEN)
    old = pod(0, uid="old", phase="Failed", prepare=terminated(75, words))
    for replaces in (True, False):
        gang = WorkerSet(1, replaces=replaces)
        gang.event("ADDED", old)
        assert bool(gang.workers()) is not replaces
        assert gang.replaced() == ({0: TAKEN["text"]} if replaces else {})
    gang = WorkerSet(1, replaces=True)
    gang.event("ADDED", old)
    gang.event("ADDED", pod(0, uid="new", version=3, made="2026-01-01T00:01:00Z", prepare=running()))
    assert gang.workers()[0].uid == "new"
    assert gang.replaced() == {}


def test_a_script_may_end_with_any_code() -> None:
    """Also with the code that asks for a replacement, as in runs of version 0.1."""
    for started in (True, None):
        gang = WorkerSet(1, replaces=True)
        gang.event("ADDED", ended(0, 75, message(0, 75, started=started, failure=failure(code=75))))
        (found,) = gang.workers().values()
        assert (found.started, found.replaced) == (True, False)
        assert found.ended is not None
        assert found.ended.code == 75


STOPPED = failure("interrupted", 143, text="stopped by SIGTERM")


@pytest.mark.parametrize("jobset", [True, False])
@pytest.mark.parametrize("told", [message(0, 75, started=False, failure=STOPPED), None], ids=["told", ""])
@pytest.mark.parametrize("container", ["prepare", "worker"])
def test_what_was_told_to_stop_before_the_start_is_replaced(
    jobset: bool, told: str | None, container: str
) -> None:
    """Deleted while it prepared or joined, also before it could write why."""
    gang = WorkerSet(1, restarts=jobset, replaces=True)
    states: dict[str, Any] = {container: terminated(75, told)}
    gang.event("ADDED", pod(0, phase="Failed", attempt=0 if jobset else None, **states))
    assert gang.workers() == {}
    # One that has trained is what the job has lost.
    gang.event("ADDED", ended(0, 143, uid="second", made="2026-01-01T00:00:09Z"))
    assert gang.workers()[0].ended is not None


def test_a_worker_of_an_old_jobset_that_was_stopped_in_its_preparation_is_replaced() -> None:
    gang = WorkerSet(1, restarts=True, replaces=True)
    gang.event("ADDED", pod(0, phase="Failed", attempt=0, prepare=terminated(143, None)))
    assert gang.workers() == {}


def test_an_eviction_before_the_start_is_told_with_its_cause() -> None:
    """The agent itself has only heard a signal."""
    gang = WorkerSet(1, replaces=True)
    body = pod(0, phase="Failed", worker=terminated(75, message(0, 75, started=False, failure=STOPPED)))
    body["status"] |= {"reason": "Evicted", "message": "The node was low on ephemeral-storage"}
    gang.event("ADDED", body)
    (text,) = gang.replaced().values()
    assert "The node was low on ephemeral-storage" in text


def test_whether_the_script_has_started_is_told_by_the_probe_and_then_by_the_message() -> None:
    """Old agents do not tell; they joined before their training container started."""
    joins = pod(phase="Running", worker=running(), started=False)
    assert [(one.joins, one.started) for one in map(worker, (joins, pod(worker=running())))] == [
        (True, False),
        (True, True),
    ]
    for words, started in (
        (message(0, 4, started=False), False),
        (message(0, 4), True),
        (message(0, 4, started=None), True),
        (None, True),
    ):
        assert worker(ended(0, 4, words or "")).started is started


def test_a_worker_that_failed_before_the_start_is_not_replaced_because_it_was_evicted_then() -> None:
    gang = WorkerSet(1, replaces=True)
    gang.event("ADDED", ended(0, 4, message(0, 4, started=False), conditions=[EVICTED]))
    assert gang.workers()[0].ended is not None


def test_the_workers_of_some_starts_alone() -> None:
    gang = WorkerSet(1, restarts=True, replaces=True)
    gang.relist([ended(0, 9, uid="first", attempt=0), ended(0, 0, uid="second", attempt=1)])
    assert [gang.workers(starts)[0].uid for starts in (range(1), range(1, 2), None)] == [
        "first",
        "second",
        "second",
    ]
    assert gang.workers(range(2, 3)) == {}


def test_a_jobsets_pod_that_goes_without_an_end_of_its_own_fails_its_job() -> None:
    """Evicted while its image came: no code says that another one would do."""
    body = pod(phase="Failed", prepare=waiting("PodInitializing"), conditions=[EVICTED])
    for restarts in (True, False):
        gang = WorkerSet(1, replaces=True, restarts=restarts)
        gang.event("ADDED", body)
        assert bool(gang.workers()) is restarts


def test_what_was_known_is_forgotten_with_each_event() -> None:
    gang = WorkerSet(2)
    gang.event("ADDED", pod(0, uid="a", prepare=running()))
    gang.workers()[5] = gang.workers()[0]  # what somebody does with a state is not the gang's
    assert list(gang.workers()) == [0]
    gang.event("ADDED", pod(1, uid="b", prepare=running()))
    assert list(gang.workers()) == [0, 1]
    gang.relist([])
    assert gang.workers()[0].ended is not None


def test_the_workers_of_an_attempt_that_is_over_are_still_known() -> None:
    gang = WorkerSet(2, replaces=True)
    gang.relist([pod(0, uid="a", phase="Running", worker=running()), ended(1, 143, uid="b")])
    assert gang.forget(["a", "b"]) == {"a", "b"}
    assert gang.forget(["b", "a"]) == frozenset()
    gang.event("ADDED", pod(0, uid="c"))
    former = gang.former(frozenset({"a", "b"}))
    assert (former[0].stage, former[1].stage) == ("running", "ended")
    gang.event("DELETED", pod(0, uid="a", phase="Running", worker=running()))
    former = gang.former(frozenset({"a", "b"}))
    assert former[0].ended is not None
    assert "deleted" in former[0].ended.why
    assert list(gang.workers()) == [0]
