"""The receipt's share against jobs whose traffic is known (tests/traffic), and the oracle that judges it."""

from __future__ import annotations

import itertools
import random
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.traffic.oracle import bounds, run, violation
from tests.traffic.plan import OUTSIDER, Flow, Plan, draw
from tests.traffic.witness import fits, observe
from tests.training import needs_torch

MB = 1_000_000
ORDINARY = {
    # The data and the answers to DNS queries come over eth0 from a host outside the job.
    "training": Plan(
        gloo=4 * MB,
        flows=(
            Flow(0, OUTSIDER, "eth0", 1_000, back=1_000 * MB),
            Flow(1, OUTSIDER, "eth0", 2_000, protocol="udp", port=53, datagram=60),
        ),
    ),
    "leaks": Plan(
        nodes=3,
        rails=2,
        flows=(
            Flow(0, 1, "net1", 8 * MB, end="half", back=MB),
            Flow(1, 2, "net2", MB, connections=200, end="exit"),
            Flow(2, 0, "net2", 2 * MB, address="any", bind="device"),
            Flow(2, 0, "eth0", MB, port=29_500),
            Flow(1, 0, "eth0", MB, connections=200),
            Flow(0, 1, "eth0", MB, address="link-local"),
        ),
    ),
    "processes": Plan(
        nproc=2,
        ipv4=True,
        flows=(
            Flow(0, 2, "net1", 4 * MB, process="child"),
            Flow(2, 1, "net1", 4 * MB, process="shared", address="mapped"),
            Flow(3, 0, "eth0", MB, process="shared", end="exit", seconds=1.2),
            Flow(1, 3, "eth0", 1_000, back=MB, address="mapped", port=29_400),
            Flow(0, 1, "net1", MB),
            Flow(0, 1, "lo", MB, protocol="udp"),
            Flow(1, 0, "lo", MB, protocol="unix"),
        ),
    ),
}
LEAK = Plan(flows=(Flow(0, 1, "net1", MB), Flow(1, 0, "eth0", MB)))
# Appended to the modules of a copy of torchnet: hides the sockets of eth0 and its counters.
BLIND = {
    "sock_diag": """
_dump, _read = dump, Destroyed.read
_hidden = lambda sockets: [one for one in sockets if not one.local.startswith("172.30.")]
dump = lambda *arguments, **options: _hidden(_dump(*arguments, **options))
Destroyed.read = lambda self: _hidden(_read(self))
""",
    "rtnetlink": """
_counters = counters
counters = lambda *arguments: _counters(*arguments) | {"eth0": Counters(0, 0)}
""",
}
MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from torchnet_launch import main; sys.exit(main())"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_torch if plan.gloo else ()) for name, plan in ORDINARY.items()]
)
def test_ordinary_jobs_are_measured_exactly(name: str, tmp_path: Path) -> None:
    found = run(ORDINARY[name], tmp_path)
    assert (found.violation, found.receipt["proof"]) == ("", "measured")
    low, high = found.bounds or (0, 1)
    assert high - low <= 0.001
    assert found.truth.low == (1.0 if name == "training" else pytest.approx(0.78, abs=0.05))


FIRST_SEED = random.SystemRandom().randrange(1 << 30)  # python -m tests.traffic 1 --seed SEED


@pytest.mark.parametrize("part", range(4))
def test_random_jobs_are_within_the_bounds(part: int, tmp_path: Path) -> None:
    for seed in range(FIRST_SEED + 5 * part, FIRST_SEED + 5 * (part + 1)):
        assert run(draw(seed), tmp_path / str(seed)).violation == "", f"seed {seed}"


def test_random_commands_are_within_the_witness_bounds(tmp_path: Path) -> None:
    plans = (draw(seed) for seed in itertools.count(FIRST_SEED))
    for plan in itertools.islice(filter(fits, plans), 4):
        assert observe(plan, tmp_path / str(plan.seed)).violation == "", f"seed {plan.seed}"


def test_a_planted_miscount_is_a_violation(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for package in ("torchnet", "torchnet_launch"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for module, text in BLIND.items():
        with (copy / f"torchnet/linux/{module}.py").open("a") as file:
            file.write(text)
    found = run(LEAK, tmp_path, (sys.executable, "-c", MAIN, str(copy), "launch"))
    assert bounds(found.receipt) == (1.0, 1.0)
    assert found.truth.low == found.truth.high == 0.5
    assert found.violation

    def judged(share: float | None, proof: str = "measured", **more: float) -> bool:
        return bool(violation(found.truth, {"backend_share": share, "proof": proof, **more}))

    assert [judged(share) for share in (0.499, 0.5, 0.501)] == [True, False, True]
    assert [judged(share, "inferred") for share in (0.499, 0.501, None)] == [False, True, False]
    assert [judged(0.4, "inferred", backend_share_high=high) for high in (0.499, 0.5)] == [True, False]


def test_the_records_are_checked_against_the_interfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "interfaces", lambda *_: ("net1", "net1"))  # eth0 carries one of them
    with pytest.raises(AssertionError, match="0 bytes received over eth0, which counted 10"):
        run(LEAK, tmp_path)


def test_a_seed_is_a_plan() -> None:
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]
    drawn = [flow for seed in range(200) for flow in draw(seed).flows]
    for name, count in {"protocol": 4, "process": 3, "address": 4, "bind": 4, "end": 4}.items():
        assert len({getattr(flow, name) for flow in drawn}) == count
