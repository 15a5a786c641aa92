"""torch's ways to divide a model: a device mesh, tensor parallelism and FSDP2; `checkpoint` keeps and restores it."""

import os
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


def main():
    world_size = int(os.environ["WORLD_SIZE"])
    mesh = init_device_mesh("cpu", (world_size // 2, 2), mesh_dim_names=("dp", "tp"))  # starts the group, too
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
    parallelize_module(model, mesh["tp"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    fully_shard(model, mesh=mesh["dp"])
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(3):
        torch.manual_seed(step)
        model(torch.randn(8, 64)).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    if sys.argv[1:] == ["checkpoint"]:
        weights, moments = get_state_dict(model, optimizer)
        dcp.async_save({"model": weights}, checkpoint_id="weights").result()
        dcp.save({"model": weights, "optimizer": moments}, checkpoint_id="whole")
        dcp.load({"model": weights, "optimizer": moments}, checkpoint_id="whole")
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
        print("restored")
    print(f"rank {dist.get_rank()} of {dist.get_world_size()}: trained as {mesh.get_coordinate()}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
