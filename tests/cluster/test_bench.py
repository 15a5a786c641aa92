"""The benchmark in pods: the same command, its figures beside those of a loop by hand in the same processes, and what a
training got."""

from __future__ import annotations

import json
import shutil
import statistics

import pytest

from tests.cluster.faults import shaped
from tests.cluster.launcher import ROOT, Launcher
from tests.cluster.places import NODES
from torchnet.bench.results import load
from torchnet.bench.worker import result_messages
from torchnet.bench.worker.worker_config import WorkerConfig, encode

pytestmark = pytest.mark.quiet

SIZE, TURNS = 8 << 20, 3
# What somebody would write, in the processes that the benchmark then measures in.
BY_HAND = """\
    import sys, time
    import run
    run.bootstrap()
    import torch
    import torch.distributed as dist
    import torchnet

    for _ in range({turns}):
        with torchnet.init("gloo"):
            tensor = torch.zeros({size} // 4)
            for _ in range(3):
                dist.all_reduce(tensor)
            dist.barrier()
            began = time.perf_counter()
            for _ in range(20):
                dist.all_reduce(tensor)
            if dist.get_rank() == 0:
                print("by hand", (time.perf_counter() - began) / 20, flush=True)
        run.main(["--plan", sys.argv[1]])
"""

# 2.5 MB from each node in a step: 0.1 s at 200 Mbit/s.
STEPS = """\
    import time
    import torch
    import torch.distributed as dist
    import torchnet

    with torchnet.init("gloo"):
        tensor = torch.zeros(625_000)
        for _ in range(25):
            dist.all_reduce(tensor)
            time.sleep(0.1)
"""


def test_the_figures_are_those_of_a_loop_in_the_same_pods(launcher: Launcher) -> None:
    shutil.copytree(ROOT / "torchnet/bench/worker", launcher.folder / "both")
    script = launcher.script(BY_HAND.format(turns=TURNS, size=SIZE), "both/by_hand.py")
    plan = WorkerConfig(("all_reduce",), (SIZE,), backend="gloo", seconds=2.0, pairs="none")
    with shaped(launcher.cluster, *NODES, rate="1gbit"):
        ran = launcher.run(*launcher.words("--ranks", "0", nnodes=2), script, encode(plan))
    assert ran.code == 0, ran.err
    lines = [line.removeprefix("[rank 0] ") for line in ran.out.splitlines()]
    by_hand = [float(line.split()[-1]) for line in lines if line.startswith("by hand")]
    figures = [one for one in map(result_messages.read, lines) if isinstance(one, result_messages.Collective)]
    ours = [statistics.median(one.times) for one in figures]
    assert (len(by_hand), len(ours)) == (TURNS, TURNS)
    print("seconds by hand", by_hand, "benchmark", ours)
    assert statistics.median(ours) == pytest.approx(statistics.median(by_hand), rel=0.1)
    assert [one.wrong for one in figures] == [0] * TURNS


def test_the_same_command_in_pods(launcher: Launcher) -> None:
    """Two nodes: a line of 1 Gbit/s is used, nothing is wrong, and what was found is written."""
    words = launcher.words(
        "--line", "1gbit", "--max-bytes", "16M", "--json", "r.json", "--html", "r.html", nnodes=2
    )
    assert words[0] == "launch"
    with shaped(launcher.cluster, *NODES, rate="1gbit"):
        ran = launcher.run("bench", *words[1:])
    assert ran.code == 0, ran.err
    results = load((launcher.folder / "r.json").read_text())
    assert results.complete
    assert [one.kind for one in results.findings] == [], results.findings
    assert results.setup is not None
    assert (results.setup.on, results.setup.nodes, results.setup.interface) == ("kubernetes", 2, "net1")
    assert sorted(node.host for node in results.nodes) == list(NODES)
    assert results.look[:2] == ("torchnet", "verify")
    largest = results.collectives[-1]
    assert largest.size == 16 << 20
    # An all-reduce of two ranks sends each byte once: 2 (n - 1) / n = 1.
    assert largest.busbw == pytest.approx(largest.size / largest.time.median)
    assert largest.ceiling_share is not None
    assert 0.7 < largest.ceiling_share < 1.05
    assert largest.sockets_bytes is not None
    assert set(largest.sockets_bytes) == {"net1"}
    assert (results.backend_share, results.proof) == (1.0, "measured")
    assert "busbw" in ran.out
    assert "<html" in (launcher.folder / "r.html").read_text()
    assert json.loads((launcher.folder / "r.json").read_text())["schema"] == "torchnet.bench/1"
    assert launcher.left() == []


def test_the_steps_of_a_training_are_told_from_its_traffic(launcher: Launcher) -> None:
    words = launcher.words("--measure", "--json", "receipt.json", nnodes=2)
    with shaped(launcher.cluster, *NODES, rate="200mbit"):
        ran = launcher.run(*words, launcher.script(STEPS))
    assert ran.code == 0, ran.err
    measured = json.loads((launcher.folder / "receipt.json").read_text())["measured"]
    assert measured["nodes"] == 2
    assert measured["step_bytes"] == pytest.approx(2_500_000, rel=0.05)
    assert 3 < measured["steps_per_s"] < 6
    assert "steps/s of 2.5" in ran.err
