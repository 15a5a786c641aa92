"""A job on Kubernetes as people ask for it: grammars, origins, and what has no meaning elsewhere."""

from __future__ import annotations

import ipaddress
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.spec import grammar, pods
from torchnet.spec.fields import FIELDS
from torchnet.spec.problems import SpecError
from torchnet.spec.resolve import Resolved, resolve
from torchnet.spec.show import value_at

BASE: dict[str, object] = {
    "on": "kubernetes",
    "script": "train.py",
    "kubernetes.image": "registry.example.com/pytorch:2.15",
    "network.networks": ["ml/backend-network"],
}


def asked(cwd: Path, flags: dict[str, object], environ: dict[str, str] | None = None) -> Resolved:
    return resolve({**BASE, **flags}, environ or {}, cwd)


def wrong(cwd: Path, flags: dict[str, object]) -> SpecError:
    with pytest.raises(SpecError) as caught:
        asked(cwd, flags)
    assert caught.value.exit_code == 2
    assert str(caught.value).replace("\n", "").isprintable()
    return caught.value


GOOD = {
    "namespace": ["ml", "a" * 63],
    "context": ["kind-a b", "admin@x"],
    "kubeconfig": ["/a b"],
    "image": [
        "a:1",
        "r.example:5000/a/b_c:v1.2",
        f"a@sha256:{'0' * 64}",
        f"x/y:t@sha256:{'a' * 64}",
        "localhost/a:1",
    ],
    "workload": ["job", "jobset", "pods"],
    "gpus": ["0", "64"],
    "gpu_resource": ["amd.com/gpu", "nvidia.com/mig-1g.5gb"],
    "cpus": ["4", "500m", "500m:2", "0.5"],
    "memory": ["16Gi", "1Gi:4Gi", "1e9", "1000"],
    "shm_size": ["8Gi"],
    "volumes": [
        "pvc:data:/data",
        "pvc:data:/data:ro",
        "d=pvc:data:/data",
        "configmap:c:/c",
        "secret:s:/s",
        "emptydir:/tmp/x",
        "emptydir:10Gi:/tmp/x",
    ],
    "secrets": ["a.b", "a:/etc/keys"],
    "node_selector": ["a=b", "x.example/y=", "kubernetes.io/arch=arm64"],
    "tolerations": ["a", "a=b", "a:NoSchedule", "nvidia.com/gpu=present:NoExecute", ":NoSchedule"],
    "queue": ["team-a"],
    "priority_class": ["system.x"],
    "spread": ["none", "soft", "hard"],
    "image_pull_secrets": ["a"],
    "labels": ["team=a", "x.example/y=A_b.c", "a="],
    "annotations": ["a=b", "x.example/y=any, thing\n: {}", "a="],
    "code": ["configmap", "image", "pvc:a", "pvc:a/b/c"],
    "token_secret": ["a"],
    "service_account": ["a"],
    "security": ["restricted", "rdma"],
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
    ],
    "workload": ["deployment", ""],
    "gpus": ["-1", "65", "one", "1.5"],
    "gpu_resource": ["gpu", "a b/c", "nvidia.com/", "/gpu"],
    "cpus": ["0", "-1", "4:2", "2 cores", "1e400", "", "4:", "1kk", "٣"],
    "memory": ["0", "16GB", "16 Gi", "1Gi:1Mi"],
    "shm_size": ["0", "8G8"],
    "volumes": [
        "data",
        "nfs:x:/y",
        "pvc:data",
        "pvc:Data:/x",
        "pvc:data:relative",
        "pvc:data:/",
        "pvc:data:/a/../etc",
        "pvc:data:/work/x",
        "pvc:data:/etc/hosts",
        "configmap:../x:/y",
        "secret:a:/b:c",
        "hostpath:/etc:/y",
        "work=pvc:a:/b",
        "A=pvc:a:/b",
        "pvc:a:/b\nc",
    ],
    "secrets": ["A", "a:b", "a:/torchnet", "../a"],
    "node_selector": ["a", "=b", f"{'a' * 64}=b", f"a={'b' * 64}", "a=b c", "../x=y", "a/b/c=d"],
    "tolerations": ["", "a:Never", "=b", "a=b c", "-:NoSchedule"],
    "queue": ["A", "a_b", "a" * 254],
    "priority_class": ["a..b"],
    "spread": ["rack"],
    "image_pull_secrets": ["a/b"],
    "labels": [
        "torchnet/run=x",
        "app.kubernetes.io/managed-by=me",
        "a=\n",
        "é=a",
        f"{'x' * 254}/a=b",
        "a=b\0",
    ],
    "annotations": ["torchnet/spec=x", "k8s.v1.cni.cncf.io/networks=[]", "no-value", "a b=c", "a=\udcff"],
    "code": ["git", "pvc:", "pvc:A/x", "pvc:a/../../etc", "pvc"],
    "token_secret": ["A"],
    "service_account": ["a/b"],
    "security": ["privileged"],
}


def cases(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(path, text) for path, texts in table.items() for text in texts]


@pytest.mark.parametrize(("name", "text"), cases(GOOD), ids=str)
def test_what_can_be_asked_for(tmp_path: Path, name: str, text: str) -> None:
    field = next(one for one in FIELDS if one.path == f"kubernetes.{name}")
    resolved = asked(tmp_path, {field.path: [text] if field.repeat else text})
    assert resolved.origins[field.path].where == field.flag


@pytest.mark.parametrize(("name", "text"), cases(BAD), ids=ascii)
def test_what_cannot_be_is_refused_before_any_call(tmp_path: Path, name: str, text: str) -> None:
    field = next(one for one in FIELDS if one.path == f"kubernetes.{name}")
    (problem,) = wrong(tmp_path, {field.path: [text] if field.repeat else text}).problems
    assert problem.path == field.path
    assert problem.valid == field.valid


def test_every_field_has_a_good_and_a_bad_value_here() -> None:
    special = {"static_ips", "pod_template", "multi_network_policy", "detach", "keep"}
    names = {field.path.partition(".")[2] for field in FIELDS if field.only == "kubernetes"}
    assert names - special == set(GOOD)
    assert set(GOOD) - set(BAD) == {"context", "kubeconfig"}  # the kubeconfig's own business


@pytest.mark.parametrize(
    "text", ["a", "ns/a", "a*2", "a=x.example/vf", "ns/a*8=x.example/vf", "a*64", "a.b"], ids=str
)
def test_networks(tmp_path: Path, text: str) -> None:
    assert asked(tmp_path, {"network.networks": [text]}).job.network.networks == (text,)


@pytest.mark.parametrize(
    "text",
    ["A", "a/b/c", "a*0", "a*65", "a*", "a=", "a=vf", "ns/", "/a", "../a", "a b", f"{'n' * 64}/a", "a\0"],
    ids=ascii,
)
def test_networks_that_cannot_be(tmp_path: Path, text: str) -> None:
    problems = wrong(tmp_path, {"network.networks": [text]}).problems
    assert [problem.path for problem in problems] == ["network.networks"]


def test_rails_of_several_networks_are_counted_together(tmp_path: Path) -> None:
    assert "65 rails" in str(wrong(tmp_path, {"network.networks": ["a*64", "b"]}))


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(
            {
                "on": "kubernetes",
                "script": "x.py",
                "kubernetes.gpus": "many",
                "kubernetes.labels": ["A"],
                "network.rails": "2",
                "network.rate": "1gbit",
                "run.stdin_rank": "0",
            },
            {},
            tmp_path,
        )
    assert {problem.path for problem in caught.value.problems} == {
        "kubernetes.gpus",
        "kubernetes.labels",
        "kubernetes.image",
        "network.networks",
        "network.rails",
        "network.rate",
        "run.stdin_rank",
    }


def test_flags_of_the_other_place_are_errors_that_name_both(tmp_path: Path) -> None:
    for place in ("local", "kubernetes"):
        other = [field for field in FIELDS if field.only not in ("", place)]
        assert len(other) >= 7
        flags: dict[str, object] = {"on": place, "script": "x.py", **{field.path: "1" for field in other}}
        with pytest.raises(SpecError) as caught:
            resolve(BASE | flags if place == "kubernetes" else flags, {}, tmp_path)
        told = {problem.path: problem for problem in caught.value.problems}
        assert told.keys() == {field.path for field in other}
        for field in other:
            assert f"--on {field.only}" in told[field.path].what
            assert told[field.path].where == field.flag


def test_files_and_the_environment_may_hold_both_places(tmp_path: Path) -> None:
    (tmp_path / "torchnet.toml").write_text(
        '[network]\nnetworks = ["ml/net"]\nrate = "1gbit"\n[kubernetes]\nimage = "a:1"\nnamespace = "ml"\n'
        '[kubernetes.labels]\nteam = "a"\n'
    )
    environ = {"TORCHNET_GPUS": "8", "TORCHNET_RAILS": "2"}
    local = resolve({"script": "x.py"}, environ, tmp_path).job
    assert (local.network.rate, local.network.rails, local.network.networks) == (10**9, 2, ())
    there = resolve({"script": "x.py", "on": "kubernetes"}, environ, tmp_path).job
    assert (there.kubernetes.gpus, there.kubernetes.labels, there.kubernetes.namespace) == (
        8,
        {"team": "a"},
        "ml",
    )
    assert (there.network.networks, there.network.rails) == (("ml/net",), 1)


def test_a_network_that_is_not_here_is_still_an_error_as_a_flag(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="this machine does not have"):
        resolve({"script": "x.py", "network.networks": ["ml/net"]}, {}, tmp_path)


def test_the_flags_values_arrive(tmp_path: Path) -> None:
    job = asked(tmp_path, {f"kubernetes.{name}": values[-1] for name, values in GOOD.items() if "_" not in name} | {
        "kubernetes.volumes": GOOD["volumes"][:1], "kubernetes.labels": ["a=1", "b=2"],
        "kubernetes.tolerations": ["a,b"],
        "kubernetes.secrets": ["x"], "kubernetes.annotations": ["a=b,c=d"], "kubernetes.workload": "job",
    }).job  # fmt: skip
    assert job.kubernetes.labels == {"a": "1", "b": "2"}
    assert job.kubernetes.tolerations == ("a", "b")
    assert job.kubernetes.annotations == {"a": "b,c=d"}
    assert (
        value_at(job, next(field for field in FIELDS if field.path == "kubernetes.image")) == "localhost/a:1"
    )


# -- names that are made of the run's


@pytest.mark.parametrize(
    ("form", "nnodes", "longest"), [("job", 4, 61), ("job", 10_000, 58), ("pods", 11, 60), ("jobset", 4, 51)]
)
def test_a_workers_hostname_has_room(tmp_path: Path, form: str, nnodes: int, longest: int) -> None:
    flags: dict[str, object] = {"kubernetes.workload": form, "nnodes": str(nnodes)}
    asked(tmp_path, flags | {"run_id": "a" * longest})
    (problem,) = wrong(tmp_path, flags | {"run_id": "a" * (longest + 1)}).problems
    assert problem.path == "run_id"
    assert str(longest) in problem.what


def test_a_jobset_cannot_begin_with_a_digit(tmp_path: Path) -> None:
    asked(tmp_path, {"run_id": "1a"})
    assert wrong(tmp_path, {"run_id": "1a", "kubernetes.workload": "jobset"}).problems[0].path == "run_id"


# -- addresses


RANGE = "fcbb:0:800:ffff::100-fcbb:0:800:ffff::1ff/64"


def test_fixed_addresses_need_pods_and_say_so(tmp_path: Path) -> None:
    assert asked(tmp_path, {"kubernetes.static_ips": [RANGE]}).job.kubernetes.form == "pods"
    for form in ("job", "jobset"):
        (problem,) = wrong(tmp_path, {"kubernetes.static_ips": [RANGE], "kubernetes.workload": form}).problems
        assert "--as pods" in problem.what


def test_there_is_a_range_for_each_rail_and_an_address_for_each_worker(tmp_path: Path) -> None:
    two: dict[str, object] = {"network.networks": ["a*2"], "nnodes": "3"}
    asked(tmp_path, two | {"kubernetes.static_ips": [RANGE, "10.0.0.1/24,10.0.0.2/24,10.0.0.9/24"]})
    assert "2" in wrong(tmp_path, two | {"kubernetes.static_ips": [RANGE]}).problems[0].what
    assert "on two rails" in str(wrong(tmp_path, two | {"kubernetes.static_ips": [RANGE, RANGE]}))
    few = wrong(tmp_path, {"nnodes": "3", "kubernetes.static_ips": ["10.0.0.1-10.0.0.2/24"]})
    assert "2 addresses, and there are 3 workers" in str(few)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "10.0.0.1-10.0.0.9",
            "10.0.0.9-10.0.0.1/24",
            "10.0.0.1-10.0.1.9/24",
            "10.0.0.1-fcbb::1/24",
            "x-y/24",
            "10.0.0.1",
        ),
        *(
            "10.0.0.1/24,10.0.0.1/24",
            "10.0.0.1/24,x/24",
            "10.0.0.1-10.0.0.9/33",
            "",
            ",",
            "fcbb::1/64,fcbb::1",
        ),
    ],
)
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        pods.parse_addresses(text, 2)


@given(st.integers(0, 2**32 - 2**17), st.integers(1, 200), st.sampled_from([16, 20, 24]))
def test_a_range_gives_addresses_in_order(first: int, count: int, length: int) -> None:
    start = ipaddress.IPv4Address(first)
    network = ipaddress.ip_network((start, length), strict=False)
    last = min(first + count - 1, int(network.broadcast_address))
    found = pods.parse_addresses(f"{start}-{ipaddress.IPv4Address(last)}/{length}", last - first + 1)
    assert [int(ipaddress.ip_interface(one).ip) for one in found] == list(range(first, last + 1))
    assert {ipaddress.ip_interface(one).network for one in found} == {network}


# -- grammars


@given(st.from_regex(r"[0-9]{1,9}(\.[0-9]{1,6})?(m|k|M|G|T|Ki|Mi|Gi|Ti|)", fullmatch=True))
def test_a_quantity_is_exact(text: str) -> None:
    match = re.fullmatch(r"([0-9.]+)(.*)", text)
    assert match
    units: dict[str, Any] = {"": 1, "m": Fraction(1, 1000), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    units |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    assert grammar.amount(text) == Fraction(match[1]) * units[match[2]]


ANY = st.text(max_size=80) | st.text("aA0-_./*=:", max_size=80)


@settings(deadline=None)
@given(ANY)
def test_whatever_is_taken_is_what_kubernetes_takes(text: str) -> None:
    label = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
    subdomain = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
    for parse, taken in (
        (grammar.parse_label_value, bool(label.fullmatch(text)) and len(text) <= 63),
        (grammar.parse_subdomain, bool(subdomain.fullmatch(text)) and max(map(len, text.split("."))) <= 63),
    ):
        try:
            assert parse(text) == text
        except ValueError:
            assert not taken
        else:
            assert taken


@settings(deadline=None)
@given(ANY)
def test_no_text_is_more_than_refused(text: str) -> None:
    for parse in (
        *(
            pods.parse_attachment,
            pods.parse_volume,
            pods.parse_secret,
            pods.parse_toleration,
            pods.parse_code,
        ),
        *(grammar.parse_qualified, grammar.parse_quantity, grammar.parse_image, grammar.parse_mount_path),
    ):
        try:
            parse(text)
        except ValueError:
            pass


def test_annotations_have_a_limit_together(tmp_path: Path) -> None:
    asked(tmp_path, {"kubernetes.annotations": [f"a={'x' * 131_000}", f"b={'x' * 131_000}"]})
    error = wrong(tmp_path, {"kubernetes.annotations": [f"{key}={'é' * 65_000}" for key in "abc"]})
    assert "390003 bytes" in str(error)
    assert "262144" in str(error)
    assert len(str(error)) < 2000


# -- variables from files


def test_an_env_file_is_below_what_is_named_itself(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("# comment\n\nA=1\nexport B=two words\r\nC=\n D = x\n")
    (tmp_path / "b.env").write_text("A=2\n")
    for place in ({}, {"on": "local", "network.networks": []}):
        resolved = resolve(
            {"script": "x.py", "env_file": ["a.env", "b.env"], "env": ["C=flag"], **place}, {}, tmp_path
        )
        assert resolved.job.env == {"A": "2", "B": "two words", "C": "flag", "D": " x"}
        assert resolved.origins["env.B"].where == "a.env:4"
        assert resolved.origins["env.A"].where == "b.env:1"


def test_what_is_wrong_in_env_files_is_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A\n1=2\nOK=1\nB=\0\n")
    (tmp_path / "b.env").write_bytes(b"A=\xff\n")
    (tmp_path / "c.env").write_bytes(b"A" * (2 << 20))
    error = wrong(tmp_path, {"env_file": ["a.env", "b.env", "c.env", "d.env", "."]})
    lines = "\n".join(str(problem) for problem in error.problems)
    for part in (
        "a.env: line 1",
        "a.env: line 2",
        "a.env: line 4",
        "b.env: is not UTF-8",
        "c.env: has more",
        "d.env: no such",
    ):
        assert part in lines
    assert len(error.problems) == 7


def test_an_env_file_of_a_job_file_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/a.env").write_text("A=1\n")
    (tmp_path / "jobs/job.toml").write_text('script = "x.py"\nenv_file = ["a.env"]\n')
    assert resolve({}, {}, tmp_path, "jobs/job.toml").job.env == {"A": "1"}


def test_what_is_no_utf8_cannot_go_to_a_cluster(tmp_path: Path) -> None:
    paths = [one.path for one in wrong(tmp_path, {"args": ("ok", "\udcff"), "env": ["A=\udcfe"]}).problems]
    assert sorted(paths) == ["args", "env"]


def test_processes_that_nobody_can_count(tmp_path: Path) -> None:
    for word, flags in (("gpu", {"kubernetes.gpus": "2"}), ("cpu", {"kubernetes.cpus": "4"})):
        asked(tmp_path, {"nproc_per_node": word, **flags})
        (problem,) = wrong(tmp_path, {"nproc_per_node": word}).problems
        assert problem.path == "nproc_per_node"


def test_a_path_on_the_node_needs_more_than_restricted(tmp_path: Path) -> None:
    volume: dict[str, Any] = {"kubernetes.volumes": ["hostpath:/dev/infiniband:/dev/infiniband"]}
    asked(tmp_path, volume | {"kubernetes.security": "rdma"})
    assert "--security rdma" in str(wrong(tmp_path, volume))


def test_two_volumes_in_one_place(tmp_path: Path) -> None:
    error = wrong(tmp_path, {"kubernetes.volumes": ["a=pvc:x:/data", "b=pvc:y:/data", "a=pvc:z:/z"]})
    assert "mounted at /data" in str(error)
    assert "called a" in str(error)
