"""A worker's pod: its security, resources, flags and mounts, and what the user's template changes of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pod_security import containers, restricted
from tests.unit.rendered import FORMS, env_of, pod_template, render
from tests.unit.rendered import spec_of as agent_spec
from torchnet import constants
from torchnet.config.k8s_syntax import ANNOTATIONS_FREE, ANNOTATIONS_LIMIT
from torchnet.config.settings import BY_PATH
from torchnet.errors import UsageError
from torchnet.k8s.objects.run_objects import pod_of

FIXED: dict[str, Any] = {"static_ips": ["10.0.0.1-10.0.0.9/24"]}


each_kind = pytest.mark.parametrize(
    "more",
    [*({"workload": form} | one for form in FORMS for one in ({}, {"code": "pvc:a/b"}, {"gpus": 8})), FIXED],
    ids=str,
)


def spec_of(more: dict[str, Any]) -> dict[str, Any]:
    usual: dict[str, Any] = {"volumes": ["pvc:a:/a", "configmap:c:/c", "emptydir:/e"], "secrets": ["s:/s"]}
    found = render(**usual | more)
    spec: dict[str, Any] = pod_of(found)["spec"]
    return spec


@each_kind
def test_pod_security_restricted_holds(more: dict[str, Any]) -> None:
    assert list(restricted(spec_of(more))) == []


@each_kind
def test_every_mount_has_its_volume_and_every_volume_a_mount(more: dict[str, Any]) -> None:
    spec = spec_of(more)
    mounted = {mount["name"] for one in containers(spec) for mount in one["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_check_of_pod_security_finds_what_is_forbidden() -> None:
    spec = pod_template(render(run_as="0", rdma=True, volumes=["hostpath:/dev:/d"]))["spec"]
    found = " ".join(restricted(spec))
    for part in ("hostPath", "IPC_LOCK", "worker is root", "prepare may be root", "worker keeps"):
        assert part in found


def test_root_has_the_home_of_the_image_and_no_capability() -> None:
    spec = pod_template(render(run_as="0"))["spec"]
    assert spec["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert all(one["securityContext"]["capabilities"] == {"drop": ["ALL"]} for one in containers(spec))
    assert "HOME" not in env_of(spec)


@pytest.mark.parametrize(("run_as", "escalates"), [("0", False), (None, True), ("namespace", True)])
def test_rdma_adds_one_capability_to_the_worker_whoever_it_is(run_as: str | None, escalates: bool) -> None:
    """Only with escalation does a file capability take effect, which users other than root need."""
    plain, rdma = (pod_template(render(run_as=run_as, rdma=on))["spec"] for on in (False, True))
    assert rdma["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": escalates,
        "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]},
    }
    assert rdma["initContainers"] == plain["initContainers"]
    assert rdma["securityContext"] == plain["securityContext"]
    assert env_of(rdma) == env_of(plain)


def test_the_user_is_the_same_for_all_containers_and_owns_the_volumes() -> None:
    spec = pod_template(render(run_as="5001:0", fs_group=7))["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 5001,
        "runAsGroup": 0,
        "fsGroup": 7,
        "seccompProfile": {"type": "RuntimeDefault"},
        "fsGroupChangePolicy": "OnRootMismatch",
    }
    assert list(restricted(spec)) == []
    assert env_of(spec)["HOME"] == constants.WORK_DIR


def test_the_namespace_assigns_what_is_left_out_and_whoever_it_is_reads_the_secrets() -> None:
    """Their files belong to root and to fsGroup, which nobody may set."""
    spec = spec_of({"run_as": "namespace", "volumes": ["secret:s:/t"]})
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & spec["securityContext"].keys()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert list(restricted(spec)) == []
    assert env_of(spec)["HOME"] == constants.WORK_DIR
    assert env_of(spec)["USER"] == "torchnet"
    assert secret_modes(spec) == {0o444}
    assert secret_modes(spec_of({"run_as": "namespace", "fs_group": 7})) == {0o440}
    assert secret_modes(spec_of({})) == secret_modes(spec_of({"run_as": "0"})) == {0o440}


def secret_modes(spec: dict[str, Any]) -> set[int]:
    sources = [one.get("secret") or one.get("projected") for one in spec["volumes"]]
    return {one["defaultMode"] for one in sources if one}


@pytest.mark.parametrize(
    ("more", "requests", "limits"),
    [
        ({}, ("1", "2Gi"), ("1", "2Gi")),
        ({"job_nproc_per_node": 3}, ("3", "6Gi"), ("3", "6Gi")),
        ({"gpus": 8}, ("32", "128Gi"), ("32", "128Gi")),
        ({"cpus": "500m:2", "memory": "1Gi:4Gi"}, ("500m", "1Gi"), ("2", "4Gi")),
    ],
    ids=str,
)
def test_every_container_has_requests_and_limits(more: dict[str, Any], requests: Any, limits: Any) -> None:
    for one in containers(pod_template(render(**more))["spec"]):
        for what, expected in (("requests", requests), ("limits", limits)):
            assert (one["resources"][what]["cpu"], one["resources"][what]["memory"]) == expected
        gpus = one["resources"]["limits"].get("nvidia.com/gpu")
        assert gpus == (str(more["gpus"]) if "gpus" in more and one["name"] == "worker" else None)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, 1),
        ({"gpus": 4}, 4),
        ({"gpus": 4, "job_nproc_per_node": 2}, 2),
        ({"gpus": 4, "job_nproc_per_node": "gpu"}, 4),
        ({"cpus": "6:8", "job_nproc_per_node": "cpu"}, 6),
        ({"cpus": "500m", "job_nproc_per_node": "cpu"}, 1),
        ({"gpus": 2, "cpus": "6", "job_nproc_per_node": "auto"}, 2),
        ({"cpus": "6", "job_nproc_per_node": "auto"}, 6),
    ],
    ids=str,
)
def test_how_many_processes_a_worker_has(more: dict[str, Any], expected: int) -> None:
    assert agent_spec(render(**more)).nproc_per_node == expected


def test_the_flags_in_common_reach_the_pod() -> None:
    found = render(
        volumes=["d=pvc:claim:/data:ro", "emptydir:1Gi:/scratch"],
        secrets=["keys", "files:/etc/files"],
        node_selector={"zone": "a"},
        tolerations=["gpu=yes:NoSchedule", "spot"],
        priority_class="high",
        image_pull_secrets=["pull"],
        shm_size="8Gi",
        job_env={"A": "1"},
        job_run={"grace": 2.5, "timeout": 3600, "start_timeout": 60},
    )
    spec = pod_template(found)["spec"]
    worker = spec["containers"][0]
    mounts = {mount["mountPath"]: mount for mount in worker["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert mounts["/data"] == {"name": "d", "mountPath": "/data", "readOnly": True}
    assert volumes["d"]["persistentVolumeClaim"] == {"claimName": "claim", "readOnly": True}
    assert volumes[mounts["/scratch"]["name"]]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert volumes[mounts["/etc/files"]["name"]]["secret"]["secretName"] == "files"
    assert worker["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert spec["nodeSelector"] == {"zone": "a"}
    assert spec["tolerations"] == [
        {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists"},
    ]
    assert (spec["priorityClassName"], spec["imagePullSecrets"]) == ("high", [{"name": "pull"}])
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert env_of(spec)["A"] == "1"
    assert "A" not in env_of(spec, "prepare")
    assert env_of(spec)["TORCHNET_HOST"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert spec["terminationGracePeriodSeconds"] >= 3 + 5
    assert spec["activeDeadlineSeconds"] >= 3660


@pytest.mark.parametrize(("spread", "else_"), [("soft", "ScheduleAnyway"), ("hard", "DoNotSchedule")])
def test_workers_are_spread_as_the_flags_help_says(spread: str, else_: str) -> None:
    """Evenly, so that four workers have a place on two nodes; not one on each node."""
    assert pod_template(render(spread=spread))["spec"]["topologySpreadConstraints"] == [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": else_,
            "labelSelector": {"matchLabels": {"torchnet.alt/run": "train"}},
        }
    ]
    assert BY_PATH["kubernetes.spread"].help.startswith("Spread the workers over the nodes: soft")
    assert "affinity" not in pod_template(render(spread=spread))["spec"]
    nothing = pod_template(render(spread="none"))["spec"]
    assert not {"topologySpreadConstraints", "affinity"} & nothing.keys()


def test_workers_with_gpus_are_packed_unless_said_otherwise() -> None:
    """Eight workers of one GPU on eight nodes leave no node for a job that needs all GPUs of one."""
    packed = pod_template(render(spread="pack"))["spec"]
    assert "topologySpreadConstraints" not in packed
    (preferred,) = packed["affinity"]["podAffinity"].pop("preferredDuringSchedulingIgnoredDuringExecution")
    assert packed["affinity"] == {"podAffinity": {}}, "none of it is required"
    assert preferred["podAffinityTerm"] == {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"torchnet.alt/run": "train"}},
    }
    given: list[tuple[dict[str, Any], str]] = [
        ({}, "soft"),
        ({"gpus": 1}, "pack"),
        ({"gpus": 8}, "pack"),
        ({"gpus": 1, "spread": "hard"}, "hard"),
        ({"gpus": 1, "spread": "none"}, "none"),
    ]
    for more, expected in given:
        same = pod_template(render(**{**more, "spread": expected}))["spec"]
        assert pod_template(render(**more))["spec"] == same


STORED = "ephemeral-storage"


@pytest.mark.parametrize(
    ("more", "request_", "limit"),
    [
        ({}, "1Gi", "50Gi"),
        ({"ephemeral_storage": "20Gi"}, "20Gi", "20Gi"),
        ({"ephemeral_storage": "1Gi:200Gi", "volumes": ["emptydir:1Ti:/e"]}, "1Gi", "200Gi"),
        ({"volumes": ["emptydir:/e", "pvc:a:/a"]}, "1Gi", "50Gi"),
        # The kubelet counts them with the rest.
        ({"volumes": ["emptydir:10Gi:/e", "emptydir:1500M:/f"]}, "1Gi", str((60 << 30) + 1_500_000_000)),
    ],
    ids=str,
)
def test_local_disk_is_requested_and_has_a_limit(more: dict[str, Any], request_: str, limit: str) -> None:
    spec = pod_template(render(**more))["spec"]
    for one in containers(spec):
        resources = one["resources"]
        assert (resources["requests"][STORED], resources["limits"][STORED]) == (request_, limit)
    volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume}
    assert volumes["work"] == {"sizeLimit": limit}


@pytest.mark.parametrize(
    ("more", "size"),
    [
        ({}, "2Gi"),
        ({"memory": "1Gi:4Gi"}, "4Gi"),
        ({"gpus": 2}, "32Gi"),
        ({"shm_size": "8Gi", "memory": "16Gi"}, "8Gi"),
    ],
    ids=str,
)
def test_no_volume_of_torchnets_grows_without_bounds(more: dict[str, Any], size: str) -> None:
    volumes = pod_template(render(**more))["spec"]["volumes"]
    sizes = {
        volume["name"]: volume["emptyDir"].get("sizeLimit") for volume in volumes if "emptyDir" in volume
    }
    assert set(sizes) == {"work", "state", "shm"}
    assert sizes["shm"] == size
    assert all(sizes.values())


def test_a_container_has_started_once_its_script_has(tmp_path: Path) -> None:
    """The probe's command needs only Python, and blocks until a process opens the pipe for writing."""
    spec = pod_template(render())["spec"]
    assert "startupProbe" not in spec["initContainers"][0]
    probe = spec["containers"][0]["startupProbe"]
    # --start-timeout ends workers that wait for others, and no kubelet.
    assert probe["timeoutSeconds"] == probe["failureThreshold"] == 24 * 3600
    path = tmp_path / "started"
    os.mkfifo(path)
    python, *words = [word.replace("/torchnet-state/started", str(path)) for word in probe["exec"]["command"]]
    assert python == "python3"
    with subprocess.Popen([sys.executable, *words]) as waits:
        with pytest.raises(subprocess.TimeoutExpired):
            waits.wait(0.3)
        with path.open("w"):
            assert waits.wait(20) == 0


def test_hosts_are_there_without_root() -> None:
    spec = pod_template(render())["spec"]
    worker = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert worker["/etc/hosts"] == {
        "name": "state",
        "mountPath": "/etc/hosts",
        "subPath": "hosts",
    }
    assert "/etc/hosts" not in {mount["mountPath"] for mount in spec["initContainers"][0]["volumeMounts"]}


@pytest.mark.parametrize("more", [{}, {"code": "pvc:a/b"}], ids=str)
def test_a_volume_cannot_stand_where_a_worker_has_something(more: dict[str, Any]) -> None:
    paths = {
        mount["mountPath"]
        for one in containers(pod_template(render(**more))["spec"])
        for mount in one["volumeMounts"]
    }
    assert len(paths) >= 7
    for path in paths:
        for place in (path, f"{path}/x", f"/{path}/.//"):
            with pytest.raises(ValueError, match="which torchnet or the system uses"):
                render(volumes=[f"emptydir:{place}"])
            with pytest.raises(ValueError, match="which torchnet or the system uses"):
                render(secrets=[f"s:{place}"])
        render(volumes=[f"emptydir:{path}-x"])


# -- the user's template


def test_a_template_is_merged_into_every_worker() -> None:
    patch = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "hostname": None,
            "dnsPolicy": "None",
            "containers": [
                {
                    "name": "worker",
                    "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
                    "resources": {"limits": {"cpu": "8"}},
                },
                {"name": "sidecar", "image": "s:1"},
            ],
        },
    }
    for form in FORMS:
        for index in (0, 3):
            made = pod_of(render(workload=form, patch=patch), index)
            assert made["metadata"]["labels"]["a"] == "b"
            assert made["spec"]["dnsPolicy"] == "None"
            env = env_of(made["spec"])
            assert (env["NCCL_DEBUG"], env["JOB_COMPLETION_INDEX"]) == ("INFO", str(index))
            assert "sidecar" in [one["name"] for one in made["spec"]["containers"]]


def test_a_templates_annotations_count_with_the_others() -> None:
    """The status of a pod whose annotations are full finds no room, and it never starts."""
    most = ANNOTATIONS_LIMIT - ANNOTATIONS_FREE
    more: dict[str, Any] = {"annotations": {"a": "x" * (most - 1002)}}
    render(**more, patch={"metadata": {"annotations": {"b": "é" * 500}, "labels": {"c": "d"}}})
    render(annotations={"a": "x" * (most - 1)}, patch={"metadata": {"labels": {"c": "d"}}})
    with pytest.raises(UsageError, match=f"{most + 1} bytes.*{most}"):
        render(**more, patch={"metadata": {"annotations": {"b": "é" * 500 + "x"}}})


@pytest.mark.parametrize(
    ("patch", "part"),
    [
        ({"metadata": {"labels": {"torchnet.alt/run": "x"}}}, "torchnet.alt/run"),
        ({"metadata": {"labels": None}}, "torchnet.alt/run"),
        ({"metadata": {"annotations": {constants.NETWORKS_ANNOTATION: "[]"}}}, "--network"),
        ({"spec": {"restartPolicy": "Always"}}, "restartPolicy"),
        ({"spec": {"containers": [{"name": "worker", "$patch": "delete"}]}}, "worker"),
        ({"spec": {"initContainers": [{"$patch": "replace"}, {"name": "x"}]}}, "prepare"),
        ({"spec": {"containers": [{"name": "worker", "command": ["sleep"]}]}}, "spec.containers"),
        ({"spec": {"containers": [{"name": "worker", "args": ["x"]}]}}, "spec.containers"),
        ({"spec": {"containers": [{"name": "worker", "startupProbe": None}]}}, "startupProbe of worker"),
        ({"spec": None}, "prepare"),
        ({"spec": {"containers": "abc"}}, "spec.containers"),
        ({"spec": {"containers": {"name": "x"}}}, "spec.containers"),
        ({"spec": {"containers": [{"name": "worker", "env": 5}]}}, "spec.containers.env"),
        ({"spec": {"securityContext": 5}}, "spec.securityContext"),
        ({"metadata": {"labels": "abc"}}, "metadata.labels"),
    ],
    ids=str,
)
def test_a_template_cannot_make_a_worker_something_else(patch: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=re.escape(part)):
        render(patch=patch)
