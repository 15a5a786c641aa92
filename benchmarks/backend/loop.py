"""The usual loop to measure a network: repeated all-reduce. Needs only torch.

torchrun --nproc-per-node 2 loop.py [MEBIBYTES] [SECONDS]
"""

import sys
import time

import torch
import torch.distributed as dist

size, seconds = (int(sys.argv[1]) if len(sys.argv) > 1 else 64) << 20, float((sys.argv + ["", "3"])[2])
dist.init_process_group("gloo")
ranks = dist.get_world_size()
tensor = torch.zeros(size // 4)
for _ in range(3):
    dist.all_reduce(tensor)
dist.barrier()
began, calls, more = time.perf_counter(), 0, torch.ones(1)
while more:
    for _ in range(3):
        dist.all_reduce(tensor)
    calls += 3
    more.fill_(time.perf_counter() - began < seconds)
    dist.broadcast(more, 0)
if dist.get_rank() == 0:
    print(f"busbw {2 * (ranks - 1) / ranks * size * calls / (time.perf_counter() - began):.0f}", flush=True)
dist.destroy_process_group()
