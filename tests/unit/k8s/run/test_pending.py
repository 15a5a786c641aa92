"""Why workers do not start: a line for each, once per change."""

from __future__ import annotations

import calendar
from typing import Any

from tests.unit.kubernetes_objects import RUN, facts, pod, running, waiting, workers
from torchnet.k8s.run.event_texts import latest_event_texts
from torchnet.k8s.run.pending import PendingReasons, cold_start

BAD_IMAGE = waiting("ErrImagePull", 'failed to pull "nosuch:1": not found')
SANDBOX = (
    'Failed to create pod sandbox: rpc error: failed to setup network for sandbox "{}": plugin type="multus" failed: '
    "cannot find a network-attachment-definition (nosuch) in namespace (ml)"
)


def event(
    text: str, *, name: str, at: str = "2026-01-01T00:00:00Z", reason: str = "FailedCreatePodSandBox"
) -> dict[str, Any]:
    return {"reason": reason, "message": text, "involvedObject": {"name": name}, "lastTimestamp": at}


def test_an_error_is_told_once_and_again_when_it_changes() -> None:
    said = PendingReasons(facts(1))
    broken = workers(pod(0, prepare=BAD_IMAGE), nnodes=1)
    assert said.lines(broken, {}, "", 0.0) == []  # it may pass
    assert said.lines(broken, {}, "", 1.5) == [f'{RUN}-0: ErrImagePull: failed to pull "nosuch:1": not found']
    assert said.lines(broken, {}, "", 9.0) == []
    other = workers(pod(0, prepare=waiting("ImagePullBackOff", "Back-off")), nnodes=1)
    said.lines(other, {}, "", 10.0)
    assert said.lines(other, {}, "", 12.0) == [f"{RUN}-0: ImagePullBackOff: Back-off"]


def test_an_ordinary_start_needs_no_words() -> None:
    said = PendingReasons(facts(1))
    assert said.lines({}, {}, "", 0.0) == []
    assert said.lines(workers(pod(0), nnodes=1), {}, "", 2.0) == []
    assert said.lines(workers(pod(0, prepare=running()), nnodes=1), {}, "", 4.0) == []
    assert said.lines(workers(pod(0, phase="Running", worker=running()), nnodes=1), {}, "", 60.0) == []


def test_the_networks_own_words_are_shown_and_a_sandboxs_id_makes_no_new_reason() -> None:
    body = pod(0)
    name = body["metadata"]["name"]
    told = [latest_event_texts([event(SANDBOX.format(letter * 64), name=name)]) for letter in "ab"]
    assert told[0] == told[1]
    assert "network-attachment-definition (nosuch)" in told[0][name]
    said = PendingReasons(facts(1))
    said.lines(workers(body, nnodes=1), told[0], "", 0.0)
    assert (
        "cannot find a network-attachment-definition"
        in said.lines(workers(body, nnodes=1), told[1], "", 2.0)[0]
    )


def test_a_node_without_the_attachments_interface_is_named() -> None:
    """The text of ipvlan and macvlan 1.9.1, as Multus passes it on, and as a kubelet may quote it."""
    body = pod(0)
    name = body["metadata"]["name"]
    failed = (
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
        f'"{"a" * 64}": '
        'plugin type="multus-shim" name="multus-cni-network" failed (add): CmdAdd (shim): CNI request failed with '
        f'status 400: \'ContainerID:"{"a" * 64}" Netns:"/var/run/netns/cni-x" IfName:"eth0" ERRORED: configuring pod '
        '[ml/train-0] networking: [ml/train-0/u:backend-network]: error adding container to network "backend-network": '
        "failed to lookup master {0}ens5{0}: Link not found"
    )
    for quote in ('"', '\\"'):
        one = event(failed.format(quote), name=name) | {"source": {"component": "kubelet", "host": "node2"}}
        told = latest_event_texts([one])
        said = PendingReasons(facts(1))
        said.lines(workers(body, nnodes=1), told, "", 0.0)
        (line,) = said.lines(workers(body, nnodes=1), told, "", 2.0)
        assert (
            "FailedCreatePodSandBox: node2 has no interface ens5, the attachment's master; fix: --node-sel"
            in line
        )
    other = event(failed.format('"').replace("Link not found", "timed out"), name=name)
    assert "has no interface" not in latest_event_texts([other])[name]


def test_the_newest_event_counts_and_others_are_no_reason() -> None:
    found = latest_event_texts(
        [
            event("new", name="a", at="2026-01-01T00:00:09Z"),
            event("old", name="a", at="2026-01-01T00:00:01Z"),
            event("x", name="b", reason="Unhealthy"),
        ]
    )
    assert found == {"a": "FailedCreatePodSandBox: new"}


def test_an_earlier_run_of_the_name_tells_nothing() -> None:
    """Its events outlive it; the name is the same, the UID is not, nor the time."""
    old = event("exceeded quota", name="job", reason="FailedCreate", at="2026-01-01T00:00:01Z")
    old["involvedObject"]["uid"] = "of-the-earlier"
    assert latest_event_texts([old], {"job": "of-this-one"}) == {}
    assert latest_event_texts([old], {"job": "of-the-earlier"}) == {"job": "FailedCreate: exceeded quota"}
    made = float(calendar.timegm((2026, 1, 1, 0, 0, 2)))
    assert latest_event_texts([old], {}, since=made) == {}
    assert latest_event_texts([old], {}, since=made - 1.0) == {"job": "FailedCreate: exceeded quota"}
    bare = event("no UID", name="job", reason="FailedCreate", at="2026-01-01T00:00:05Z")
    assert latest_event_texts([bare], {"job": "of-this-one"}, since=made) == {"job": "FailedCreate: no UID"}


def test_a_job_that_may_make_no_pods_says_why() -> None:
    told = {RUN: 'FailedCreate: Error creating: pods "x" is forbidden: exceeded quota: none'}
    said = PendingReasons(facts(4))
    said.lines({}, told, "", 0.0)
    assert said.lines({}, told, "", 2.0) == [f"{RUN}: no pod yet: {told[RUN]}"]


def test_many_workers_with_one_reason_are_one_line() -> None:
    said = PendingReasons(facts(40))
    all_of_them = workers(*(pod(rank, prepare=BAD_IMAGE) for rank in range(40)), nnodes=40)
    said.lines(all_of_them, {}, "", 0.0)
    lines = said.lines(all_of_them, {}, "", 2.0)
    assert len(lines) == 1
    assert lines[0].startswith(f"{RUN}-0 and 39 more workers: ErrImagePull")


def test_a_queue_speaks_for_all() -> None:
    said = PendingReasons(facts(4))
    said.lines({}, {}, "queued: suspended", 0.0)
    assert said.lines({}, {}, "queued: suspended", 2.0) == [f"{RUN}: queued: suspended"]


def test_a_worker_without_a_pod_says_why_the_last_one_went() -> None:
    said = PendingReasons(facts(2))
    one = workers(pod(1, prepare=running()), nnodes=2)
    words = {0: f"{RUN}-0: net1: its address is taken"}  # as its agent says it
    assert said.lines(one, {}, "", 0.0, replaced=words) == []
    assert f"{RUN}-0: net1: its address is taken" in said.lines(one, {}, "", 6.0, replaced=words)
    assert said.reasons(one, {}, "")[f"{RUN}-0"] == "has no pod yet"
    none = said.reasons({}, {}, "", replaced=words)
    assert none == {f"{RUN}-0": "net1: its address is taken", f"{RUN}-1": "has no pod yet"}


def test_a_jobset_has_no_pods_where_its_job_cannot_make_them() -> None:
    said = PendingReasons(facts(2, jobset=True))
    told = {f"{RUN}-w-0": "FailedCreate: exceeded quota: none"}
    assert said.lines({}, told, "", 0.0) == []
    assert said.lines({}, told, "", 1.5) == [f"{RUN}: no pod yet: FailedCreate: exceeded quota: none"]


SANDBOX_READY = {"type": "PodReadyToStartContainers", "status": "True"}
UNSCHEDULED = {"status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}


def test_an_image_is_pulled_once_the_sandbox_is_there() -> None:
    body = pod(0, prepare=waiting("PodInitializing"), conditions=[SANDBOX_READY])
    assert cold_start(workers(body), {}) == "images"
    name = body["metadata"]["name"]
    without = workers(pod(0, prepare=waiting("PodInitializing")))  # an older cluster has no such condition
    assert cold_start(without, {}) == ""
    assert cold_start(without, {name: "Pulling: Pulling image"}) == "images"
    assert cold_start(without, {name: "FailedMount: no such volume"}) == ""
    broken = pod(0, prepare=BAD_IMAGE, conditions=[SANDBOX_READY])
    assert cold_start(workers(broken), {name: "Pulling: Pulling image"}) == "", "a pull that fails counts"
    assert cold_start(workers(pod(0, prepare=running(), conditions=[SANDBOX_READY])), {}) == ""


def test_a_node_is_added_for_a_pod_that_has_none() -> None:
    body = pod(0, scheduled=UNSCHEDULED)
    name = body["metadata"]["name"]
    assert cold_start(workers(body), {}) == "", "perhaps nothing will ever come"
    for reason in ("TriggeredScaleUp", "Nominated"):
        told = {name: f"{reason}: pod triggered scale-up"}
        assert cold_start(workers(body), told) == "new nodes"
        assert cold_start(workers(pod(0)), told) == "", "it has a node now"
        found = PendingReasons(facts(1)).reasons(workers(body, nnodes=1), told, "")
        assert found == {f"{RUN}-0": f"{reason}: pod triggered scale-up"}
