"""What the ranks of a benchmark decide without a network: sizes, memory, bytes, words."""

from __future__ import annotations

import importlib.util
import os
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch
import torch.distributed as dist

from torchnet.bench.worker import busbw, collectives, run, sweep
from torchnet.bench.worker.busbw import COLLECTIVES, Collective
from torchnet.bench.worker.byte_counters import CounterDelta, CounterReading, subtract, sum_deltas
from torchnet.bench.worker.rank_context import RankContext
from torchnet.bench.worker.result_messages import Lacks
from torchnet.bench.worker.worker_config import WorkerConfig


@given(
    collective=st.sampled_from(COLLECTIVES),
    sizes=st.lists(st.integers(1, 10_000_000), min_size=1, max_size=10).map(
        lambda found: tuple(sorted(found))
    ),
    item=st.sampled_from([1, 2, 4, 8]),
    ranks=st.integers(2, 300),
)
def test_sizes_are_whole_elements_for_each_rank(
    collective: Collective, sizes: tuple[int, ...], item: int, ranks: int
) -> None:
    found = collectives.round_sizes(collective, sizes, item, ranks)
    multiple = item * ranks if collective in ("all_gather", "reduce_scatter", "all_to_all") else item
    assert found == sorted(set(found))
    assert all(size >= multiple and size % multiple == 0 for size in found)
    assert all(size <= max(sizes[-1], multiple) for size in found)
    assert all(any(0 <= size - one < multiple or one == multiple for one in found) for size in sizes)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_memory_counts_all_buffers(collective: Collective) -> None:
    size, ranks = 1 << 30, 4
    for in_place in collectives.forms(collective):
        need = collectives.memory(collective, size, 4, ranks, in_place)
        buffers = 1.0 if in_place else 1.25 if collective in ("all_gather", "reduce_scatter") else 2.0
        # The buffers, as much as the message for the backend, and a few MiB for the check.
        assert (buffers + 1) * size < need < (buffers + 1) * size + (16 << 20)


def test_bytes_are_those_since_the_first_reading() -> None:
    before = CounterReading({1: ("net1", 100), 2: ("lo", 5)}, {"net1": 1000, "eth0": 7})
    after = CounterReading(
        {1: ("net1", 150), 2: ("lo", 5), 3: ("net1", 30), 4: ("eth0", 1)}, {"net1": 1100, "eth0": 7}
    )
    assert subtract(before, after) == CounterDelta({"net1": 80, "eth0": 1}, {"net1": 100})


def test_bytes_of_all_nodes_or_none() -> None:
    one, two = CounterDelta({"net1": 1}, {"net1": 10}), CounterDelta({"net1": 2, "lo": 3}, {"eth0": 4})
    assert sum_deltas([one, two]) == CounterDelta({"net1": 3, "lo": 3}, {"net1": 10, "eth0": 4})
    assert sum_deltas([one, None]) is None


@pytest.mark.parametrize(
    ("collective", "ranks", "nodes", "share"),
    [
        ("all_reduce", 4, 4, 1.0), ("all_reduce", 8, 2, 0.25), ("broadcast", 4, 1, 0.0), ("all_to_all", 4, 2, 2 / 3),
        ("all_to_all", 4, 1, 0.0), ("send_recv", 1, 1, 1.0), ("broadcast", 8, 2, 1 / 7), ("reduce", 8, 4, 3 / 7),
        ("broadcast", 4, 4, 1.0),
    ],
)  # fmt: skip
def test_what_goes_from_node_to_node(collective: Collective, ranks: int, nodes: int, share: float) -> None:
    assert busbw.crossing_share(collective, ranks, nodes) == pytest.approx(share)


def test_no_secret_is_shown() -> None:
    environ = {
        "GLOO_SOCKET_IFNAME": "net1", "NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "1", "TORCH_NCCL_X": "1",
        "TORCHNET_TOKEN": "secret", "TORCHNET_JOIN_TOKEN_FILE": "/x", "AWS_SECRET_ACCESS_KEY": "secret", "HOME": "/",
    }  # fmt: skip
    assert list(run.reported_environment(environ)) == [
        "GLOO_SOCKET_IFNAME",
        "NCCL_DEBUG",
        "OMP_NUM_THREADS",
        "TORCH_NCCL_X",
    ]


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"GLOO_SOCKET_IFNAME": "net1,net2,net1,net2", "NCCL_SOCKET_IFNAME": "=eth9"}, ["net1", "net2"]),
        ({"NCCL_SOCKET_IFNAME": "=net1,net2"}, ["net1", "net2"]),
        ({"GLOO_SOCKET_IFNAME": ""}, ["lo"]),
        ({}, ["lo"]),
    ],
)
def test_the_backends_interfaces(environ: dict[str, str], names: list[str]) -> None:
    assert run.rails(environ) == names


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[/pytorch/third_party/gloo/x.cc:81] Invalid type\nframe #0: here", "Invalid type"),
        ("\n  no such op \nmore", "no such op"),
        ("", "ValueError"),
        ("x" * 500, "x" * 199 + "…"),
    ],
)
def test_a_backends_own_words_are_short(said: str, shown: str) -> None:
    assert sweep.shorten(ValueError(said)) == shown


def _place(store: Any, rank: int = 0, ranks: int = 1) -> RankContext:
    return RankContext(rank, ranks, rank, ranks, 0, store, ["net1", "eth0"])


class _Store:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self._real = dist.HashStore()
        self.set, self.wait = self._real.set, self._real.wait

    def get(self, key: str) -> bytes:
        return self.multi_get([key])[0]

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self.asked.append(keys)
        return self._real.multi_get(keys)


def test_one_question_has_the_texts_of_all_ranks() -> None:
    store = _Store()
    for rank in (2, 1):
        store.set(f"text/1/{rank}", f"of {rank}")
    assert _place(store, ranks=3).exchange("of 0") == ["of 0", "of 1", "of 2"]
    assert len(store.asked) == 1


@pytest.mark.parametrize(
    ("asked", "free", "given"), [(1 << 40, (500, 1000), 450), (400, (500, 1000), 400), (1 << 40, (10, 7), 6)]
)
def test_no_rank_takes_more_than_the_fullest_gpu_has_free(
    monkeypatch: pytest.MonkeyPatch, asked: int, free: tuple[int, int], given: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index], 1 << 50))
    store, found = dist.HashStore(), [0, 0]

    def rank(number: int) -> None:
        plan = WorkerConfig(("all_reduce",), (8,), memory=asked)
        found[number] = run.limit_memory(plan, _place(store, number, 2), torch.device("cuda", number)).memory

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [given, given]


def test_without_gpus_the_launcher_knows_the_memory() -> None:
    plan = WorkerConfig(("all_reduce",), (8,), memory=5)
    assert run.limit_memory(plan, _place(None), torch.device("cpu")) is plan


def test_nccl_has_the_backend_alone() -> None:
    said: list[Any] = []
    bench, context = (
        SimpleNamespace(place=_place(None), send=said.append),
        SimpleNamespace(device=torch.device("cuda", 0)),
    )
    first = run._network(bench, "net1", "nccl", context, set())  # type: ignore[arg-type]
    assert first == sweep.NetworkUnderTest("net1", "nccl", context.device, None)
    assert run._network(bench, "eth0", "nccl", context, set()) is None  # type: ignore[arg-type]
    assert [type(one) for one in said] == [Lacks]
    assert said[0].what == "collectives over eth0 (nccl)"


def test_no_group_is_made_on_a_network_that_carries_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ranks would wait there for half an hour."""
    made: list[str] = []
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "net1,net2")
    monkeypatch.setattr(dist, "new_group", lambda **_: made.append(os.environ["GLOO_SOCKET_IFNAME"]))
    said: list[Any] = []
    place = _place(dist.HashStore())
    place.addresses = {node: {"net1": "fcbb::1", "eth0": "10.0.0.1"} for node in range(2)}
    bench, context = (
        SimpleNamespace(place=place, send=said.append, plan=WorkerConfig((), (), compare="eth0")),
        SimpleNamespace(device=torch.device("cpu")),
    )

    def network(name: str, closed: set[str]) -> sweep.NetworkUnderTest | None:
        return run._network(bench, name, "gloo", context, closed)  # type: ignore[arg-type]

    assert network("eth0", {"eth0"}) is None
    assert [type(one) for one in said] == [Lacks]
    assert said[0].what == "collectives over eth0 (gloo)"
    assert not made
    # The backend is tried: the group has its own error.
    assert network("net1", {"net1"}) is not None
    assert network("eth0", {"net1"}) is not None
    assert (made, len(said)) == (["net1,net2", "eth0"], 1)
    # Beside another rail the first has its group to itself.
    bench.plan = replace(bench.plan, compare="net2")
    assert network("net1", set()) is not None
    assert made[2:] == ["net1"]
    assert os.environ["GLOO_SOCKET_IFNAME"] == "net1,net2"
