"""What Kueue is told of a job, in each of the three forms."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.rendered import FORMS, each_form, pod_template, render, spec_of, text_of
from torchnet.constants import NODE_RANK_LABEL
from torchnet.k8s.objects.run_objects import prepare, workload

KUEUE = "kueue.x-k8s.io"


def keys(metadata: dict[str, Any]) -> dict[str, str]:
    """Kueue's labels and annotations, without its prefix."""
    both = metadata.get("labels", {}) | metadata.get("annotations", {})
    return {key.partition("/")[2]: value for key, value in both.items() if key.startswith(KUEUE)}


@pytest.mark.parametrize("form", ["job", "jobset"])
def test_a_queued_workload_is_suspended_from_the_start(form: str) -> None:
    """Also where Kueue's webhook does not do it."""
    found = workload(render(workload=form, queue="team-a", workload_priority="high"))
    assert keys(found["metadata"]) == {"queue-name": "team-a", "priority-class": "high"}
    assert found["spec"]["suspend"] is True


def test_plain_pods_are_one_group_that_a_failed_pod_ends() -> None:
    pods = [body for body in render(workload="pods", queue="team-a") if body["kind"] == "Pod"]
    group = {"pod-group-name": "train", "pod-group-total-count": "4", "retriable-in-group": "false"}
    assert [keys(pod["metadata"]) for pod in pods] == [{"queue-name": "team-a", **group}] * 4


@each_form
def test_without_a_queue_there_is_nothing_of_kueue(form: str) -> None:
    text = text_of(render(workload=form))
    assert KUEUE not in text
    assert "suspend" not in text


@pytest.mark.parametrize(
    ("topology", "told"),
    [
        ("required:kubernetes.io/hostname", {"podset-required-topology": "kubernetes.io/hostname"}),
        ("preferred:rack", {"podset-preferred-topology": "rack"}),
        ("unconstrained", {"podset-unconstrained-topology": "true"}),
    ],
)
@each_form
def test_the_place_in_the_topology_is_an_annotation_of_the_pods(
    form: str, topology: str, told: dict[str, str]
) -> None:
    found = keys(pod_template(render(workload=form, queue="q", topology=topology))["metadata"])
    assert {key: value for key, value in found.items() if key.startswith("podset-")} == told
    ranks = {"pod-group-pod-index-label": NODE_RANK_LABEL} if form == "pods" else {}
    assert {key: value for key, value in found.items() if "index" in key} == ranks


@each_form
def test_a_queued_worker_requests_only_what_most_queues_cover(form: str) -> None:
    """Kueue does not admit a resource that its ClusterQueue does not cover."""
    cases: tuple[tuple[dict[str, Any], bool], ...] = (
        ({}, True),
        ({"queue": "q"}, False),
        ({"queue": "q", "ephemeral_storage": "9Gi"}, True),
    )
    for more, requested in cases:
        spec = pod_template(render(workload=form, **more))["spec"]
        for container in (*spec["initContainers"], *spec["containers"]):
            for kind in ("requests", "limits"):
                assert ("ephemeral-storage" in container["resources"][kind]) is requested
        (work,) = (one["emptyDir"] for one in spec["volumes"] if one["name"] == "work")
        assert work["sizeLimit"], "the limit of the local disk stays"


def rules(**group: Any) -> list[dict[str, Any]]:
    spec = workload(render(workload="jobset", **group))["spec"]
    found: list[dict[str, Any]] = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    return found


def test_a_jobset_tells_the_clusters_failures_from_the_scripts() -> None:
    """By the reason of its failed Job: a rule with FailJob gives it PodFailurePolicy."""
    found = render(workload="jobset", max_infra_restarts=3, job_run={"max_restarts": 2})
    policy = workload(found)["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    (rule,) = policy["rules"]
    assert rule["action"] == "FailJobSet"
    assert "FailedIndexes" in rule["onJobFailureReasons"]
    assert "PodFailurePolicy" not in rule["onJobFailureReasons"]
    assert spec_of(found).max_restarts == 2, "the agents', inside of each start"
    # An evicted worker has an exit code: what took it away goes first, unless it has not started.
    *replaced, disrupted, told, trained = rules(max_infra_restarts=1)
    assert [rule["action"] for rule in replaced] == ["Ignore", "Ignore"]
    assert [rule["action"] for rule in (disrupted, told, trained)] == ["FailJob", "FailJob", "FailIndex"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert told["onExitCodes"] == {"containerName": "worker", "operator": "In", "values": [4, 70]}, (
        "143 is a suspension's"
    )


def test_without_restarts_no_failure_deletes_the_pods_of_others() -> None:
    assert [rule["action"] for rule in rules()] == ["Ignore", "Ignore", "FailIndex", "FailJob"]
    assert "rules" not in workload(render(workload="jobset"))["spec"]["failurePolicy"]


@pytest.mark.parametrize("form", FORMS)
def test_whoever_queues_plain_pods_is_warned(form: str, tmp_path: Any) -> None:
    from tests.unit.rendered import job

    (tmp_path / "train.py").write_text("")
    for queue in (None, "team-a"):
        warnings = prepare(job(workload=form, queue=queue), str(tmp_path), "ml", {}).warnings
        told = [line for line in warnings if "plain pods" in line]
        assert bool(told) is (form == "pods" and queue is not None)
