"""Train a small network on handwritten digits with DistributedDataParallel, and test it on unseen images.

torchnet launch train.py, torchrun --nproc-per-node 2 train.py, or python train.py. Needs only
torch; the data is beside the script, and DIGITS.md describes it."""

import argparse
import csv
import gzip
import io
import os
import socket
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does; more do not help a model this small
with warnings.catch_warnings():  # importing torch warns if NumPy is missing, which is not needed here
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch

import torch.distributed as dist
import torch.distributed.nn.functional  # before the group exists: its defaults would keep the group alive
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

tune: Any = None
try:
    import torchnet

    tune = torchnet.tune
except (ImportError, AttributeError):  # another launcher, or PyPI's torchnet, a different package
    pass


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10**9, help="stop after this many optimizer steps")
    parser.add_argument("--batch-size", type=int, default=64, help="images per step, all ranks together")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the images' order")
    parser.add_argument("--model", choices=["small", "large"], default="small", help="large: 55 MB a step")
    parser.add_argument("--compress", choices=["none", "bf16"], help="compression of gradients")
    parser.add_argument("--checkpoint", type=Path, help="save after every epoch, and resume from it")
    return parser.parse_args()


def join() -> torch.device:
    """Join the process group that the launcher's environment describes, and print how."""
    device, backend = torch.device("cpu"), "gloo"
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count():  # one GPU per process
        device, backend = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    if "RANK" in os.environ:
        dist.init_process_group(backend)
        # Connecting a UDP socket sends nothing; the kernel chooses the address that rank 0 would see.
        host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            route = f"from {probe.getsockname()[0]} to {probe.getpeername()[0]}"
    else:  # started by hand: a world of size 1, which needs no address
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        route = "alone"
    print(f"rank {dist.get_rank()} of {dist.get_world_size()}: {backend} on {device}, {route}", flush=True)
    return device


def digits() -> tuple[Tensor, Tensor]:
    """Return images (1797, 1, 8, 8) with values from 0 to 1, and their labels (1797,)."""
    with gzip.open(Path(__file__).with_name("digits.csv.gz"), "rt") as file:
        rows = torch.tensor([[int(value) for value in row] for row in csv.reader(file)])
    return rows[:, :64].reshape(-1, 1, 8, 8) / 16, rows[:, 64]


def network(model: str) -> nn.Module:
    """Build the model, from images to logits (batch, 10). Batch norm is not used: its statistics would depend on the
    number of ranks."""
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()]
    layers += [nn.MaxPool2d(2), nn.Flatten()]
    widths = [512] if model == "small" else [512, 2048, 2048, 2048, 2048]
    for inputs, outputs in pairwise(widths):  # several layers: DDP sends one while it computes another
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


def load(path: Path | None) -> dict[str, Any]:
    """Return the checkpoint, or {}. Rank 0 reads the file, which others may not see, and broadcasts it."""
    data = bytearray(path.read_bytes() if path and path.exists() and dist.get_rank() == 0 else b"")
    size = torch.tensor(len(data))
    dist.broadcast(size, src=0)
    if size:  # as bytes, into the memory of `data`: the collectives for objects need NumPy
        data = data or bytearray(int(size))
        dist.broadcast(torch.frombuffer(data, dtype=torch.uint8), src=0)
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) if size else {}


def train(args: argparse.Namespace, device: torch.device) -> Tensor:
    """Train, test, and print the result on all ranks together. Return the number of correct answers over all ranks."""
    rank, world = dist.get_rank(), dist.get_world_size()
    images, labels = (tensor.to(device) for tensor in digits())
    held_out = torch.arange(len(images), device=device) % 5 == 4
    training = (~held_out).nonzero().flatten()

    torch.manual_seed(args.seed)
    model = network(args.model).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    if state := load(args.checkpoint):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    if tune is not None:  # with the bucket size and compression of torchnet's settings
        parallel = tune(model, compress=args.compress)
    else:
        parallel = nn.parallel.DistributedDataParallel(model)
        if args.compress == "bf16":
            parallel.register_comm_hook(None, bf16_compress_hook)

    for epoch in range(state.get("epochs", 0), args.epochs):
        rate = {"small": 3e-3, "large": 3e-4}[args.model] * (1 - epoch / args.epochs)
        optimizer.param_groups[0]["lr"] = rate
        random = torch.Generator().manual_seed(args.seed + epoch)  # a resumed training sees the same order
        order = training[torch.randperm(len(training), generator=random).to(device)]
        batches = order.split(args.batch_size)[: args.steps]
        if not batches:
            break
        total, since = torch.zeros((), device=device), time.perf_counter()
        for batch in batches:
            mine = batch[rank::world]  # the ranks' parts differ by at most one image, and may be empty
            loss = nn.functional.cross_entropy(parallel(images[mine]), labels[mine], reduction="sum")
            optimizer.zero_grad()
            (loss * world / len(batch)).backward()  # DDP's mean over ranks becomes the mean over the images
            optimizer.step()
            total += loss.detach()
        dist.all_reduce(total)
        args.steps -= len(batches)
        seen = sum(map(len, batches))
        if rank == 0:
            speed = len(batches) / (time.perf_counter() - since)
            loss = total / seen
            print(f"epoch {epoch + 1} of {args.epochs}: loss {loss:.4f}, {speed:.2f} steps/s", flush=True)
        if rank == 0 and args.checkpoint and seen == len(training):
            state = {"epochs": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, f"{args.checkpoint}.new")  # written beside it and renamed, so that
            os.replace(f"{args.checkpoint}.new", args.checkpoint)  # a kill leaves the old file

    test = held_out.nonzero().flatten()
    with torch.no_grad():
        mine = test[rank::world]
        right = (model(images[mine]).argmax(1) == labels[mine]).sum()
    dist.all_reduce(right)
    if rank == 0:
        print(f"held-out accuracy {100 * right / len(test):.1f} % ({right} of {len(test)})")
    return right


if __name__ == "__main__":
    options = arguments()
    # Keep the result: PyTorch 2.6 waits below for Gloo's threads while it holds the interpreter, which they need to
    # free the tensor that they reduced last, unless something else references it.
    right = train(options, join())
    # DDP has released the group, so this ends Gloo's threads; a process that exits before they do may abort.
    dist.destroy_process_group()
