"""Layers, their order and their origins; wrong values all at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from torchnet.spec.fields import BY_PATH, FIELDS
from torchnet.spec.model import JobSpec
from torchnet.spec.problems import SpecError
from torchnet.spec.resolve import Resolved, resolve
from torchnet.spec.show import value_at


def asked(
    cwd: Path, flags: dict[str, object], environ: dict[str, str] | None = None, config: str | None = None
) -> Resolved:
    return resolve({"script": "train.py", **flags}, environ or {}, cwd, config)


def wrong(cwd: Path, flags: dict[str, object], **more: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        asked(cwd, flags, **more)
    return caught.value


def test_the_table_and_the_model_hold_the_same_fields() -> None:
    job = JobSpec(script="x.py")
    groups = {"network": job.network, "run": job.run, "output": job.output, "kubernetes": job.kubernetes}
    paths = {name for name in JobSpec.model_fields if name not in groups}
    for name, group in groups.items():
        paths |= {
            f"{name}.{field.alias or attribute}" for attribute, field in type(group).model_fields.items()
        }
    assert paths == set(BY_PATH)


def test_flags_and_variables_are_each_one_fields() -> None:
    flags = [flag for field in FIELDS for flag in (field.flag, field.short) if flag]
    assert len(flags) == len(set(flags))
    assert BY_PATH["network.rate"].env == "TORCHNET_RATE"
    assert BY_PATH["output.min_share"].env == "TORCHNET_MIN_SHARE"


# As a person would write the table's text for the default; the others are checked by value.
SHOWN_DEFAULTS = {
    "run.grace": "10s",
    "run.link_grace": "5s",
    "run.stall_timeout": "5min",
    "run.start_timeout": "5min",
}


def test_the_tables_defaults_are_the_models() -> None:
    job = JobSpec(script="x.py")
    for field in FIELDS:
        value = value_at(job, field)
        if value is None or value in ((), {}) or field.path == "script":
            continue
        if field.switch:
            assert value is False
        elif field.path in SHOWN_DEFAULTS:
            assert field.default == SHOWN_DEFAULTS[field.path]
            assert (
                resolve({"script": "x", field.path: field.default}, {}).job
                == resolve({"script": "x"}, {}).job
            )
        else:
            assert field.default == str(value)


def test_without_a_word_everything_is_a_default(tmp_path: Path) -> None:
    resolved = asked(tmp_path, {})
    assert resolved.job == JobSpec(script="train.py")
    assert set(resolved.origins) == set(BY_PATH)
    by_hand = {path for path, origin in resolved.origins.items() if origin.layer != "default"}
    assert by_hand == {"script", "args"}


def test_the_job_is_frozen() -> None:
    job = JobSpec(script="x.py")
    with pytest.raises(ValidationError):
        job.nnodes = 3
    with pytest.raises(ValidationError):
        job.network.mtu = 1500


LAYERS = ("flag", "environment", "job file", "project file")


@settings(deadline=None)
@given(present=st.sets(st.sampled_from(LAYERS)))
def test_the_highest_layer_that_has_a_value_wins(
    tmp_path_factory: pytest.TempPathFactory, present: set[str]
) -> None:
    cwd = tmp_path_factory.mktemp("layers")
    flags: dict[str, object] = {"nnodes": "3"} if "flag" in present else {}
    environ = {"TORCHNET_NNODES": "4"} if "environment" in present else {}
    config = None
    if "job file" in present:
        (cwd / "job.toml").write_text("nnodes = 5")
        config = "job.toml"
    if "project file" in present:
        (cwd / "torchnet.toml").write_text("nnodes = 6")
    resolved = asked(cwd, flags, environ, config)
    highest = next((layer for layer in LAYERS if layer in present), "default")
    expected = {"flag": 3, "environment": 4, "job file": 5, "project file": 6, "default": 2}
    where = {
        "flag": "--nnodes",
        "environment": "TORCHNET_NNODES",
        "job file": "job.toml: nnodes",
        "project file": "torchnet.toml: nnodes",
        "default": "default",
    }
    assert resolved.job.nnodes == expected[highest]
    assert (resolved.origins["nnodes"].layer, resolved.origins["nnodes"].where) == (highest, where[highest])


def test_every_variable_of_the_table_is_read(tmp_path: Path) -> None:
    samples = {
        "on": "local",
        "module": "1",
        "no_python": "0",
        "standalone": "0",
        "nproc_per_node": "gpu",
        "run_id": "a",
        "network.networks": "",
        "network.rate": "1gbit",
        "network.faults": "node-1:net1:no-carrier@2+3",
        "network.family": "ipv6",
        "network.preflight": "full",
        "run.stall_action": "stop",
        "output.log_dir": "logs",
        "output.tee": "0:1,1:3",
        "output.redirects": "3",
        "output.ranks": "0-2",
        "output.json": "r.json",
        "output.min_share": "0.5",
        "output.quiet": "yes",
    }
    (tmp_path / "3000").write_text("A=1\n")  # of --env-file
    environ = {field.env: samples.get(field.path, "3000") for field in FIELDS if field.env}
    environ |= {"TORCHNET_NNODES": "7", "TORCHNET_MAX_RESTARTS": "1", "TORCHNET_RAILS": "2"}
    resolved = asked(tmp_path, {}, environ)
    for field in FIELDS:
        if environ.get(field.env) and field.only != "kubernetes":
            assert resolved.origins[field.path].where == field.env
    assert resolved.job.nproc_per_node == "gpu"
    assert resolved.job.output.ranks == (0, 1, 2)
    assert resolved.job.output.tee == "0:1,1:3"


def test_all_wrong_fields_are_told_at_once(tmp_path: Path) -> None:
    error = wrong(tmp_path, {"nnodes": "0", "network.rate": "fast", "output.min_share": "2"})
    lines = str(error).splitlines()
    assert lines[0] == "3 things are wrong with this job:"
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
    "network.rails": ("0", "1", "8", "9"),
    "network.rate": ("999999", "1mbit", "30gbit", "30000000001"),
    "network.mtu": ("1279", "1280", "65535", "65536"),
    "run.max_restarts": ("-1", "0", "1000", "1001"),
    "output.min_share": ("-0.1", "0", "1", "1.01"),
}


@pytest.mark.parametrize(("path", "values"), BOUNDS.items(), ids=str)
def test_bounds(tmp_path: Path, path: str, values: tuple[str, str, str, str]) -> None:
    below, low, high, above = values
    for good in (low, high):
        asked(tmp_path, {path: good})
    for bad in (below, above):
        (problem,) = wrong(tmp_path, {path: bad}).problems
        assert problem.path == path


@pytest.mark.parametrize("path", ["run.start_timeout", "run.timeout"])
def test_a_limit_of_no_time_is_no_limit(tmp_path: Path, path: str) -> None:
    assert wrong(tmp_path, {path: "0"}).problems[0].path == path


def test_without_a_script(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="script: is missing"):
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


def test_variables_of_several_layers_come_together(tmp_path: Path) -> None:
    (tmp_path / "torchnet.toml").write_text('[env]\nA = "file"\nB = "file"\n')
    resolved = asked(tmp_path, {"env": ["A=flag=1", "C="]})
    assert resolved.job.env == {"A": "flag=1", "B": "file", "C": ""}
    assert resolved.origins["env.A"].where == "--env"
    assert resolved.origins["env.B"].where == "torchnet.toml: env.B"


def test_an_elastic_range_is_refused_with_the_reason(tmp_path: Path) -> None:
    (problem,) = wrong(tmp_path, {"nnodes": "1:4"}).problems
    assert "elastic" in problem.what
    assert asked(tmp_path, {"nnodes": "3:3"}).job.nnodes == 3


def test_standalone_is_one_node(tmp_path: Path) -> None:
    resolved = asked(tmp_path, {"standalone": True})
    assert resolved.job.nnodes == 1
    assert resolved.origins["nnodes"].where == "--standalone"
    assert JobSpec(script="x", standalone=True).nnodes == 1
    assert asked(tmp_path, {"standalone": True, "nnodes": "1"}).job.nnodes == 1
    assert wrong(tmp_path, {"standalone": True, "nnodes": "2"}).problems[0].path == "standalone"


def test_the_higher_of_standalone_and_nnodes_wins(tmp_path: Path) -> None:
    assert asked(tmp_path, {"nnodes": "4"}, {"TORCHNET_STANDALONE": "1"}).job.nnodes == 4
    assert asked(tmp_path, {"standalone": True}, {"TORCHNET_NNODES": "4"}).job.nnodes == 1
    assert asked(tmp_path, {}, {"TORCHNET_NNODES": "4", "TORCHNET_STANDALONE": "0"}).job.nnodes == 4


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


def test_a_variable_with_a_slip_is_warned_of(tmp_path: Path) -> None:
    resolved = asked(tmp_path, {}, {"TORCHNET_RATES": "1gbit", "TORCHNET_TRACEBACK": "1", "OTHER": "x"})
    assert len(resolved.warnings) == 1
    assert "TORCHNET_RATE" in resolved.warnings[0]


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert asked(tmp_path, {}, {"TORCHNET_NNODES": ""}).origins["nnodes"].layer == "default"


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
