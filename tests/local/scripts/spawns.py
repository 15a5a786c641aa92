"""A rank that starts processes of its own, which meet on localhost, and afterwards joins the job's group."""

import os
import socket
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def private(rank, size, port):
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=size)
    numbers = torch.ones(1000)
    dist.all_reduce(numbers)
    assert numbers.sum() == 1000 * size
    dist.destroy_process_group()


def main():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    mp.spawn(private, args=(2, port), nprocs=2)
    dist.init_process_group("gloo", init_method="env://")
    with ProcessPoolExecutor(2, mp_context=mp.get_context("fork")) as pool:
        assert list(pool.map(abs, [-1, -2])) == [1, 2]
    numbers = torch.ones(1000)
    dist.all_reduce(numbers)
    print(f"rank {dist.get_rank()} of {dist.get_world_size()}: {numbers.sum():.0f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
