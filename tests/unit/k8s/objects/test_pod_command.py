"""What a worker runs: where its code is, what the agent is told, and texts that arrive as they were typed."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.rendered import (
    command_of,
    each_form,
    env_of,
    job,
    only,
    pod_template,
    render,
    spec_of,
    text_of,
)
from torchnet import constants
from torchnet.agent.command_line import parse
from torchnet.agent.command_line import spec_of as spec_of_flags
from torchnet.agent.spec import AgentSpec
from torchnet.errors import UsageError
from torchnet.k8s.objects.code_bundle import CodeBundle
from torchnet.k8s.objects.pod import literal
from torchnet.k8s.objects.run_objects import objects, pod_of
from torchnet.network.attachment import NetworkAttachment

# -- where the code is


def test_the_code_travels_in_a_configmap_that_cannot_change() -> None:
    found = render()
    config = only(found, "ConfigMap")
    assert config["immutable"] is True
    assert {key: base64.b64decode(value) for key, value in config["binaryData"].items()} == {
        "torchnet.zip": b"PK agent",
        "code.zip": b"PK code",
    }
    assert list(config["data"]) == ["spec.json"]
    spec = pod_template(found)["spec"]
    assert spec["containers"][0]["workingDir"] == constants.WORK_DIR
    assert "--code" in command_of(spec, "prepare")
    assert "--code" not in command_of(spec, "worker")


def test_code_in_the_image_or_on_a_volume_does_not_travel() -> None:
    there = CodeBundle(b"PK agent", None, "src/train.py")
    for code in ("image", "pvc:claim/a/b", "pvc:claim"):
        found = objects(job(code=code), "train", "ml", "t", there)
        assert list(only(found, "ConfigMap")["binaryData"]) == ["torchnet.zip"]
        worker = pod_template(found)["spec"]["containers"][0]
        assert "--code" not in command_of(pod_template(found)["spec"], "prepare")
        assert spec_of(found).command == ("src/train.py",)
        script = [mount for mount in worker["volumeMounts"] if mount["name"] == "script"]
        if code == "image":
            assert "workingDir" not in worker
            assert script == []
        else:
            assert worker["workingDir"] == script[0]["mountPath"] == "/code"
            assert script[0].get("subPath") == {"pvc:claim": None, "pvc:claim/a/b": "a/b"}[code]


# -- what the agent is told


@each_form
def test_an_agent_in_its_pod_knows_its_part(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the document, whatever its environment says; its own part from its flags."""
    more: dict[str, Any] = {"static_ips": ["10.0.0.1-10.0.0.9/24"]} if form == "pods" else {}
    found = render(workload=form, job_args=("--lr", "$(HOME)"), job_output={"measure": True}, **more)
    (tmp_path / "spec.json").write_text(only(found, "ConfigMap")["data"]["spec.json"])
    for name in ("TORCHNET_RUN_ID", "TORCHNET_NNODES", "TORCHNET_NODE_RANK", "TORCHNET_NPROC_PER_NODE"):
        monkeypatch.setenv(name, "9")
    for phase, name in (("prepare", "prepare"), ("work", "worker")):
        words = command_of(pod_of(found, 1)["spec"], name)
        assert words[:3] == ["python3", "/torchnet/torchnet.zip", "agent"]
        assert "--lr" not in words
        here = {"$(JOB_COMPLETION_INDEX)": "1", "/torchnet/spec.json": str(tmp_path / "spec.json")}
        known = spec_of_flags(parse([here.get(word, word) for word in words[3:]]), joins=False)
        own = {"node_rank": 1, "name": "train-1", "phase": phase, "state": "/torchnet-state"}
        assert known == replace(spec_of(found), python=sys.executable, **own)  # type: ignore[arg-type]
        assert (known.run_id, known.nnodes, known.runtime, known.measure) == ("train", 4, "kubernetes", True)
        assert known.command == ("train.py", "--lr", "$(HOME)")


def test_a_flag_overrides_the_document(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text(only(render(job_module=True), "ConfigMap")["data"]["spec.json"])
    words = ["--spec", str(path), "--grace", "7", "--attachment", "a/b@net1"]
    known = spec_of_flags(parse(words), joins=False)
    assert (known.grace, known.command, known.entry, known.nnodes) == (7, ("train.py",), "module", 4)
    assert known.attachments == (NetworkAttachment("a", "b", "net1"),)
    other = spec_of_flags(parse([*words, "other.py"]), joins=False)
    assert (other.command, other.entry) == (("other.py",), "script")
    here = spec_of_flags(parse([*words, "--address-source", "host:eth1"]), joins=False)
    assert (known.network, here.network) == ("multus-status", "host")
    path.write_text("[]")
    with pytest.raises(UsageError, match="--spec"):
        parse(words)


START = {
    "name": "TORCHNET_START",
    "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{constants.ATTEMPT_LABEL}']"}},
}
RANK0 = {
    "job": ["torchnet.alt/run=train", "batch.kubernetes.io/job-completion-index=0"],
    # Of a gang's two starts, whose pods are there side by side, the pod's own.
    "jobset": [
        *("torchnet.alt/run=train", "batch.kubernetes.io/job-completion-index=0"),
        "jobset.sigs.k8s.io/restart-attempt=$(TORCHNET_START)",
    ],
    "pods": ["torchnet.alt/run=train", "torchnet.alt/node-rank=0"],
}


@each_form
def test_rank_0_is_looked_for_by_labels_that_it_alone_has(form: str) -> None:
    found = render(workload=form, service_account="mine")
    spec = pod_template(found)["spec"]
    words = command_of(spec, "worker")
    said = words[words.index("--rank0-labels") + 1].split(",")
    assert said == RANK0[form]
    (worker,) = spec["containers"]
    # Kubernetes puts variables of the container's own into its command, and leaves others as they are.
    assert (START in worker["env"]) == (form == "jobset")
    for index in range(4):
        labels = pod_of(found, index)["metadata"]["labels"] | {constants.ATTEMPT_LABEL: "$(TORCHNET_START)"}
        has = [f"{key}={value}" in said for key, value in labels.items()]
        assert (has.count(True) == len(said)) == (index == 0)


# -- hostile texts are carried as data


HOSTILE = [
    "a\nb",
    ": {}",
    "\x1b[31m",
    "$(HOME)",
    "$$(HOME)",
    "$$",
    "$",
    "$(",
    "\u202e",
    "a # b",
    "- x",
    "{{.}}",
    "é😀",
    "",
]


def expanded(text: str, variables: dict[str, str]) -> str:
    """As k8s.io/kubernetes/third_party/forked/golang/expansion does it, from its documentation."""
    result, place = "", 0
    while place < len(text):
        if text[place] == "$" and place + 1 < len(text):
            following = text[place + 1]
            if following == "$":
                result, place = result + "$", place + 2
                continue
            end = text.find(")", place) if following == "(" else -1
            if end > 0:
                name = text[place + 2 : end]
                result, place = result + variables.get(name, f"$({name})"), end + 1
                continue
        result, place = result + text[place], place + 1
    return result


@given(st.text("$()A B", max_size=12) | st.text(max_size=20))
def test_kubernetes_leaves_texts_as_they_were_typed(text: str) -> None:
    assert expanded(literal(text), {"A": "expanded", "": "nothing", "A B": "x"}) == text


def test_the_expansion_is_one() -> None:
    assert expanded("x$(A)$$(A)$B", {"A": "1"}) == "x1$(A)$B"


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_hostile_values_are_carried_as_data(value: str) -> None:
    found = render(annotations={"x.example/y": value}, job_env={"V": value}, job_args=(value, "end"))
    document = next(yaml.safe_load_all(text_of(found[:1])))["data"]["spec.json"]
    assert AgentSpec.loads(document).command == ("train.py", value, "end")
    read = yaml.safe_load(text_of(found[-1:]))
    assert read["metadata"]["annotations"]["x.example/y"] == value
    spec = read["spec"]["template"]["spec"]
    assert expanded(env_of(spec)["V"], {"HOME": "x"}) == value
