"""A tuning on two real nodes: every setting is tried and said, by the ranks and by jobs that are started for it."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.jobs import TORCHNET, Job, run, script
from tests.training import needs_torch
from torchnet.bench.results import load
from torchnet.bench.worker import messages
from torchnet.bench.worker.messages import Lacks, Message, Tried

pytestmark = needs_torch

TUNE = """
    import os, sys
    import torch.distributed as dist
    import torchnet
    from torchnet.bench.worker import messages, steps, tune
    from torchnet.bench.worker.rank_context import Place
    from torchnet.bench.worker.worker_config import Plan
    from torchnet.training import store, world

    memory, numerics = int(sys.argv[1]), sys.argv[2] == "numerics"
    tune.ROUNDS = 2
    real = steps.network
    def network(width):
        assert not [name for name in os.environ if name.startswith("TORCHNET_TUNE")]
        return real(width)
    steps.network = network
    with torchnet.init() as context:
        base = store.connect(world.read(os.environ), None)
        place = Place(context.rank, context.world_size, context.node_rank, 2, 0, dist.PrefixStore("x", base), ["net1"])
        say = messages.say if context.rank == 0 else lambda message: None
        plan = Plan(("all_reduce",), (1024,), seconds=0.01, memory=memory, tune=True, tune_numerics=numerics)
        tune.measure(plan, place, say)
    print("ifname", os.environ["GLOO_SOCKET_IFNAME"], os.environ.get("TORCHNET_TUNE_COMPRESS"))
"""


def heard(folder: Path, memory: int, how: str, *flags: object) -> tuple[list[Message], str]:
    done = run(*flags, script(folder, TUNE), memory, how, seconds=180)
    assert done.code == 0, done.stderr
    lines = [re.sub(r"^\[rank 0\] ", "", line) for line in done.stdout.splitlines()]
    return [found for line in lines if (found := messages.read(line)) is not None], done.stdout


def test_each_setting_is_tried_with_a_baseline(tmp_path: Path) -> None:
    found, printed = heard(
        tmp_path, 5_000_000, "numerics", "--tune-compress", "fp16", "--tune-gloo-devices", 2
    )
    said = [one for one in found if isinstance(one, Tried)]
    assert all(min(one.steps_per_s) > 0 for one in said)
    # After each round, with all figures so far: what is interrupted has told what it knew.
    first, tried = ([one for one in said if len(one.steps_per_s) == count] for count in (1, 2))
    assert [replace(one, steps_per_s=one.steps_per_s[:1]) for one in tried] == first
    groups = [number for number, one in enumerate(tried) if one.baseline]
    assert groups == [0, 6]
    assert [one.group for one in tried] == [0] * 6 + [1] * (len(tried) - 6)
    assert [one.settings for one in tried[1:6]] == [
        *({"bucket_cap_mb": value} for value in ("1", "5", "100")),
        *({"gloo_devices": value} for value in ("2", "4")),
    ]
    assert not any(one.numerics for one in tried[:6])
    assert {one.settings["compress"] for one in tried if one.numerics} == {"bf16", "fp16"}
    assert all(("compress" in one.settings) == one.numerics for one in tried)
    assert not [one for one in found if isinstance(one, Lacks)]
    # What the job was started with is there again.
    assert "ifname net1,net1 fp16" in printed


def test_nothing_that_changes_the_results_is_tried_without_being_asked_for(tmp_path: Path) -> None:
    tried = [one for one in heard(tmp_path, 5_000_000, "none")[0] if isinstance(one, Tried)]
    assert len(tried) >= 2 * 6
    assert not any(one.numerics or "compress" in one.settings for one in tried)


@pytest.mark.parametrize(
    ("memory", "flags", "why"), [(1000, (), "1000 bytes"), (10**9, ("--nnodes", 1), "one rank alone")]
)
def test_what_cannot_be_tried_is_said(
    tmp_path: Path, memory: int, flags: tuple[object, ...], why: str
) -> None:
    found, _ = heard(tmp_path, memory, "none", *flags)
    (lacks,) = [one for one in found if isinstance(one, Lacks)]
    assert lacks.what == "tuning"
    assert why in lacks.why
    assert not [one for one in found if isinstance(one, Tried)]


# No rate: a step of 50 MB is then a tenth of a second.
WHOLE = ("-b", "1K", "-e", "1K", "--seconds", "0.05", "--tcp-seconds", "0", "--tune")


@pytest.mark.parametrize("stopped", [0, signal.SIGINT, signal.SIGTERM])
def test_the_command_tries_what_needs_a_start_of_its_own_too(tmp_path: Path, stopped: int) -> None:
    file = tmp_path / "r.json"
    with Job(*WHOLE, "--mtu", "1500", "--json", file, command=(*TORCHNET, "bench")) as job:
        job.wait_for(r"network\.mtu 9000: a start of its own, round 2 of 6", seconds=240)
        if stopped:
            job.send(stopped)
        ended = job.finish(240)
    found = load(file.read_text())
    code = 128 + stopped if stopped else 0
    assert (ended.code, found.exit_code, found.complete) == (code, code, not stopped)
    assert found.tuning is not None
    started = [one for one in found.tuning.trials if "network.mtu" in one.settings]
    assert [one.settings["network.mtu"] for one in started] == ["9000"]
    assert started[0].ratio.count == (1 if stopped else 6)
    lacking = {one.what for one in found.lacks}
    assert "NCCL_SOCKET_NTHREADS, NCCL_NSOCKS_PERTHREAD" in lacking
    if stopped:
        assert f"INCOMPLETE: stopped by {signal.Signals(stopped).name}" in ended.stdout
        assert "1 round), too few to choose by: 6 are needed" in ended.stdout
    else:
        assert all(one.ratio.count == 6 for one in found.tuning.trials)
        chosen = found.tuning.chosen
        assert ("network.mtu" in chosen) == ("[tool.torchnet.network]\nmtu = 9000" in ended.stdout)
    assert json.loads(file.read_text())["tuning"]["block"] == found.tuning.block
