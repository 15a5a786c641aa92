"""A job on Kubernetes: every flag with values that can be and values that cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.asked_kubernetes import asked, wrong
from torchnet import constants
from torchnet.config.dump import value_at
from torchnet.config.settings import FIELDS

GOOD = {
    "namespace": ["ml", "a" * 63],
    "context": ["kind-a b", "admin@x"],
    "kubeconfig": ["/a b"],
    "image": [
        "a:1",
        "r.example:5000/a/b_c:v1.2",
        f"a@sha256:{'0' * 64}",
        f"x/y:t@sha256:{'a' * 64}",
        "[fd00::5]:5000/a__b/c--d:1",
        "localhost/a:1",
    ],
    "kind": ["job", "jobset", "pods"],
    "gpus": ["0", "64"],
    "gpu_resource": ["amd.com/gpu", "nvidia.com/mig-1g.5gb"],
    "cpus": ["4", "500m", "500m:2", "0.5"],
    "memory": ["16Gi", "1Gi:4Gi", "1e9", "1000"],
    "shm_size": ["8Gi"],
    "ephemeral_storage": ["20Gi", "1Gi:200Gi"],
    "ttl": ["1min", "12h", "86400"],
    "volumes": [
        "pvc:data:/data",
        "pvc:data:/data:ro",
        "d=pvc:data:/data",
        "configmap:c:/c",
        "secret:s:/s",
        "emptydir:/tmp/x",
        "emptydir:10Gi:/tmp/x",
        "hostpath:/dev/infiniband:/dev/infiniband",
    ],
    "secrets": ["a.b", "a:/etc/keys"],
    "node_selector": ["a=b", "x.example/y=", "kubernetes.io/arch=arm64"],
    "tolerations": ["a", "a=b", "a:NoSchedule", "nvidia.com/gpu=present:NoExecute", ":NoSchedule"],
    "queue": ["team-a"],
    "workload_priority": ["high.x"],
    "topology": ["required:kubernetes.io/hostname", "preferred:rack", "unconstrained"],
    "max_infra_restarts": ["0", "1000"],
    "priority_class": ["system.x"],
    "spread": ["none", "pack", "soft", "hard"],
    "network_policy": ["isolate", "none"],
    "image_pull_secrets": ["a"],
    "labels": ["team=a", "x.example/y=A_b.c", "a="],
    "annotations": ["a=b", "x.example/y=any, thing\n: {}", "a="],
    "code": ["configmap", "image", "pvc:a", "pvc:a/b/c"],
    "token_secret": ["a"],
    "service_account": ["a"],
    "run_as": ["0", "1000", "1000:0", "2147483647:2147483647", "namespace"],
    "fs_group": ["0", "2147483647"],
}
BAD = {
    "namespace": ["a" * 64, "../x", "Ml", "a\0", "", "a.b", "-a", "a_b"],
    "image": [
        "a",
        "A:1",
        "a:latest",
        "a:1:2",
        "a:",
        "a b:1",
        "../x:1",
        "https://a:1",
        "a\n:1",
        f"a@sha256:{'0' * 63}",
        "r.example/a..b:1",
        "r.example/a___b:1",
        f"r.example/{'a' * 250}:1",
    ],
    "kind": ["deployment", ""],
    "gpus": ["-1", "65", "one", "1.5"],
    "gpu_resource": ["gpu", "a b/c", "nvidia.com/", "/gpu"],
    "cpus": ["0", "-1", "4:2", "2 cores", "1e400", "", "4:", "1kk", "٣"],
    "memory": ["0", "16GB", "16 Gi", "1Gi:1Mi"],
    "shm_size": ["0", "8G8"],
    "ephemeral_storage": ["0", "2Gi:1Gi", "20GB"],
    "ttl": ["0", "59s", "-1", "soon", "367d"],
    "volumes": [
        "data",
        "nfs:x:/y",
        "pvc:data",
        "pvc:Data:/x",
        "pvc:data:relative",
        "pvc:data:/",
        "pvc:data:/a/../etc",
        f"pvc:data:{constants.WORK_DIR}/x",
        "pvc:data:/etc/hosts",
        "configmap:../x:/y",
        "secret:a:/b:c",
        "hostpath:etc:/y",
        "work=pvc:a:/b",
        "A=pvc:a:/b",
        "pvc:a:/b\nc",
    ],
    "secrets": ["A", "a:b", "a:/torchnet", "../a"],
    "node_selector": ["a", "=b", f"{'a' * 64}=b", f"a={'b' * 64}", "a=b c", "../x=y", "a/b/c=d"],
    "tolerations": ["", "a:Never", "=b", "a=b c", "-:NoSchedule"],
    "queue": ["A", "a_b", "a" * 254],
    "workload_priority": ["A"],
    "topology": ["rack", "required", "required:", "unconstrained:x", "required:a b", f"preferred:{'a' * 64}"],
    "max_infra_restarts": ["-1", "1001", "x"],
    "priority_class": ["a..b"],
    "spread": ["rack"],
    "network_policy": ["open"],
    "image_pull_secrets": ["a/b"],
    "labels": [
        "torchnet.alt/run=x",
        *("torchnet.alt/x=y", "torchnet/run=x", "app.kubernetes.io/instance=x"),
        "app.kubernetes.io/managed-by=me",
        "app.kubernetes.io/name=me",
        "a=\n",
        "é=a",
        f"{'x' * 254}/a=b",
        "a=b\0",
    ],
    "annotations": [
        *("torchnet.alt/spec=x", "k8s.v1.cni.cncf.io/networks=[]"),
        *("k8s.v1.cni.cncf.io/network-status=[]", "k8s.v1.cni.cncf.io/policy-for=x"),
        *("no-value", "a b=c", "a=\udcff"),
    ],
    "code": ["git", "pvc:", "pvc:A/x", "pvc:a/../../etc", "pvc"],
    "token_secret": ["A"],
    "service_account": ["a/b"],
    "run_as": ["", "root", "-1", "1000:", ":0", "1:2:3", "2147483648", "1.5", "٣", "Namespace", "restricted"],
    "fs_group": ["", "-1", "staff", "2147483648", "1e3"],
}
# Without these it makes no sense.
NEEDED: dict[str, dict[str, object]] = {
    "workload_priority": {"kubernetes.queue": "q"},
    "topology": {"kubernetes.queue": "q"},
    "max_infra_restarts": {"kubernetes.kind": "jobset"},
}


def cases(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(path, text) for path, texts in table.items() for text in texts]


@pytest.mark.parametrize(("name", "text"), cases(GOOD), ids=str)
def test_what_can_be_asked_for(tmp_path: Path, name: str, text: str) -> None:
    field = next(one for one in FIELDS if one.path == f"kubernetes.{name}")
    resolved = asked(tmp_path, NEEDED.get(name, {}) | {field.path: [text] if field.repeat else text})
    assert resolved.origins[field.path].where == field.flag


@pytest.mark.parametrize(("name", "text"), cases(BAD), ids=ascii)
def test_what_cannot_be_is_refused_before_any_call(tmp_path: Path, name: str, text: str) -> None:
    field = next(one for one in FIELDS if one.path == f"kubernetes.{name}")
    flags = NEEDED.get(name, {}) | {field.path: [text] if field.repeat else text}
    (problem,) = wrong(tmp_path, flags).problems
    assert problem.path == field.path
    assert problem.valid == field.valid


def test_every_field_has_a_good_and_a_bad_value_here() -> None:
    switches = {"multi_network_policy", "rdma", "detach", "keep"}
    special = {"static_ips", "pod_template", "job_template", *switches}
    fields = {field.path.partition(".")[2] for field in FIELDS if field.only == "kubernetes"}
    assert fields - special == set(GOOD)
    assert set(GOOD) - set(BAD) == {"context", "kubeconfig"}  # the kubeconfig's own business


def test_the_flags_values_arrive(tmp_path: Path) -> None:
    job = asked(tmp_path, {f"kubernetes.{name}": values[-1] for name, values in GOOD.items() if "_" not in name} | {
        "kubernetes.volumes": GOOD["volumes"][:1], "kubernetes.labels": ["a=1", "b=2"],
        "kubernetes.tolerations": ["a,b"],
        "kubernetes.secrets": ["x"], "kubernetes.annotations": ["a=b,c=d"], "kubernetes.kind": "job",
    }).job  # fmt: skip
    assert job.kubernetes.labels == {"a": "1", "b": "2"}
    assert job.kubernetes.tolerations == ("a", "b")
    assert job.kubernetes.annotations == {"a": "b,c=d"}
    assert (
        value_at(job, next(field for field in FIELDS if field.path == "kubernetes.image")) == "localhost/a:1"
    )


def test_annotations_have_a_limit_together(tmp_path: Path) -> None:
    asked(tmp_path, {"kubernetes.annotations": [f"a={'x' * 131_000}", f"b={'x' * 114_000}"]})
    # What Kubernetes takes alone, and not with what torchnet and Multus add.
    full = str(wrong(tmp_path, {"kubernetes.annotations": [f"a={'x' * 131_000}", f"b={'x' * 131_000}"]}))
    assert "262002 bytes" in full
    assert "245760" in full
    assert "network-status" in full
    error = wrong(tmp_path, {"kubernetes.annotations": [f"{key}={'é' * 65_000}" for key in "abc"]})
    assert "390003 bytes" in str(error)
    assert "262144" in str(error)
    assert len(str(error)) < 2000


def test_a_user_is_a_number_in_files_as_well(tmp_path: Path) -> None:
    group = asked(tmp_path, {"kubernetes.run_as": 5001, "kubernetes.fs_group": 7}).job.kubernetes
    assert (group.user.uid, group.user.gid, group.user.fs_group) == (5001, 5001, 7)


def test_two_volumes_in_one_place(tmp_path: Path) -> None:
    error = wrong(tmp_path, {"kubernetes.volumes": ["a=pvc:x:/data", "b=pvc:y:/data", "a=pvc:z:/z"]})
    assert "mounted at /data" in str(error)
    assert "name a" in str(error)


@pytest.mark.parametrize(
    ("volumes", "secrets", "said"),
    [
        ([], ["a:/x", "b:/x"], ['kubernetes.secrets: "b:/x" is mounted at /x, like "a:/x"']),
        (["pvc:a:/x"], ["b:/x"], ['kubernetes.secrets: "b:/x" is mounted at /x, like "pvc:a:/x"']),
        (["pvc:a:/x/y"], ["b://x/./y/"], ['"b://x/./y/" is mounted at /x/y, like "pvc:a:/x/y"']),
        (
            ["pvc:a:/x", "v=pvc:b:/x", f"emptydir:{constants.STATE_DIR}", "hostpath:/dev/a:/dev/shm"],
            ["a:/y", "b", "c:/y", "d:/x", "e:/proc/self"],
            [
                '"v=pvc:b:/x" is mounted at /x, like "pvc:a:/x"',
                f'"emptydir:{constants.STATE_DIR}" is mounted at {constants.STATE_DIR}, which torchnet',
                '"hostpath:/dev/a:/dev/shm" is mounted at /dev/shm, which torchnet',
                '"c:/y" is mounted at /y, like "a:/y"',
                '"d:/x" is mounted at /x, like "pvc:a:/x"',
                '"e:/proc/self" is mounted at /proc/self, which torchnet',
            ],
        ),
    ],
    ids=str,
)
def test_everything_is_mounted_in_a_place_of_its_own(
    tmp_path: Path, volumes: list[str], secrets: list[str], said: list[str]
) -> None:
    error = wrong(tmp_path, {"kubernetes.volumes": volumes, "kubernetes.secrets": secrets})
    assert [text for text in said if text not in str(error)] == []
    assert len(error.problems) == len(said)


def test_secrets_that_become_variables_and_paths_below_others_stay(tmp_path: Path) -> None:
    asked(
        tmp_path,
        {"kubernetes.secrets": ["a", "a", "a:/x"], "kubernetes.volumes": ["pvc:a:/x/y", "w=pvc:b:/x-y"]},
    )


def test_all_wrong_texts_of_a_list_are_told(tmp_path: Path) -> None:
    (problem,) = wrong(tmp_path, {"kubernetes.secrets": ["A", "b", "c:d"]}).problems
    assert '"A", which' in problem.what
    assert '"c:d", which' in problem.what
    assert '"b"' not in problem.what.partition(" contains ")[2]


def test_a_volume_cannot_be_called_as_a_secrets(tmp_path: Path) -> None:
    flags: dict[str, Any] = {
        "kubernetes.volumes": ["torchnet-secret-0=pvc:a:/a"],
        "kubernetes.secrets": ["s:/s"],
    }
    assert "torchnet-secret-0" in wrong(tmp_path, flags).problems[0].what
