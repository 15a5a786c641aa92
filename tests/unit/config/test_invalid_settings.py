"""Wrong values: each refused with its origin and what would be right, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.asked import asked, wrong
from torchnet.config.resolution import resolve
from torchnet.config.settings import BY_PATH, FIELDS
from torchnet.config.validation_errors import SpecError
from torchnet.constants import LOCAL_PREFIXES


def test_all_wrong_fields_are_told_at_once(tmp_path: Path) -> None:
    error = wrong(tmp_path, {"nnodes": "0", "network.rate": "fast", "output.min_share": "2"})
    lines = str(error).splitlines()
    assert "3 errors" in lines[0]
    for line, parts in zip(
        lines[1:4],
        (
            ("nnodes:", '"0"', "--nnodes", "from 1 to 10000"),
            ("network.rate:", '"fast"', "--rate", "1gbit"),
            ("output.min_share:", '"2"', "--min-share", "from 0 to 1"),
        ),
        strict=True,
    ):
        assert all(part in line for part in parts), line
    assert lines[4] == "  fix: torchnet launch --help"
    assert error.exit_code == 2


def test_wrong_values_of_all_layers_are_told_with_their_origins(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text("[run]\ngrace = true\nretries = 3\n")
    (tmp_path / "torchnet.toml").write_text("[output]\ntee = 9\n")
    error = wrong(tmp_path, {"env": ["A"]}, environ={"TORCHNET_MTU": "12"}, config="job.toml")
    where = {problem.path: problem.where for problem in error.problems}
    assert where == {
        "env": "--env",
        "network.mtu": "TORCHNET_MTU",
        "run.grace": "job.toml: run.grace",
        "output.tee": "torchnet.toml: output.tee",
        "run.retries": "job.toml: run.retries",
    }


def test_wrong_keys_and_values_of_one_flag_are_told_at_once(tmp_path: Path) -> None:
    pairs = ["buckets=2", "compress", "gloo-devices=9", "nccl_socket_nthreads=2"]
    error = wrong(tmp_path, {"tune": pairs, "nnodes": "0"})
    assert {problem.path: problem.where for problem in error.problems} == {
        "nnodes": "--nnodes", "tune": "--tune", "tune.compress": "--tune", "tune.gloo_devices": "--tune"
    }  # fmt: skip
    found = {problem.path: str(problem) for problem in error.problems}
    assert 'did you mean "bucket_cap_mb"?' in found["tune"]
    assert all(field.key in found["tune"] for field in FIELDS if field.keyed)
    assert "none, bf16, fp16" in found["tune.compress"]
    assert "from 1 to 8" in found["tune.gloo_devices"]


VALID_WORDS = {
    "on": ("cloud", "local"),
    "network.family": ("ipv5", "ipv6"),
    "network.preflight": ("none", "full"),
    "run.stall_action": ("kill", "stop"),
    "nproc_per_node": ("xpu", "auto"),
}


@pytest.mark.parametrize(("path", "words"), VALID_WORDS.items(), ids=str)
def test_choices_are_listed_where_none_was_met(tmp_path: Path, path: str, words: tuple[str, str]) -> None:
    (problem,) = wrong(tmp_path, {path: words[0]}).problems
    assert words[1] in problem.valid
    assert asked(tmp_path, {path: words[1]}).origins[path].layer == "flag"


BOUNDS = {
    "nnodes": ("0", "1", "10000", "10001"),
    "nproc_per_node": ("0", "1", "1024", "1025"),
    "network.rails": ("0", "1", str(len(LOCAL_PREFIXES)), str(len(LOCAL_PREFIXES) + 1)),
    "network.rate": ("999999", "1mbit", "30gbit", "30000000001"),
    "network.mtu": ("1279", "1280", "65535", "65536"),
    "run.max_restarts": ("-1", "0", "1000", "1001"),
    "output.min_share": ("-0.1", "0", "1", "1.01"),
    "tune.bucket_cap_mb": ("0.09", "0.1", "10000", "10001"),
    "tune.gloo_devices": ("0", "1", "8", "9"),
    "tune.nccl_socket_nthreads": ("0", "1", "16", "17"),
    "tune.nccl_nsocks_perthread": ("0", "1", "16", "17"),
}


@pytest.mark.parametrize(("path", "values"), BOUNDS.items(), ids=str)
def test_bounds(tmp_path: Path, path: str, values: tuple[str, str, str, str]) -> None:
    below, low, high, above = values
    for good in (low, high):
        asked(tmp_path, {path: good})
    for bad in (below, above):
        (problem,) = wrong(tmp_path, {path: bad}).problems
        assert problem.path == path


def test_nccl_takes_no_more_than_64_sockets(tmp_path: Path) -> None:
    both: dict[str, object] = {"tune.nccl_socket_nthreads": "8", "tune.nccl_nsocks_perthread": "8"}
    assert asked(tmp_path, both).job.tune.variables() == {
        "TORCHNET_TUNE_NCCL_SOCKET_NTHREADS": "8",
        "TORCHNET_TUNE_NCCL_NSOCKS_PERTHREAD": "8",
    }
    (problem,) = wrong(tmp_path, {**both, "tune.nccl_nsocks_perthread": "9"}).problems
    assert (problem.path, "64" in problem.what) == ("tune.nccl_nsocks_perthread", True)


@pytest.mark.parametrize("path", ["run.start_timeout", "run.timeout"])
def test_a_limit_of_no_time_is_no_limit(tmp_path: Path, path: str) -> None:
    assert wrong(tmp_path, {path: "0"}).problems[0].path == path


def test_without_a_script(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="script: "):
        resolve({}, {}, tmp_path)


@pytest.mark.parametrize("script", ["", "  ", "a\0b"])
def test_scripts_without_a_name(tmp_path: Path, script: str) -> None:
    assert wrong(tmp_path, {"script": script}).problems[0].path == "script"


@pytest.mark.parametrize("name", ["x" * 64, "../x", "Run", "a\0b", "a b"])
def test_hostile_run_ids(tmp_path: Path, name: str) -> None:
    error = wrong(tmp_path, {"run_id": name})
    assert error.problems[0].path == "run_id"
    assert str(error).replace("\n", "").isprintable()


@pytest.mark.parametrize("pair", ["A", "=1", "1A=2", "A B=1", "A=\0", "Ä=1", ""])
def test_variables_that_cannot_be_set(tmp_path: Path, pair: str) -> None:
    assert wrong(tmp_path, {"env": [pair]}).problems[0].path == "env"


def test_an_elastic_range_is_refused_with_the_reason(tmp_path: Path) -> None:
    (problem,) = wrong(tmp_path, {"nnodes": "1:4"}).problems
    assert "elastic" in problem.what
    assert asked(tmp_path, {"nnodes": "3:3"}).job.nnodes == 3


def test_fields_that_contradict_each_other(tmp_path: Path) -> None:
    error = wrong(
        tmp_path,
        {
            "module": True,
            "no_python": True,
            "nproc_per_node": "2",
            "output.ranks": "4",
            "run.stdin_rank": "9",
        },
    )
    assert [problem.path for problem in error.problems] == ["no_python", "run.stdin_rank", "output.ranks"]
    (problem,) = wrong(tmp_path, {"network.networks": ["loopback"], "network.rails": "2"}).problems
    assert (problem.path, problem.where) == ("network.networks", "--network")


def test_only_networks_that_are_here(tmp_path: Path) -> None:
    assert asked(tmp_path, {"network.networks": ["loopback"]}).job.network.networks == ("loopback",)
    assert wrong(tmp_path, {"network.networks": ["net1"]}).problems[0].path == "network.networks"


TEXT = st.text(max_size=20)


@settings(deadline=None)
@given(flags=st.dictionaries(st.sampled_from(sorted(set(BY_PATH) - {"args", "env"})), TEXT, max_size=8))
def test_any_flags_give_a_job_or_problems_of_theirs(flags: dict[str, object]) -> None:
    problems, message = [], ""
    try:
        resolve({"script": "x", **flags}, {}, "/proc/self/task")
    except SpecError as error:
        problems, message = list(error.problems), str(error)
    assert {problem.path for problem in problems} <= set(BY_PATH)
    assert message.replace("\n", "").isprintable()
