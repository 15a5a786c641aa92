"""What Kubernetes is told of a job: every object, in each of the three forms; the workloads."""

from __future__ import annotations

import base64
import copy
import json
import random
from typing import Any

import pytest
import yaml

from tests.unit.rendered import (
    CODE,
    FORMS,
    command_of,
    each_form,
    env_of,
    job,
    pod_template,
    render,
    spec_of,
    text_of,
)
from torchnet import constants
from torchnet.errors import UsageError
from torchnet.k8s.objects.code_bundle import CodeBundle
from torchnet.k8s.objects.run_objects import objects, pod_of, workload


@each_form
def test_the_same_bytes_each_time(form: str) -> None:
    more: dict[str, Any] = {
        "labels": {"b": "1", "a": "2"},
        "node_selector": {"y": "1", "x": "2"},
        "job_env": {"B": "1", "A": "2"},
    }
    turned: dict[str, Any] = {key: dict(reversed(value.items())) for key, value in more.items()}
    assert text_of(render(workload=form, **more)) == text_of(render(workload=form, **turned))


@each_form
def test_what_is_written_is_read_back(form: str) -> None:
    found = render(workload=form)
    assert list(yaml.safe_load_all(text_of(found))) == found


@pytest.mark.parametrize("form", ["job", "jobset"])
def test_objects_do_not_grow_with_the_workers(form: str) -> None:
    few, many = (len(text_of(render(nnodes, workload=form))) for nnodes in (4, 10_000))
    assert many - few < 40


def test_of_plain_pods_each_has_one_size() -> None:
    sizes = [len(text_of([body])) for body in render(200, workload="pods") if body["kind"] == "Pod"]
    assert len(sizes) == 200
    assert max(sizes[1:]) - min(sizes[1:]) < 20


@each_form
def test_the_order_of_creation(form: str) -> None:
    kinds = [body["kind"] for body in render(2, workload=form)]
    service = [] if form == "jobset" else ["Service"]
    before = ["ConfigMap", "Secret", *service, "NetworkPolicy"]
    assert kinds == before + {"job": ["Job"], "jobset": ["JobSet"], "pods": ["Pod", "Pod"]}[form]


@each_form
def test_one_label_and_the_users_own_are_on_everything(form: str) -> None:
    found = render(
        workload=form, labels={"team": "a"}, annotations={"x.example/y": "z"}, multi_network_policy=True
    )
    for body in (*found, pod_of(found, 1)):
        labels = body["metadata"]["labels"]
        assert labels["torchnet.alt/run"] == labels["app.kubernetes.io/instance"] == "train"
        assert {"team": "a", **constants.COMMON_LABELS}.items() <= labels.items()
        assert body["metadata"]["annotations"]["x.example/y"] == "z"
        assert body["metadata"]["namespace"] == "ml"
    template = pod_template(found)["metadata"]
    assert (template["labels"]["team"], template["annotations"]["x.example/y"]) == ("a", "z")


@each_form
def test_what_each_worker_is_called(form: str) -> None:
    found = render(3, workload=form)
    made = pod_of(found, 2)
    hostname = made["spec"].get("hostname", made["metadata"]["name"])
    assert hostname == {"job": "train-2", "jobset": "train-w-0-2", "pods": "train-2"}[form]
    label = constants.NODE_RANK_LABEL if form == "pods" else constants.INDEX_LABEL
    assert made["metadata"]["labels"][label] == "2"
    for phase in ("prepare", "worker"):
        assert env_of(made["spec"], phase)["JOB_COMPLETION_INDEX"] == "2"
        words = command_of(made["spec"], phase)
        assert words[words.index("--node-rank") + 1] == "$(JOB_COMPLETION_INDEX)"
    assert json.loads(workload(found)["metadata"]["annotations"][constants.SPEC_ANNOTATION]) == {
        "nnodes": 3,
        "nproc_per_node": 1,
        "network": "multus-status",
        "version": "0.1.0",
    }


def test_a_dry_runs_pod_leaves_the_template_as_it_was() -> None:
    for form in FORMS:
        found = render(workload=form)
        before = copy.deepcopy(found)
        pod_of(found, 3)
        assert found == before


# -- the workloads


# Before the start: a script's code of this number is not its container's (torchnet.agent.worker).
REPLACED = [
    {"action": "Ignore", "onExitCodes": {"containerName": name, "operator": "In", "values": [75]}}
    for name in ("prepare", "worker")
]


def test_a_failed_worker_does_not_take_the_others_along() -> None:
    spec = workload(render(7))["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 7, 7)
    assert spec["backoffLimitPerIndex"] == 0
    assert "backoffLimit" not in spec
    assert spec["podReplacementPolicy"] == "Failed"
    *replaced, trained, evicted = spec["podFailurePolicy"]["rules"]
    # Another pod could not take part in what the others have begun.
    assert trained == {
        "action": "FailIndex",
        "onExitCodes": {"containerName": "worker", "operator": "NotIn", "values": [0]},
    }
    assert evicted == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert replaced == REPLACED
    assert "activeDeadlineSeconds" not in spec


@each_form
def test_a_worker_knows_how_often_it_was_replaced_where_it_can_be(form: str) -> None:
    found = env_of(pod_template(render(workload=form))["spec"], "prepare")
    if form == "pods":
        assert "TORCHNET_REPLACED" not in found
    else:
        field = found["TORCHNET_REPLACED"]["fieldRef"]["fieldPath"]
        assert field == "metadata.annotations['batch.kubernetes.io/job-index-ignored-failure-count']"


def test_a_jobset_restarts_the_gang_and_spells_out_its_network() -> None:
    found = render(workload="jobset", job_run={"max_restarts": 3})
    spec = workload(found)["spec"]
    assert spec["failurePolicy"] == {"maxRestarts": 0, "restartStrategy": "BlockingRecreate"}
    assert spec["network"] == {"enableDNSHostnames": True, "publishNotReadyAddresses": True}
    job_spec = spec["replicatedJobs"][0]["template"]["spec"]
    assert job_spec["backoffLimitPerIndex"] == 0
    *replaced, trained, evicted = job_spec["podFailurePolicy"]["rules"]
    assert (trained["action"], trained["onExitCodes"]["containerName"]) == ("FailIndex", "worker")
    # A pod that was stopped before the start is replaced; one that vanished may have trained.
    assert replaced == REPLACED
    assert (evicted["action"], evicted["onPodConditions"][0]["type"]) == ("FailJob", "DisruptionTarget")
    assert spec_of(found).max_restarts == 3, "the agents', as with a Job"
    field = env_of(pod_template(found)["spec"])["TORCHNET_START"]["fieldRef"]["fieldPath"]
    assert field == "metadata.labels['jobset.sigs.k8s.io/restart-attempt']"
    assert spec_of(render(job_run={"max_restarts": 3})).max_restarts == 3


MIB = 1 << 20


def test_arguments_for_which_a_configmap_has_no_room_are_refused() -> None:
    nearly = CodeBundle(b"x" * (MIB - 10_000), b"PK code", "train.py")
    assert spec_of(render(travels=nearly)).command == ("train.py",)
    with pytest.raises(UsageError, match="arguments, with the agent, take"):
        render(travels=nearly, job_args=("x" * 10_000,))


@each_form
def test_code_for_which_one_configmap_has_no_room_is_in_several(form: str) -> None:
    archive = random.Random(1).randbytes(3 * MIB)
    for size, count in ((MIB - 10_000, 0), (MIB - 100, 1), (MIB + 1, 2), (3 * MIB, 3)):
        found = render(travels=CodeBundle(b"PK agent", archive[:size], "train.py"), workload=form)
        first, *more = [one for one in found if one["kind"] == "ConfigMap"]
        names = [one["metadata"]["name"] for one in (first, *more)]
        assert names == ["train-code", *(f"train-code-{number}" for number in range(1, count + 1))]
        files = first["binaryData"] | {key: data for one in more for key, data in one["binaryData"].items()}
        contents = {name: base64.b64decode(data) for name, data in files.items()}
        assert contents.pop("torchnet.zip") == b"PK agent"
        assert sorted(contents) == ([f"code.zip.{number}" for number in range(1, count + 1)] or ["code.zip"])
        assert b"".join(contents[name] for name in sorted(contents)) == archive[:size]
        assert max(map(len, contents.values())) <= MIB
        assert all(one["immutable"] for one in (first, *more))
        volume = next(one for one in pod_template(found)["spec"]["volumes"] if one["name"] == "code")
        if count:
            sources = [source["configMap"]["name"] for source in volume["projected"]["sources"]]
            assert sources == names
        else:
            assert volume["configMap"] == {"name": "train-code"}
        words = command_of(pod_template(found)["spec"], "prepare")
        assert words[words.index("--code") + 1] == "/torchnet/code.zip"


def test_names_without_room_are_refused() -> None:
    for run_id, form in (("a" * 62, "job"), ("a" * 52, "jobset"), ("1a", "jobset")):
        with pytest.raises(UsageError, match="run_id") as caught:
            objects(job(workload=form), run_id, "ml", "t", CODE)
        assert "--run-id" in str(caught.value)
