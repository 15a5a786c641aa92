"""The group by an URL of MASTER_ADDR, in which nobody thought of IPv6's brackets."""

import os

import torch
import torch.distributed as dist


def main():
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    url = "tcp://{MASTER_ADDR}:{MASTER_PORT}".format(**os.environ)
    dist.init_process_group("gloo", init_method=url, rank=rank, world_size=size)
    numbers = torch.ones(1000)
    dist.all_reduce(numbers)
    print(f"rank {rank} of {size}: {numbers.sum():.0f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
