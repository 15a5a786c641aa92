"""torch.distributed.rpc: calls, references to remote values, and gradients through both."""

import os

import torch
import torch.distributed.autograd as dist_autograd
from torch.distributed import rpc


def double(numbers):
    return 2 * numbers


def main():
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    rpc.init_rpc(f"worker{rank}", rank=rank, world_size=size)
    if rank == 0:
        for other in range(1, size):
            ones = torch.ones(100_000)
            assert rpc.remote(f"worker{other}", double, args=(ones,)).to_here().sum() == 200_000
        with dist_autograd.context() as context:
            weight = torch.ones(10, requires_grad=True)
            loss = rpc.rpc_sync("worker1", torch.mul, args=(weight, 3)).sum()
            dist_autograd.backward(context, [loss])
            assert dist_autograd.get_gradients(context)[weight].sum() == 30
    rpc.shutdown()
    print(f"rank {rank} of {size}: called")


if __name__ == "__main__":
    main()
