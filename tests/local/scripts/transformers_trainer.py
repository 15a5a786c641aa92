"""transformers' Trainer on a tiny model with random weights: nothing is downloaded."""

import torch
from transformers import AutoModelForCausalLM, GPT2Config, Trainer, TrainingArguments


def main():
    config = GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=128, n_positions=32)
    numbers = torch.randint(0, 128, (32, 16))
    arguments = TrainingArguments(
        "checkpoints", max_steps=3, per_device_train_batch_size=4, save_steps=3, use_cpu=True, report_to=[]
    )
    trainer = Trainer(
        model=AutoModelForCausalLM.from_config(config),
        args=arguments,
        train_dataset=[{"input_ids": row, "labels": row} for row in numbers],
    )
    trainer.train()
    print(f"rank {arguments.process_index} of {arguments.world_size}: trained")


if __name__ == "__main__":
    main()
