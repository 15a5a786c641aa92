"""``--job-template FILE``: more fields of the Job or JobSet, below torchnet's own; ``--ttl``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.asked_kubernetes import wrong
from tests.unit.rendered import CODE, job, render
from torchnet.errors import UsageError
from torchnet.k8s.objects.job_template import load
from torchnet.k8s.objects.run_objects import objects, workload
from torchnet.yaml_io import SIZE_LIMIT

each_workload = pytest.mark.parametrize("form", ["job", "jobset"])


def merged(fields: dict[str, Any], form: str = "job", **more: Any) -> dict[str, Any]:
    return workload(render(fields=fields, workload=form, **more))


@each_workload
def test_more_fields_come_below_the_own_ones(form: str) -> None:
    fields: dict[str, Any] = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"x.example/y": "z"}},
        "spec": {"suspend": True, "managedBy": "x.example/y"},
    }
    plain, made = workload(render(workload=form)), merged(fields, form)
    assert made["spec"] == {**fields["spec"], **plain["spec"]}
    assert made["metadata"]["labels"] == {"team": "a", **plain["metadata"]["labels"]}
    assert made["metadata"]["annotations"] == {"x.example/y": "z", **plain["metadata"]["annotations"]}
    assert render(workload=form)[:-1] == render(fields=fields, workload=form)[:-1], "the workload alone"
    kinds = {"job": ("batch/v1", "Job"), "jobset": ("jobset.x-k8s.io/v1alpha2", "JobSet")}
    head = dict(zip(("apiVersion", "kind"), kinds[form], strict=True))
    assert merged({**head, "spec": {"suspend": True}}, form)["spec"]["suspend"] is True


def test_what_is_said_as_torchnet_says_it_is_no_conflict() -> None:
    own = workload(render())["spec"]
    fields = {"spec": {"completions": 4, "backoffLimitPerIndex": 0, "activeDeadlineSeconds": 5}}
    assert merged(fields)["spec"] == {**own, "activeDeadlineSeconds": 5}


@pytest.mark.parametrize(
    ("form", "fields", "said"),
    [
        ("job", {"spec": {"completions": 5}}, "spec.completions: --nnodes sets it"),
        ("job", {"spec": {"template": {"spec": {}}}}, "spec.template: --pod-template changes the pods"),
        *(
            ("job", {"spec": {name: 0}}, f"spec.{name}: torchnet depends on its own value")
            for name in (
                *("backoffLimit", "maxFailedIndexes", "successPolicy", "selector", "manualSelector"),
                *("podFailurePolicy", "podReplacementPolicy", "completionMode"),
            )
        ),
        ("jobset", {"spec": {"replicatedJobs": []}}, "spec.replicatedJobs"),
        ("jobset", {"spec": {"failurePolicy": {}}}, "spec.failurePolicy"),
        ("job", {"kind": "JobSet"}, "kind: must be Job"),
        ("job", {"apiVersion": "batch/v2"}, "apiVersion: must be batch/v1"),
        ("job", {"metadata": {"labels": {"torchnet.alt/run": "x"}}}, "metadata.labels: torchnet sets torchnet.alt/run"),
        ("job", {"metadata": {"annotations": {"torchnet/spec": "x"}}}, "annotations: torchnet sets torchnet/spec"),
        ("job", {"metadata": {"labels": {"app.kubernetes.io/instance": "x"}}}, "app.kubernetes.io/instance"),
    ],
    ids=str,
)  # fmt: skip
def test_what_torchnet_needs_is_refused(form: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        merged(fields, form)


def test_all_of_it_is_named_at_once() -> None:
    fields = {"kind": "JobSet", "spec": {"completions": 5, "parallelism": 3, "suspend": True}}
    with pytest.raises(UsageError) as caught:
        merged(fields)
    said = str(caught.value)
    assert said.count("\n  ") == 4, said  # three problems, and the fix
    assert "suspend" not in said


@each_workload
def test_a_ttl_is_the_workloads(form: str) -> None:
    assert "ttlSecondsAfterFinished" not in workload(render(workload=form))["spec"]
    spec = workload(render(workload=form, ttl="1h30m"))["spec"]
    assert spec["ttlSecondsAfterFinished"] == 5400
    if form == "jobset":  # the JobSet's controller would find its Job missing
        assert "ttlSecondsAfterFinished" not in spec["replicatedJobs"][0]["template"]["spec"]
    assert merged({"spec": {"ttlSecondsAfterFinished": 60}}, form)["spec"]["ttlSecondsAfterFinished"] == 60
    with pytest.raises(UsageError, match="--ttl sets it"):
        merged({"spec": {"ttlSecondsAfterFinished": 60}}, form, ttl="2min")


@pytest.mark.parametrize(
    "more",
    [{"kubernetes.kind": "pods"}, {"kubernetes.static_ips": ["10.0.0.1-10.0.0.9/24"]}],
    ids=str,
)
def test_plain_pods_have_neither(tmp_path: Path, more: dict[str, object]) -> None:
    for name, value in (("ttl", "1h"), ("job_template", "job.yaml")):
        (problem,) = wrong(tmp_path, {**more, f"kubernetes.{name}": value}).problems
        assert problem.path == f"kubernetes.{name}"
        assert problem.what.startswith("needs --kind job or jobset: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "must be a map"),
        ("spec: []\n", "spec must be a map"),
        ("status: {}\n", "unknown field status"),
        ("kind: 5\n", "kind must be text"),
        ("metadata: {name: x}\n", "metadata.name cannot be set"),
        ("metadata: {labels: {a: 1}}\n", "metadata.labels must be a map of texts"),
        ("metadata: {labels: a}\n", "metadata.labels must be a map of texts"),
        ("spec: {a: [}\n", "line 1"),
        ("a: &a 1\nb: *a\n", "aliases"),
        ("#" * (SIZE_LIMIT + 1), "bytes, the limit"),
    ],
)
def test_a_file_that_is_no_template_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        load(tmp_path / "job.yaml")
    assert "--job-template" in str(caught.value)
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path / "missing.yaml")


def test_a_file_that_is_one(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("apiVersion: batch/v1\nkind: Job\nspec: {suspend: true}\n")
    assert load(tmp_path / "job.yaml")["spec"] == {"suspend": True}
    (tmp_path / "job.yaml").write_text("{}\n")
    assert load(tmp_path / "job.yaml") == {}


def test_no_template_changes_nothing() -> None:
    assert objects(job(), "train", "ml", "t", CODE, None, {}) == objects(job(), "train", "ml", "t", CODE)
