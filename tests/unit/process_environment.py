"""A process whose environment is made, and what it is."""

from __future__ import annotations

from dataclasses import replace

from torchnet.network.env_vars import EnvironmentInputs, build

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
