"""Lightning's quick start: its own demonstration model, which finds its place by torchrun's variables."""

import os

from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel


def main():
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        num_nodes=int(os.environ["GROUP_WORLD_SIZE"]),
        max_epochs=2,
        limit_train_batches=4,
        limit_val_batches=2,
        logger=False,
        enable_progress_bar=False,
    )
    trainer.fit(BoringModel())
    print(f"rank {trainer.global_rank} of {trainer.world_size}: node {trainer.node_rank} fitted")


if __name__ == "__main__":
    main()
