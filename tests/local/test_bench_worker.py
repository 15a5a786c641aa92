"""A benchmark's ranks in real namespaces: all collectives, what Gloo lacks, errors that are counted, bytes, another
network; and the worker's folder alone with the agent's archive, as in a pod."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import ROOT, lines, run, script
from tests.training import CLEAN, free_port
from torchnet.bench.worker import busbw, result_messages
from torchnet.bench.worker.worker_config import WorkerConfig, encode
from torchnet.k8s.objects.agent_zip import agent_zip

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

# Several plans, one after the other, in one start and one store, which outlives them.
RANK = """
import os, sys
from torchnet.bench.worker import run
plant = sys.argv[1]
if plant == "wrong":
    import torch.distributed as dist
    plain = dist.all_reduce
    def broken(tensor, op=dist.ReduceOp.SUM, group=None):
        plain(tensor, op, group)
        if os.environ["RANK"] == "1" and tensor.numel() > 100:  # not the ranks' own agreement
            tensor[7] += 1
    dist.all_reduce = broken
for plan in sys.argv[2:]:
    run.main(["--plan", plan])
"""
ALL = busbw.COLLECTIVES
FORMS = {
    "all_reduce": (True,), "all_gather": (False, True), "reduce_scatter": (False, True), "broadcast": (True,),
    "reduce": (True,), "all_to_all": (False,), "send_recv": (False,),
}  # fmt: skip
QUICK = {"seconds": 0.02, "narrow": 1.0, "warmup": 1, "pairs": "none"}  # raw TCP has tests of its own


def plan(*collectives: str, **wanted: object) -> WorkerConfig:
    return WorkerConfig(collectives or ALL, **{"sizes": (8, 100_000), **QUICK, **wanted})  # type: ignore[arg-type]


def measured(
    folder: Path, *plans: WorkerConfig, plant: str = "", nodes: int = 2
) -> list[list[result_messages.Message]]:
    """What rank 0 said to each plan; the others must say nothing."""
    rank = script(folder, RANK, "rank.py")
    done = run(f"--nnodes={nodes}", rank, plant or "none", *map(encode, plans), seconds=120)
    assert done.code == 0, done.stderr
    assert not [
        line
        for other in range(1, nodes)
        for line in lines(done.stdout, other)
        if result_messages.MARK in line
    ]
    found: list[list[result_messages.Message]] = [[] for _ in plans]
    turn = 0
    for line in lines(done.stdout, 0):
        if (message := result_messages.read(line)) is not None:
            found[turn].append(message)
            turn += isinstance(message, result_messages.Done)
    assert turn == len(plans)
    return found


def of(kind: type, found: list[result_messages.Message]) -> list:  # type: ignore[type-arg]
    return [one for one in found if isinstance(one, kind)]


def test_all_collectives_are_right_and_counted(tmp_path: Path) -> None:
    wide, narrow, whole, limited, given = measured(
        tmp_path,
        plan(sizes=(8, 1_000_001), compare="eth0", root=1),
        plan("all_reduce", "reduce", "reduce_scatter", dtype="bfloat16", redop="avg"),
        plan("all_reduce", "reduce_scatter", "all_gather", dtype="int32", redop="avg"),
        plan(
            "all_to_all", "all_reduce", sizes=(1000, 5_000_000), dtype="uint8", redop="max", memory=12_000_000
        ),
        plan("all_reduce", dtype="float16", redop="prod", iters=7, check=False, compare="eth7"),
    )
    assert [type(one) for one in wide[:4]] == [
        result_messages.Setup,
        result_messages.Node,
        result_messages.Node,
        result_messages.Progress,
    ]
    setup = wide[0]
    assert isinstance(setup, result_messages.Setup)
    assert (setup.backend, setup.ranks, setup.nodes, setup.interface) == ("gloo", 2, 2, "net1")
    assert [list(one.addresses) for one in of(result_messages.Node, wide)] == [["net1", "eth0"]] * 2
    assert not of(result_messages.Lacks, wide)

    rows = of(result_messages.Collective, wide)
    assert all(row.core is None or 0 <= row.core <= 1 for row in rows)
    for network in ("net1", "eth0"):
        seen = [(row.collective, row.size, row.in_place) for row in rows if row.network == network]
        assert sorted(seen) == sorted(
            (name, size, form) for name, forms in FORMS.items() for size in (8, 1_000_000) for form in forms
        )
    for row in rows:
        assert row.wrong == 0
        assert row.elements == row.size // 4
        assert row.root == (1 if row.collective in ("broadcast", "reduce") else -1)
        assert row.redop == (
            "sum" if row.collective in ("all_reduce", "reduce", "reduce_scatter") else "none"
        )
        assert len(row.times) >= 3
        assert row.calls >= len(row.times)
        if row.size > 8:
            # Nothing of warm-up, check and agreement is in it, and nothing is missing.
            assert list(row.sockets_bytes) == [row.network]
            more = {"reduce_scatter": 2.0, "reduce": 1.5}.get(row.collective, 1.0)  # as Gloo does them
            assert row.sockets_bytes[row.network] == pytest.approx(more * row.formula_bytes, rel=0.01)
            assert row.interface_bytes[row.network] > row.sockets_bytes[row.network]
        assert row.busy is None or 0 <= row.busy <= 1

    assert [row.wrong for row in of(result_messages.Collective, narrow)] == [0] * 8

    # Gloo divides whole numbers into fractions: refused in its own words, and the rest goes on.
    lacks = of(result_messages.Lacks, whole)
    assert [one.what for one in lacks] == [
        "all_reduce int32 avg over net1 (gloo)",
        "reduce_scatter int32 avg out of place over net1 (gloo)",
        "reduce_scatter int32 avg in place over net1 (gloo)",
    ]
    assert all("cast" in one.why for one in lacks)
    assert {row.collective for row in of(result_messages.Collective, whole)} == {"all_gather"}

    # Two buffers of 5 MB and what the backend may copy are too much; one is not.
    assert [one.what for one in of(result_messages.Lacks, limited)] == [
        "all_to_all uint8 of 5000000 over net1"
    ]
    sizes = {(row.collective, row.size) for row in of(result_messages.Collective, limited)}
    assert sizes == {("all_to_all", 1000), ("all_reduce", 1000), ("all_reduce", 5_000_000)}

    rows = of(result_messages.Collective, given)
    assert {(row.network, row.calls, row.wrong) for row in rows} == {("net1", 7, None)}
    lacks = of(result_messages.Lacks, given)
    assert lacks == [result_messages.Lacks("collectives over eth7 (gloo)", "no address of eth7 on node 0, 1")]


def test_what_was_timed_for_long_enough_tells_the_busiest_threads_core(tmp_path: Path) -> None:
    (found,) = measured(tmp_path, plan("all_reduce", sizes=(4_000_000,), seconds=0.5, narrow=0.0))
    (row,) = of(result_messages.Collective, found)
    assert row.core is not None, row
    assert 0 < row.core <= 1


AGREED = """
import json, sys
import torch.distributed as dist
from torchnet.bench.worker.timing import Agreement
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
agreement = Agreement()
agreement.barrier()
found = agreement.most(1.0 + rank, -3.0 - rank), agreement.mean([2.0 + rank, 1e-9]), agreement.total((1 << 53) + rank)
print(json.dumps(found))
dist.destroy_process_group()
"""


def test_ranks_agree_on_the_most_the_mean_and_the_whole(tmp_path: Path) -> None:
    (tmp_path / "agreed.py").write_text(AGREED)
    ranks = [
        subprocess.Popen(
            [sys.executable, tmp_path / "agreed.py", str(rank), tmp_path / "store"],
            env=CLEAN | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        outputs = [json.loads(one.communicate(timeout=90)[0]) for one in ranks]
    finally:
        for one in ranks:
            one.kill()
            one.communicate()
    assert outputs == [[[2.0, -3.0], [2.5, 1e-9], (2 << 53) + 1]] * 2


def test_wrong_results_are_counted_at_every_size(tmp_path: Path) -> None:
    (found,) = measured(tmp_path, plan("all_reduce", "broadcast", sizes=(4096, 100_000)), plant="wrong")
    assert [(row.collective, row.wrong) for row in of(result_messages.Collective, found)] == [
        ("all_reduce", 1), ("all_reduce", 1), ("broadcast", 0), ("broadcast", 0),
    ]  # fmt: skip


def test_nccl_without_a_gpu_is_one_error_without_a_trace(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "torchnet" / "bench" / "worker" / "run.py")]
    done = subprocess.run(
        [*command, "--plan", encode(plan(backend="nccl"))],
        env={**CLEAN, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"torchnet bench: .*0 CUDA devices.*\n  fix: .*\n", done.stderr), done.stderr
    assert not done.stdout


def test_the_folder_and_the_agents_archive_are_enough(tmp_path: Path) -> None:
    """As in a pod: neither the checkout nor torchnet.bench can be imported."""
    folder, archive = tmp_path / "code", tmp_path / "torchnet.zip"
    shutil.copytree(
        ROOT / "torchnet" / "bench" / "worker", folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    archive.write_bytes(agent_zip())
    world = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    wanted = encode(plan("all_reduce", "send_recv", dtype="int8"))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-s", folder / "run.py", "--plan", wanted],
            env=CLEAN
            | world
            | {"PYTHONPATH": str(archive), "GLOO_SOCKET_IFNAME": "lo", "RANK": rank, "LOCAL_RANK": rank},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        outputs = [one.communicate(timeout=90)[0] for one in ranks]
    finally:
        for one in ranks:
            one.kill()
            one.communicate()
    assert [one.returncode for one in ranks] == [0, 0], outputs
    found = [message for line in outputs[0].splitlines() if (message := result_messages.read(line))]
    assert [(row.collective, row.wrong, row.sockets_bytes) for row in of(result_messages.Collective, found)] == [
        ("all_reduce", 0, None), ("all_reduce", 0, None), ("send_recv", 0, None), ("send_recv", 0, None),
    ]  # fmt: skip
    assert isinstance(found[-1], result_messages.Done)
    assert not outputs[1]
