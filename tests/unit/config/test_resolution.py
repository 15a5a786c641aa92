"""The table and the model hold the same; layers, their order and their origins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.asked import asked, wrong
from torchnet.config.dump import value_at
from torchnet.config.job_spec import JobSpec
from torchnet.config.resolution import resolve
from torchnet.config.settings import BY_PATH, FIELDS


def test_the_table_and_the_model_hold_the_same_fields() -> None:
    job = JobSpec(script="x.py")
    groups = {name: getattr(job, name) for name in ("network", "run", "tune", "output", "kubernetes")}
    # This host's part of a job on several hosts is not a setting of the job.
    paths = {name for name in JobSpec.model_fields if name not in (*groups, "host_line")}
    for name, group in groups.items():
        paths |= {
            f"{name}.{field.alias or attribute}" for attribute, field in type(group).model_fields.items()
        }
    assert paths == set(BY_PATH)


def test_flags_and_variables_are_each_one_fields() -> None:
    flags = [flag for field in FIELDS if not field.keyed for flag in (field.flag, field.short) if flag]
    flags += {field.flag for field in FIELDS if field.keyed}
    assert len(flags) == len(set(flags))
    variables = [field.env for field in FIELDS if field.env]
    assert len(variables) == len(set(variables))
    assert BY_PATH["tune.bucket_cap_mb"].env == "TORCHNET_TUNE_BUCKET_CAP_MB"
    assert BY_PATH["network.rate"].env == "TORCHNET_RATE"
    assert BY_PATH["output.min_share"].env == "TORCHNET_MIN_SHARE"


# As a person would write the table's text for the default; the others are checked by value.
SHOWN_DEFAULTS = {
    "run.grace": "30s",
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


# -- layers


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
        "run.signals": "SIGUSR1",
        "virtual_local_rank": "0",
        "output.no_prefix": "0",
        "output.local_ranks": "0",
        "output.log_dir": "logs",
        "output.tee": "0:1,1:3",
        "output.redirects": "3",
        "output.ranks": "0-2",
        "output.json": "r.json",
        "output.min_share": "0.5",
        "output.quiet": "yes",
        "output.measure": "yes",
        "output.full_receipt": "yes",
        "tune.compress": "bf16",
        "tune.gloo_devices": "2",
        "tune.nccl_socket_nthreads": "2",
        "tune.nccl_nsocks_perthread": "2",
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


def test_variables_of_several_layers_come_together(tmp_path: Path) -> None:
    (tmp_path / "torchnet.toml").write_text('[env]\nA = "file"\nB = "file"\n')
    resolved = asked(tmp_path, {"env": ["A=flag=1", "C="]})
    assert resolved.job.env == {"A": "flag=1", "B": "file", "C": ""}
    assert resolved.origins["env.A"].where == "--env"
    assert resolved.origins["env.B"].where == "torchnet.toml: env.B"


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


def test_a_variable_with_a_slip_is_warned_of(tmp_path: Path) -> None:
    resolved = asked(tmp_path, {}, {"TORCHNET_RATES": "1gbit", "TORCHNET_TRACEBACK": "1", "OTHER": "x"})
    assert len(resolved.warnings) == 1
    assert "TORCHNET_RATE" in resolved.warnings[0]


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert asked(tmp_path, {}, {"TORCHNET_NNODES": ""}).origins["nnodes"].layer == "default"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ('"prod/rail0"', ()),
        ('["prod/rail0", "rdma:mlx5_0"]', ("rdma:mlx5_0",)),
        ('"host:ens5,rdma:mlx5_0,mlx5_1"', ("host:ens5", "rdma:mlx5_0,mlx5_1")),
    ],
)
def test_hosts_take_those_networks_of_a_file_that_hosts_can_have(
    tmp_path: Path, written: str, kept: tuple[str, ...]
) -> None:
    (tmp_path / "torchnet.toml").write_text(f"[network]\nnetworks = {written}\n")
    assert asked(tmp_path, {"on": "hosts"}).job.network.networks == kept
