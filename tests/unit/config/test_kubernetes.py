"""A job on Kubernetes: its networks, what has no meaning elsewhere, and variables from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.asked_kubernetes import BASE, asked, wrong
from torchnet.config.resolution import resolve
from torchnet.config.settings import FIELDS
from torchnet.config.validation_errors import SpecError
from torchnet.constants import MAX_RAILS, POD_VARIABLES


@pytest.mark.parametrize(
    "text", ["a", "ns/a", "a*2", "a=x.example/vf", "ns/a*8=x.example/vf", f"a*{MAX_RAILS}", "a.b"], ids=str
)
def test_networks(tmp_path: Path, text: str) -> None:
    assert asked(tmp_path, {"network.networks": [text]}).job.network.networks == (text,)


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "a/b/c",
        "a*0",
        f"a*{MAX_RAILS + 1}",
        "a*",
        "a=",
        "a=vf",
        "ns/",
        "/a",
        "../a",
        "a b",
        f"{'n' * 64}/a",
        "a\0",
    ],
    ids=ascii,
)
def test_networks_that_cannot_be(tmp_path: Path, text: str) -> None:
    problems = wrong(tmp_path, {"network.networks": [text]}).problems
    assert [problem.path for problem in problems] == ["network.networks"]


def test_what_torchnet_tells_each_pod_is_no_variable_of_the_job(tmp_path: Path) -> None:
    """Two of one name: the API server's server-side apply refuses them, and the last would win elsewhere."""
    problems = wrong(tmp_path, {"env": [*(f"{name}=x" for name in POD_VARIABLES), "HOST=x"]}).problems
    assert sorted(problem.what.split()[0] for problem in problems) == sorted(POD_VARIABLES)
    assert {problem.path for problem in problems} == {"env"}
    resolve({"script": "x.py", "env": ["POD_NAME=x"]}, {}, str(tmp_path), None)  # locally it is anybody's


def test_policies_on_the_rails_need_the_one_on_eth0(tmp_path: Path) -> None:
    both: dict[str, object] = {"kubernetes.network_policy": "none", "kubernetes.multi_network_policy": True}
    (problem,) = wrong(tmp_path, both).problems
    assert (problem.path, "--network-policy isolate" in problem.what) == (
        "kubernetes.multi_network_policy",
        True,
    )
    assert asked(tmp_path, {"kubernetes.network_policy": "none"}).job.kubernetes.network_policy == "none"


@pytest.mark.parametrize(
    ("flags", "path", "told"),
    [
        ({"workload_priority": "high"}, "workload_priority", "--queue"),
        ({"topology": "preferred:rack"}, "topology", "--queue"),
        ({"topology": "required:rack", "queue": "q", "spread": "hard"}, "topology", "--spread none"),
        ({"max_infra_restarts": "1"}, "max_infra_restarts", "jobset"),
        ({"max_infra_restarts": "1", "kind": "pods"}, "max_infra_restarts", "jobset"),
    ],
)
def test_what_only_a_queue_or_a_jobset_can_do(
    tmp_path: Path, flags: dict[str, object], path: str, told: str
) -> None:
    (problem,) = wrong(tmp_path, {f"kubernetes.{name}": value for name, value in flags.items()}).problems
    assert problem.path == f"kubernetes.{path}"
    assert told in problem.what


def test_rails_of_several_networks_are_counted_together(tmp_path: Path) -> None:
    most = [f"a*{MAX_RAILS - 1}", "b"]
    assert asked(tmp_path, {"network.networks": most}).job.network.networks == tuple(most)
    (problem,) = wrong(tmp_path, {"network.networks": [*most, "c"]}).problems
    assert problem.path == "network.networks"
    assert f"{MAX_RAILS + 1} rails" in problem.what


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
    for place, least in (("local", 7), ("hosts", 11), ("kubernetes", 7)):
        other = [field for field in FIELDS if not field.applies(place)]
        assert len(other) >= least
        flags: dict[str, object] = {"on": place, "script": "x.py", **{field.path: "1" for field in other}}
        with pytest.raises(SpecError) as caught:
            resolve(BASE | flags if place == "kubernetes" else flags, {}, tmp_path)
        told = {problem.path: problem for problem in caught.value.problems}
        assert told.keys() == {field.path for field in other}
        for field in other:
            assert f"--on {field.places}" in told[field.path].what
            assert set(field.places.split(" or ")) <= {"local", "hosts", "kubernetes"} - {place}
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
    with pytest.raises(SpecError, match=r"network\.networks: "):
        resolve({"script": "x.py", "network.networks": ["ml/net"]}, {}, tmp_path)


def test_processes_that_nobody_can_count(tmp_path: Path) -> None:
    for word, flags in (("gpu", {"kubernetes.gpus": "2"}), ("cpu", {"kubernetes.cpus": "4"})):
        asked(tmp_path, {"nproc_per_node": word, **flags})
        (problem,) = wrong(tmp_path, {"nproc_per_node": word}).problems
        assert problem.path == "nproc_per_node"


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ({}, 4),
        ({"kubernetes.gpus": "2"}, 8),
        ({"nproc_per_node": "3", "kubernetes.gpus": "2"}, 12),
        ({"nproc_per_node": "cpu", "kubernetes.cpus": "2500m:4"}, 8),
        ({"nproc_per_node": "auto", "kubernetes.gpus": "8", "kubernetes.cpus": "4"}, 32),
        ({"nproc_per_node": "auto", "kubernetes.cpus": "500m"}, 4),
    ],
    ids=str,
)
def test_only_ranks_that_there_are_can_be_shown(tmp_path: Path, flags: dict[str, object], count: int) -> None:
    four = {"nnodes": "4"} | flags
    asked(tmp_path, four | {"output.ranks": f"0,{count - 1}"})
    (problem,) = wrong(tmp_path, four | {"output.ranks": f"1,{count},40"}).problems
    assert (problem.path, problem.where) == ("output.ranks", "--ranks")
    assert f"{count}, 40;" in problem.what
    assert f"0 to {count - 1}" in problem.what


def test_ranks_wait_for_a_number_that_nobody_can_count(tmp_path: Path) -> None:
    error = wrong(tmp_path, {"nproc_per_node": "gpu", "output.ranks": "9"})
    assert [problem.path for problem in error.problems] == ["nproc_per_node"]


def test_what_is_no_utf8_cannot_go_to_a_cluster(tmp_path: Path) -> None:
    paths = [one.path for one in wrong(tmp_path, {"args": ("ok", "\udcff"), "env": ["A=\udcfe"]}).problems]
    assert sorted(paths) == ["args", "env"]


@pytest.mark.parametrize(("path", "value"), [("output.json", "r.json"), ("output.log_dir", "logs")], ids=str)
def test_who_detaches_writes_no_files(tmp_path: Path, path: str, value: str) -> None:
    (problem,) = wrong(tmp_path, {"kubernetes.detach": True, path: value}).problems
    assert problem.path == path
    assert "torchnet attach RUN --json" in problem.what
    asked(tmp_path, {path: value})
    asked(tmp_path, {"kubernetes.detach": True})


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
        "c.env: is larger",
        "d.env: no such",
    ):
        assert part in lines
    assert len(error.problems) == 7


def test_an_env_file_of_a_job_file_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/a.env").write_text("A=1\n")
    (tmp_path / "jobs/job.toml").write_text('script = "x.py"\nenv_file = ["a.env"]\n')
    assert resolve({}, {}, tmp_path, "jobs/job.toml").job.env == {"A": "1"}
