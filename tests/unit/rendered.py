"""Jobs for Kubernetes and their objects, for the tests of rendering."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.pod_security import containers
from torchnet.agent.spec import AgentSpec
from torchnet.config.job_spec import JobSpec
from torchnet.k8s.objects.code_bundle import CodeBundle
from torchnet.k8s.objects.run_objects import objects
from torchnet.yaml_io import Manifest, as_yaml

CODE = CodeBundle(b"PK agent", b"PK code", "train.py")
FORMS = ("job", "jobset", "pods")
each_form = pytest.mark.parametrize("form", FORMS)


def job(nnodes: int = 4, networks: tuple[str, ...] = ("backend-network",), **group: Any) -> JobSpec:
    """A JobSpec; ``group`` are fields of its part ``kubernetes``, and those of the job itself by ``job_NAME``."""
    whole: dict[str, Any] = {name[4:]: group.pop(name) for name in list(group) if name.startswith("job_")}
    data = {"on": "kubernetes", "script": "train.py", "nnodes": nnodes, "network": {"networks": networks}}
    return JobSpec.model_validate(data | whole | {"kubernetes": {"image": "r.example/pytorch:2.15"} | group})


def render(
    nnodes: int = 4,
    travels: CodeBundle = CODE,
    patch: dict[str, Any] | None = None,
    fields: dict[str, Any] | None = None,
    **more: Any,
) -> list[dict[str, Any]]:
    """The objects of `job`, called ``train`` in namespace ``ml``; ``patch`` is of the pods, ``fields`` of the Job."""
    return objects(job(nnodes, **more), "train", "ml", "the secret", travels, patch, fields)


def only(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one object of ``kind``."""
    (one,) = [body for body in found if body["kind"] == kind]
    return one


def pod_template(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The template of a Job's or JobSet's pods, or the first Pod."""
    last = found[-1]
    if last["kind"] == "JobSet":
        last = last["spec"]["replicatedJobs"][0]["template"]
    template: dict[str, Any] = (
        last["spec"]["template"]
        if "template" in last["spec"]
        else next(one for one in found if one["kind"] == "Pod")
    )
    return template


def text_of(found: list[dict[str, Any]]) -> str:
    return as_yaml([Manifest(body) for body in found])


def command_of(spec: dict[str, Any], name: str) -> list[str]:
    command: list[str] = next(one for one in containers(spec) if one["name"] == name)["command"]
    return command


def spec_of(found: list[dict[str, Any]]) -> AgentSpec:
    """What the agents read in their pods."""
    return AgentSpec.loads(only(found, "ConfigMap")["data"]["spec.json"])


def env_of(spec: dict[str, Any], name: str = "worker") -> dict[str, Any]:
    container = next(one for one in containers(spec) if one["name"] == name)
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
