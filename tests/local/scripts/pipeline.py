"""torch.distributed.pipelining: one stage on each rank, forward and backward in turn."""

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, Schedule1F1B


def main():
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    stage = PipelineStage(torch.nn.Linear(64, 64), rank, size, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=4, loss_fn=torch.nn.functional.mse_loss)
    for _ in range(2):
        losses = []
        if rank == 0:
            schedule.step(torch.randn(16, 64))
        elif rank == size - 1:
            schedule.step(target=torch.randn(16, 64), losses=losses)
            assert len(losses) == 4, losses
        else:
            schedule.step()
    dist.barrier()
    print(f"rank {rank} of {size}: piped")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
