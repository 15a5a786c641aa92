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

from tests.unit.process_environment import INPUTS, ONE_RAIL, values
from torchnet.network.env_vars import build, covering_prefix, explain


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
        "NCCL_CROSS_NIC": "0",
        "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": "=net1,net2",
        "NVSHMEM_BOOTSTRAP_UID_SOCK_FAMILY": "AF_INET6",
        "TP_SOCKET_IFNAME": "net1",
        "UCX_NET_DEVICES": "net1,net2",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def test_settings_of_a_tuning() -> None:
    tuned = values(replace(INPUTS, gloo_devices=2, nccl_threads="4", nccl_sockets="2"))
    assert tuned["GLOO_SOCKET_IFNAME"] == "net1,net2,net1,net2"
    assert (tuned["NCCL_SOCKET_NTHREADS"], tuned["NCCL_NSOCKS_PERTHREAD"]) == ("4", "2")
    # The others take each interface once.
    assert (tuned["NCCL_SOCKET_IFNAME"], tuned["UCX_NET_DEVICES"]) == ("=net1,net2", "net1,net2")


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
    assert (found["NVSHMEM_HCA_LIST"], found["NVSHMEM_ENABLE_NIC_PE_MAPPING"]) == ("mlx5_0,mlx5_1:2", "1")
    assert "NCCL_NET" not in found
    assert "NCCL_IB_GID_INDEX" not in {variable.name for variable in explain()}
    assert not any(name.startswith("NCCL_IB") for name in values(INPUTS))
    assert not any(name.startswith("NCCL_IB") for name in values(replace(inputs, loopback=True)))
    # The user named the devices: they are confined to, but their addresses need not be the rails'.
    declared = values(replace(inputs, rdma_declared=True))
    assert declared["NCCL_IB_HCA"] == found["NCCL_IB_HCA"]
    assert not any(name.startswith("NCCL_IB_ADDR") for name in declared)
    assert values(replace(inputs, rdma_declared=True, ib_hca="mlx5_0"))["NCCL_IB_HCA"] == "mlx5_0"
    assert declared["NVSHMEM_HCA_LIST"] == found["NVSHMEM_HCA_LIST"]


def test_libraries_with_variables_of_their_own() -> None:
    assert "NVTE_UB_SOCKET_IFNAME" not in values(INPUTS)
    found = values(replace(INPUTS, ipv4_interface="eth0", socket_ifname="eth1"))
    assert found["NVTE_UB_SOCKET_IFNAME"] == "eth0"
    assert found["NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME"] == "eth1"
    assert found["NCCL_SOCKET_IFNAME"] == "=net1,net2"
    declared = values(replace(INPUTS, socket_ifname="eth1", socket_declared=True))
    assert declared["NCCL_SOCKET_IFNAME"] == "eth1"


def test_only_local_networks_keep_nccl_from_rdma_and_plugins() -> None:
    assert "NCCL_NET" not in values(INPUTS)
    assert values(replace(INPUTS, local=True))["NCCL_NET"] == "Socket"
    assert "NCCL_NET" not in values(replace(INPUTS, local=True, loopback=True))


def test_threads_where_processes_share_the_machine() -> None:
    assert "OMP_NUM_THREADS" not in values(replace(INPUTS, nproc=1))
    assert values(replace(INPUTS, nproc=1, cpus_per_rank=4))["OMP_NUM_THREADS"] == "4"
    assert values(replace(INPUTS, nproc=1, cpus_per_rank=0))["OMP_NUM_THREADS"] == "1"
    # As under torchrun, on however many CPUs.
    assert values(replace(INPUTS, nproc=2, cpus_per_rank=8))["OMP_NUM_THREADS"] == "1"


def test_libuv_only_where_it_is_known_to_lack() -> None:
    assert values(replace(INPUTS, libuv=False))["USE_LIBUV"] == "0"
    assert "USE_LIBUV" not in values(replace(INPUTS, libuv=True))
    assert "USE_LIBUV" not in values(INPUTS)


def test_gpus() -> None:
    assert values(replace(INPUTS, gpus=("2", "3")))["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert values(replace(INPUTS, gpus=()))["CUDA_VISIBLE_DEVICES"] == "-1"
    assert "CUDA_VISIBLE_DEVICES" not in values(INPUTS)
    amd = values(replace(INPUTS, gpus=("2", "3"), hip=True))
    assert amd["HIP_VISIBLE_DEVICES"] == amd["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "HIP_VISIBLE_DEVICES" not in values(replace(INPUTS, gpus=("2",)))


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
        hip=True,
        ipv4_interface="net1",
        hostid="h",
        local=True,
        rdma=("mlx5_0",),
        rdma_prefix="fcbb::/64",
        user="u",
        home="/h",
        cache_dir="/c",
        nccl_threads="4",
        nccl_sockets="2",
    )
    built = {variable.name for variable in build(everything)} | {variable.name for variable in build(INPUTS)}
    assert built == set(names)
    for variable in table:
        assert variable.value
        assert variable.reason.endswith(".")
        assert variable.source
        assert variable.owned != bool(variable.consequence)  # what may be the user's says what follows


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
    smallest = networks[0]
    while not all(network.subnet_of(smallest) for network in networks):
        smallest = smallest.supernet()
    local = smallest.overlaps(ipaddress.IPv6Network("fe80::/10"))
    assert cover == (None if local else str(smallest))


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
