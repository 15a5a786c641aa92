"""The smallest training script: join a group, run one all-reduce, and print when it finished."""

import os
import time

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
ones = torch.ones(1024)
dist.all_reduce(ones)
assert ones[0] == dist.get_world_size()
if dist.get_rank() == 0:
    # CLOCK_MONOTONIC is the same in all namespaces of a machine, so startup.py can subtract.
    print(f"done at {time.monotonic():.6f} after {os.environ['MASTER_ADDR']}", flush=True)
dist.destroy_process_group()
