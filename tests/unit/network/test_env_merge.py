"""The environment that the user brings, merged with a process's own: what wins, and with what warning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.process_environment import INPUTS
from torchnet.network.env_vars import build, explain, merge


def test_what_the_user_set_wins_with_a_warning() -> None:
    env, warnings = merge({"NCCL_SOCKET_IFNAME": "eth0", "PATH": "/bin"}, build(INPUTS))
    assert env["NCCL_SOCKET_IFNAME"] == "eth0"
    assert env["PATH"] == "/bin"
    [warning] = warnings
    assert warning.startswith("NCCL_SOCKET_IFNAME=eth0 ")
    assert "=net1,net2" in warning
    assert "may leave the backend" in warning


def test_equal_values_warn_of_nothing() -> None:
    assert merge({"PYTHONUNBUFFERED": "1"}, build(INPUTS))[1] == ()


def test_a_stale_identity_is_replaced_and_said_once() -> None:
    stale = {"MASTER_ADDR": "10.0.0.9", "RANK": "7", "WORLD_SIZE": "6"}
    env, warnings = merge(stale, build(INPUTS))
    assert (env["MASTER_ADDR"], env["RANK"]) == ("fcbb:0:800:ffff::1", "4")
    assert len(warnings) == 1
    assert "RANK, WORLD_SIZE, MASTER_ADDR" in warnings[0]
    other_rank = merge(stale, build(replace(INPUTS, rank=7)))[1]
    assert other_rank == warnings


def test_gpus_dealt_out_of_the_users_are_no_loss() -> None:
    variables = build(replace(INPUTS, gpus=("3",)))
    env, warnings = merge({"CUDA_VISIBLE_DEVICES": "2, 3"}, variables)
    assert (env["CUDA_VISIBLE_DEVICES"], warnings) == ("3", ())
    assert "CUDA_VISIBLE_DEVICES" in merge({"CUDA_VISIBLE_DEVICES": "0"}, variables)[1][0]
    assert merge({"CUDA_VISIBLE_DEVICES": "0"}, build(replace(INPUTS, gpus=())))[1] == ()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GLOO_SOCKET_IFNAME", "=net1", "NCCL's notation"),
        ("GLOO_SOCKET_IFNAME", "^eth0", "NCCL's notation"),
        ("GLOO_SOCKET_IFNAME", "", "counts as unset"),
        ("GLOO_SOCKET_IFNAME", "eth0", "may leave the backend"),
        ("NCCL_COMM_ID", "1.2.3.4:5", "unset it"),
        ("NCCL_IB_GID_INDEX", "3", "differ between workers"),
        ("OMP_NUM_THREADS", "8", "compete"),
    ],
)
def test_consequences(name: str, value: str, said: str) -> None:
    env, [warning] = merge({name: value}, build(INPUTS))
    assert env[name] == value
    assert said in warning


def test_hostile_values_are_kept_and_escaped() -> None:
    hostile = "\x1b[31m\n$(reboot)\u202e"
    env, [warning] = merge({"GLOO_SOCKET_IFNAME": hostile}, build(INPUTS))
    assert env["GLOO_SOCKET_IFNAME"] == hostile
    assert warning.isprintable()


@given(st.dictionaries(st.sampled_from([v.name for v in explain()] + ["A", "B"]), st.text()))
def test_merge(user: dict[str, str]) -> None:
    before = dict(user)
    variables = build(INPUTS)
    env, _ = merge(user, variables)
    assert user == before
    assert set(env) == set(user) | {variable.name for variable in variables}
    for variable in variables:
        kept = variable.name in user and not variable.owned
        assert env[variable.name] == (user[variable.name] if kept else variable.value)
