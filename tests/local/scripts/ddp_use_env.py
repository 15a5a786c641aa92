"""DDP as it was written for `torch.distributed.launch --use-env` and works under torchrun: --local-rank, @record."""

import argparse
import os

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


@record
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--local-rank", "--local_rank", type=int, default=int(os.environ["LOCAL_RANK"]))
    local_rank = parser.parse_args().local_rank
    dist.init_process_group("gloo", init_method="env://")
    assert dist.is_torchelastic_launched()

    data = TensorDataset(torch.randn(256, 20), torch.randn(256, 1))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=16, sampler=sampler, num_workers=1, persistent_workers=True)
    model = DistributedDataParallel(torch.nn.Linear(20, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for inputs, targets in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
    dist.monitored_barrier()
    print(f"rank {dist.get_rank()} of {dist.get_world_size()}, locally {local_rank}: trained")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
