"""Train a small model on all pods over the backend network, and report which interface carried the bytes.

Uses generated data, so that nothing is downloaded; NCCL if the pods have GPUs, else Gloo.
"""

import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

INTERFACE = os.environ.get("INTERFACE", "net1")
STEPS, BATCH, WIDTH = 60, 64, 512
JOB = os.environ.get("JOB_FOLDER", "/job")
STATE = "/tmp"  # the script creates `trained` there after the training; creating `done` ends it


def octets() -> dict[str, int]:
    """Return the bytes sent and received so far by each interface of this pod."""
    with open("/proc/net/dev") as table:
        rows = [line.replace(":", " ").split() for line in table.readlines()[2:]]
    return {row[0]: int(row[1]) + int(row[9]) for row in rows}


def main() -> None:
    if "MASTER_ADDR" not in os.environ:
        with open(f"{JOB}/master") as master:
            os.environ["MASTER_ADDR"] = master.read()
    # A bare literal, without brackets. NCCL must use the same address family.
    inet6 = ":" in os.environ["MASTER_ADDR"]
    os.environ.setdefault("NCCL_SOCKET_FAMILY", "AF_INET6" if inet6 else "AF_INET")
    # Some builds of PyTorch lack libuv and fail if it is enabled.
    os.environ.setdefault("USE_LIBUV", "0")

    gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if gpu else torch.device("cpu")
    dist.init_process_group("nccl" if gpu else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        print(f"{size} pods, rank 0 at {os.environ['MASTER_ADDR']}", flush=True)

    torch.manual_seed(0)  # the same model and task on all ranks
    layers = torch.nn.Sequential(
        torch.nn.Linear(32, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, 1)
    )
    truth = torch.randn(32, 1)
    model = DistributedDataParallel(layers.to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    torch.manual_seed(1 + rank)  # different data on each rank

    before = octets()
    for step in range(1, STEPS + 1):
        inputs = torch.randn(BATCH, 32)
        loss = torch.nn.functional.mse_loss(model(inputs.to(device)), (inputs @ truth).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            dist.all_reduce(average := loss.detach() / size)
            if rank == 0:
                print(f"step {step:3}  loss {average.item():.4f}", flush=True)
    dist.barrier()
    carried = {name: count - before.get(name, 0) for name, count in octets().items()}
    used = {name: count for name, count in carried.items() if count}
    print(
        f"rank {rank}: " + ", ".join(f"{name} {count / 1e6:.1f} MB" for name, count in used.items()),
        flush=True,
    )
    dist.destroy_process_group()

    # In a ring, each pod sends and receives each gradient about 2 (n-1)/n times.
    gradients = sum(parameter.numel() * 4 for parameter in model.parameters()) * STEPS
    elsewhere = sum(count for name, count in carried.items() if name != INTERFACE)
    if size > 1 and (carried.get(INTERFACE, 0) < gradients or elsewhere > gradients / 10):
        raise SystemExit(f"the gradients ({gradients / 1e6:.1f} MB) did not use {INTERFACE}")
    print(f"rank {rank}: trained over {INTERFACE}", flush=True)


def stay(seconds: float) -> None:
    """Keep the pod running for inspection; `touch /tmp/done` ends it."""
    with open(f"{STATE}/trained", "w"):
        pass
    until = time.monotonic() + seconds
    while time.monotonic() < until and not os.path.exists(f"{STATE}/done"):
        time.sleep(0.5)


if __name__ == "__main__":
    main()
    if "STAY_SECONDS" in os.environ:
        stay(float(os.environ["STAY_SECONDS"]))
