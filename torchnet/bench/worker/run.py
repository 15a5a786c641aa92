"""The script that `torchnet bench` runs in each rank: ``run.py --plan JSON``. Rank 0 prints the results.

A pod has this folder and the agent's archive, which contains torchnet without torchnet.bench. So the script first makes
this folder importable as torchnet.bench.worker, unless it is already.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import platform
import sys
import time
import types
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchnet.bench.worker.rank_context import RankContext
    from torchnet.bench.worker.result_messages import Node
    from torchnet.bench.worker.sweep import Bench, NetworkUnderTest, Send
    from torchnet.bench.worker.worker_config import WorkerConfig
    from torchnet.training import Context

_runs = itertools.count()  # runs in this process: the store and its keys outlive each run
_PACKAGE = "torchnet.bench.worker"
# Variables that affect the figures. The agents' variables are excluded: one names the file of the token.
_SHOWN = (
    "GLOO_",
    "NCCL_",
    "TORCH_GLOO_",
    "TORCH_NCCL_",
    "TORCH_DISTRIBUTED_",
    "OMP_NUM_THREADS",
    "USE_LIBUV",
)
_OURS = ("TORCHNET_RATE", "TORCHNET_MTU")


def bootstrap() -> None:
    """Make torchnet.bench.worker importable."""
    try:
        found = importlib.util.find_spec(_PACKAGE)
    except ModuleNotFoundError:
        found = None
    if found is not None:
        return
    parent, package = types.ModuleType("torchnet.bench"), types.ModuleType(_PACKAGE)
    parent.__path__ = []
    package.__path__ = [str(Path(__file__).resolve().parent)]
    parent.worker = package  # type: ignore[attr-defined]
    sys.modules.update({"torchnet.bench": parent, _PACKAGE: package})


def main(argv: list[str]) -> None:
    """Measure what the plan asks for.

    Raises:
        torchnet.errors.UsageError: The group cannot be created, for example NCCL without GPUs.
    """
    parser = argparse.ArgumentParser(description="Measures the network between the ranks of a job.")
    parser.add_argument("--plan", required=True, metavar="JSON")
    given = parser.parse_args(argv).plan
    began = time.monotonic()
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # as in training: ranks share the machine, and copying needs one thread
    with warnings.catch_warnings():  # importing torch warns if NumPy is missing, which is not needed here
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
        import torch  # noqa: F401

    import torchnet
    from torchnet.bench.worker import result_messages, worker_config

    wanted = worker_config.decode(given)
    # Control messages are CPU tensors, with NCCL too.
    backend = "cpu:gloo,cuda:nccl" if wanted.backend == "nccl" else wanted.backend or None
    with torchnet.init(backend) as context:
        send: Send = result_messages.send if context.rank == 0 else _silent
        _measure(wanted, context, send)
        send(result_messages.Done(time.monotonic() - began))


def _silent(_: Any) -> None:
    pass


def _measure(plan: WorkerConfig, context: Context, send: Send) -> None:
    from torchnet.bench.worker import byte_counters, pairs, sweep, timing

    place = _place(plan, context)
    plan = agree(plan, place)
    plan = limit_memory(plan, place, context.device)
    backend = "nccl" if "nccl" in context.backend else "gloo"
    send(_setup(backend, context, place))
    known: dict[int, Node] = {}
    _nodes(place, known, send)
    closed = pairs.measure(plan, place, send)

    agreement = timing.Agreement()
    agreement.barrier()  # opens its connections now, so that the byte counters exclude them
    bench = sweep.Bench(plan, place, agreement, byte_counters.ByteCounters(place), send)
    for interface in dict.fromkeys(name for name in (place.networks[0], plan.compare) if name):
        network = _network(bench, interface, backend, context, closed)
        if network is not None:
            sweep.run(bench, network)
    _nodes(place, known, send)  # for example an MTU that changed meanwhile
    place.barrier()


def _place(plan: WorkerConfig, context: Context) -> RankContext:
    import torch.distributed as dist

    from torchnet.bench.worker.rank_context import RankContext
    from torchnet.training import store, world

    own = world.read(os.environ)
    base = dist.HashStore() if own is None else store.connect(own, None)
    attempt = 0 if own is None else own.attempt
    return RankContext(
        rank=context.rank,
        ranks=context.world_size,
        node=context.node_rank,
        nodes=context.world_size // context.local_world_size,
        local_rank=context.local_rank,
        store=dist.PrefixStore(f"torchnet-bench/{attempt}/{next(_runs)}", base),
        networks=list(dict.fromkeys(name for name in (*rails(os.environ), plan.compare) if name)),
    )


def agree(plan: WorkerConfig, place: RankContext) -> WorkerConfig:
    """Return rank 0's plan, with the least memory of all: on several hosts, each host's command has made one."""
    from torchnet.bench.worker import worker_config

    if not plan.by_host:
        return plan
    plans = [worker_config.decode(text) for text in place.exchange(worker_config.encode(plan))]
    return replace(plans[0], memory=min(one.memory for one in plans))


def limit_memory(plan: WorkerConfig, place: RankContext, device: Any) -> WorkerConfig:
    """Reduce the plan's memory to what is free on the ranks' GPUs, less a tenth for NCCL. All ranks call it and get the
    same plan. The launcher cannot know the free memory."""
    import torch

    if device.type != "cuda":
        return plan
    free = torch.cuda.mem_get_info(device)[0] * 9 // 10
    return replace(plan, memory=min(plan.memory, *map(int, place.exchange(str(free)))))


def rails(environ: Any) -> list[str]:
    """Return the backend's interfaces, rail 0 first, from the variables that torchnet sets for Gloo and NCCL; loopback
    if they are not set."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        # tune.gloo_devices repeats each name.
        names = list(dict.fromkeys(str(environ.get(name, "")).lstrip("=").split(",")))
        if names[0]:
            return names
    return ["lo"]


def _nodes(place: RankContext, known: dict[int, Node], send: Send) -> None:
    """Report the facts of each node that are new or differ from ``known``, and take all addresses from them."""
    from torchnet.bench.worker import node_facts, result_messages

    own = ""
    if place.local_rank == 0:
        own = json.dumps(asdict(node_facts.facts(place.node, place.networks)))
    for text in place.exchange(own):
        if text:
            node = result_messages.Node(**json.loads(text))
            place.addresses[node.node] = node.addresses
            if known.get(node.node) != node:
                send(node)
            known[node.node] = node


def _setup(backend: str, context: Context, place: RankContext) -> Any:
    import torch

    from torchnet.bench.worker.result_messages import Setup

    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    device = "cpu"
    if context.device.type == "cuda":
        device = torch.cuda.get_device_name(context.device)
        versions["cuda"] = str(torch.version.cuda)
        versions["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return Setup(
        backend=backend,
        device=device,
        ranks=place.ranks,
        nodes=place.nodes,
        interface=place.networks[0],
        versions=versions,
        environment=reported_environment(os.environ),
    )


def reported_environment(environ: Any) -> dict[str, str]:
    """Return the environment variables that affect the figures."""
    return {
        name: value for name, value in sorted(environ.items()) if name.startswith(_SHOWN) or name in _OURS
    }


def _network(
    bench: Bench, interface: str, backend: str, context: Context, closed: set[str]
) -> NetworkUnderTest | None:
    """Return the group over this network; None if it cannot be created, which has then been reported.

    Args:
        closed: The networks on which TCP failed, the same on all ranks.
    """
    import torch.distributed as dist

    from torchnet.bench.worker import result_messages
    from torchnet.bench.worker.sweep import NetworkUnderTest, shorten

    first = interface == bench.place.networks[0]
    if backend == "nccl":
        if first:
            return NetworkUnderTest(interface, backend, context.device, None)
        why = "NCCL reads its interface only once in a process"
        bench.send(result_messages.Lacks(f"collectives over {interface} (nccl)", why))
        return None
    without = [str(node) for node, found in sorted(bench.place.addresses.items()) if interface not in found]
    if not first and (without or interface in closed):
        # The group would fail on some ranks, and the others would wait half an hour for them.
        why = "raw TCP does not get through between the nodes"
        if without:
            why = f"no address of {interface} on node {', '.join(without[:10])}"
        bench.send(result_messages.Lacks(f"collectives over {interface} (gloo)", why))
        return None
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    if not first or bench.plan.compare in rails(os.environ):
        # Otherwise the first group would also use the rail that it is compared with.
        os.environ["GLOO_SOCKET_IFNAME"] = interface
    group: Any = None
    why = ""
    try:
        # A separate group on the backend network as well, so that its connections differ from the control group's.
        group = dist.new_group(backend="gloo")
    except RuntimeError as error:
        why = shorten(error)
    finally:
        if before is None:
            os.environ.pop("GLOO_SOCKET_IFNAME", None)
        else:
            os.environ["GLOO_SOCKET_IFNAME"] = before
    texts = [text for text in bench.place.exchange(why) if text]
    if texts:
        bench.send(result_messages.Lacks(f"collectives over {interface} (gloo)", texts[0]))
        return None
    return NetworkUnderTest(interface, backend, context.device, group)


if __name__ == "__main__":
    bootstrap()
    from torchnet.errors import TorchnetError

    try:
        main(sys.argv[1:])
    except TorchnetError as error:
        sys.stderr.write(f"torchnet bench: {error}\n")
        sys.exit(error.exit_code)
