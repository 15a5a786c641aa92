"""The environment of a process: torchrun's, and what keeps the collectives on the backend."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.network.environment import (
    EnvironmentInputs,
    Variable,
    build,
    covering_prefix,
    explain,
    merge,
)

# One of six processes on two nodes with two rails each.
INPUTS = EnvironmentInputs(
    rank=4,
    local_rank=1,
    world_size=6,
    nnodes=2,
    nproc=3,
    node_rank=1,
    run_id="quiet-otter",
    rails=(("net1", "fcbb:0:800:ffff::2"), ("net2", "fcbb:0:800:fffe::2")),
    family=6,
    master_addr="fcbb:0:800:ffff::1",
    master_port=29501,
    error_file="/tmp/errors/4.json",
    restart_count=1,
    max_restarts=2,
)
ONE_RAIL = replace(INPUTS, rails=INPUTS.rails[:1])


def values(inputs: EnvironmentInputs) -> dict[str, str]:
    return {variable.name: variable.value for variable in build(inputs)}


def test_the_whole_table() -> None:
    assert values(INPUTS) == {
        "RANK": "4",
        "WORLD_SIZE": "6",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "3",
        "GROUP_RANK": "1",
        "GROUP_WORLD_SIZE": "2",
        "NODE_RANK": "1",
        "ROLE_NAME": "default",
        "ROLE_RANK": "4",
        "ROLE_WORLD_SIZE": "6",
        "TORCHELASTIC_RUN_ID": "quiet-otter",
        "TORCHELASTIC_RESTART_COUNT": "1",
        "TORCHELASTIC_MAX_RESTARTS": "2",
        "TORCHELASTIC_ERROR_FILE": "/tmp/errors/4.json",
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "MASTER_ADDR": "fcbb:0:800:ffff::1",
        "MASTER_PORT": "29501",
        "GLOO_SOCKET_IFNAME": "net1,net2",
        "TORCHCOMM_GLOO_INTERFACE": "net1",
        "NCCL_SOCKET_IFNAME": "=net1,net2",
        "NCCL_SOCKET_FAMILY": "AF_INET6",
        "NCCL_NET": "Socket",
        "NCCL_CROSS_NIC": "0",
        "TP_SOCKET_IFNAME": "net1",
        "UCX_NET_DEVICES": "net1,net2",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def test_one_rail_crosses_none() -> None:
    assert "NCCL_CROSS_NIC" not in values(ONE_RAIL)
    assert values(ONE_RAIL)["GLOO_SOCKET_IFNAME"] == "net1"


def test_ipv4() -> None:
    inputs = replace(ONE_RAIL, family=4, master_addr="10.9.0.1", rails=(("net1", "10.9.0.2"),))
    assert values(inputs)["NCCL_SOCKET_FAMILY"] == "AF_INET"


def test_rdma() -> None:
    inputs = replace(INPUTS, rdma=("mlx5_0", "mlx5_1:2"), rdma_prefix="fcbb:0:800:fffe::/63")
    found = values(inputs)
    assert found["NCCL_IB_HCA"] == "=mlx5_0,mlx5_1:2"
    assert found["NCCL_IB_ADDR_FAMILY"] == "AF_INET6"
    assert found["NCCL_IB_ADDR_RANGE"] == "fcbb:0:800:fffe::/63"
    assert found["UCX_NET_DEVICES"] == "mlx5_0:1,mlx5_1:2,net1,net2"
    assert "NCCL_NET" not in found
    assert "NCCL_IB_GID_INDEX" not in {variable.name for variable in explain()}
    assert not any(name.startswith("NCCL_IB") for name in values(INPUTS))
    assert not any(name.startswith("NCCL_IB") for name in values(replace(inputs, loopback=True)))
    assert "NCCL_NET" not in values(replace(INPUTS, loopback=True))


def test_threads_where_processes_share_the_machine() -> None:
    assert "OMP_NUM_THREADS" not in values(replace(INPUTS, nproc=1))
    assert values(replace(INPUTS, nproc=1, cpus_per_rank=4))["OMP_NUM_THREADS"] == "4"
    assert values(replace(INPUTS, cpus_per_rank=0))["OMP_NUM_THREADS"] == "1"


def test_libuv_only_where_it_is_known_to_lack() -> None:
    assert values(replace(INPUTS, libuv=False))["USE_LIBUV"] == "0"
    assert "USE_LIBUV" not in values(replace(INPUTS, libuv=True))
    assert "USE_LIBUV" not in values(INPUTS)


def test_gpus() -> None:
    assert values(replace(INPUTS, gpus=("2", "3")))["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert values(replace(INPUTS, gpus=()))["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in values(INPUTS)


def test_local_nodes_and_users_without_a_name() -> None:
    found = values(replace(INPUTS, hostid="node-1", user="torchnet", home="/tmp/h", cache_dir="/tmp/c"))
    assert found["NCCL_HOSTID"] == "node-1"
    assert found["USER"] == found["LOGNAME"] == "torchnet"
    assert found["HOME"] == "/tmp/h"
    assert found["TORCHINDUCTOR_CACHE_DIR"] == "/tmp/c"


@pytest.mark.parametrize("address", ["[fcbb::1]", "node-0", "", "fe80::1%net1"])
def test_master_addr_is_a_bare_literal(address: str) -> None:
    with pytest.raises(ValueError, match="bare IP literal"):
        replace(INPUTS, master_addr=address)


def test_a_worker_has_a_rail() -> None:
    with pytest.raises(ValueError, match="rails"):
        replace(INPUTS, rails=())


def test_explain_covers_everything_that_build_gives() -> None:
    table = explain()
    names = [variable.name for variable in table]
    assert len(names) == len(set(names))
    everything = replace(
        INPUTS,
        libuv=False,
        gpus=("0",),
        hostid="h",
        rdma=("mlx5_0",),
        rdma_prefix="fcbb::/64",
        user="u",
        home="/h",
        cache_dir="/c",
    )
    built = {variable.name for variable in build(everything)} | {variable.name for variable in build(INPUTS)}
    assert built == set(names)
    for variable in table:
        assert variable.value
        assert variable.reason.endswith(".")
        assert variable.source
        assert variable.owned != bool(variable.consequence)  # what may be the user's says what follows


def test_what_the_user_set_wins_with_a_warning() -> None:
    env, warnings = merge({"NCCL_SOCKET_IFNAME": "eth0", "PATH": "/bin"}, build(INPUTS))
    assert env["NCCL_SOCKET_IFNAME"] == "eth0"
    assert env["PATH"] == "/bin"
    [warning] = warnings
    assert warning == (
        "NCCL_SOCKET_IFNAME=eth0 stays as you set it (torchnet would set =net1,net2): NCCL listens there, and its "
        "traffic may leave the backend"
    )


def test_equal_values_warn_of_nothing() -> None:
    assert merge({"PYTHONUNBUFFERED": "1"}, build(INPUTS))[1] == ()


def test_a_stale_identity_is_replaced_and_said_once() -> None:
    stale = {"MASTER_ADDR": "10.0.0.9", "RANK": "7", "WORLD_SIZE": "6"}
    env, warnings = merge(stale, build(INPUTS))
    assert (env["MASTER_ADDR"], env["RANK"]) == ("fcbb:0:800:ffff::1", "4")
    assert warnings == (
        "RANK, WORLD_SIZE, MASTER_ADDR of your environment: replaced, torchnet gives each process its own",
    )
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
        ("GLOO_SOCKET_IFNAME", "", "empty counts as unset"),
        ("GLOO_SOCKET_IFNAME", "eth0", "may leave the backend"),
        ("NCCL_COMM_ID", "1.2.3.4:5", "unset it"),
        ("NCCL_IB_GID_INDEX", "3", "differs from worker to worker"),
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


@pytest.mark.parametrize(
    ("networks", "cover"),
    [
        (["fcbb:0:800:ffff::2/64"], "fcbb:0:800:ffff::/64"),
        (["fcbb:0:800:ffff::2/64", "fcbb:0:800:fffe::2/64"], "fcbb:0:800:fffe::/63"),
        (["10.1.2.3/24", "10.1.9.3/24"], "10.1.0.0/20"),
        (["10.1.2.3/24", "fcbb::1/64"], None),
        (["10.1.2.3/24", "192.168.0.1/24"], None),
        (["fcbb::1/64", "fe80::1/64"], None),
        ([], None),
    ],
)
def test_covering_prefix(networks: list[str], cover: str | None) -> None:
    assert covering_prefix(networks) == cover


@given(st.lists(st.tuples(st.ip_addresses(v=6), st.integers(8, 128)), min_size=1, max_size=4))
def test_covering_prefix_is_the_smallest(pairs: list[tuple[ipaddress.IPv6Address, int]]) -> None:
    networks = [ipaddress.IPv6Interface(pair).network for pair in pairs]
    cover = covering_prefix([f"{address}/{prefix}" for address, prefix in pairs])
    if cover is None:
        return
    found = ipaddress.IPv6Network(cover)
    assert all(network.subnet_of(found) for network in networks)
    if found.prefixlen < 128:
        assert not any(all(n.subnet_of(half) for n in networks) for half in found.subnets())


# What the real torchrun puts into a process, against the table.
DUMP = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1] + os.environ['RANK'], 'w'))"


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch: uv sync")
def test_everything_that_torchrun_sets(tmp_path: Path) -> None:
    script = tmp_path / "dump.py"
    script.write_text(DUMP)
    outside = {name: value for name, value in os.environ.items() if name not in values(INPUTS)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=2", str(script), f"{tmp_path}/env"]
    subprocess.run(command, env=outside, check=True, capture_output=True, timeout=120)
    theirs = json.loads((tmp_path / "env1").read_text())
    ours = values(
        replace(
            ONE_RAIL,
            rank=1,
            world_size=2,
            nnodes=1,
            nproc=2,
            node_rank=0,
            restart_count=0,
            run_id=theirs["TORCHELASTIC_RUN_ID"],
            error_file=theirs["TORCHELASTIC_ERROR_FILE"],
        )
    )
    added = {name: value for name, value in theirs.items() if outside.get(name) != value}
    assert set(added) <= set(ours)
    # torchrun's agent hosts the store itself, at an address of its own.
    differ = {name for name, value in added.items() if ours[name] != value}
    assert differ <= {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"}


def test_variables_are_plain_data() -> None:
    assert Variable("A", "b", "c", "d") == Variable("A", "b", "c", "d", False, "")
