"""Random traffic jobs: python -m tests.traffic [N] [--seed FIRST] [--smallest] [--kinds] [--witness].

Prints one line for each job: seed, truth, the receipt's bounds and proof, and the plan. Exits with 1 if a receipt
claims what is false.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.traffic.kinds import KINDS
from tests.traffic.oracle import Outcome, run, smallest
from tests.traffic.plan import Plan, draw
from tests.traffic.witness import fits, observe


def line(name: str, outcome: Outcome) -> str:
    low, high = outcome.truth.low, outcome.truth.high
    true = "none" if low is None else f"{low:.6f}" + ("" if low == high else f"..{high:.6f}")
    claim = "null" if outcome.bounds is None else f"{outcome.bounds[0]:.6f}..{outcome.bounds[1]:.6f}"
    verdict = "FALSE" if outcome.violation else "ok"
    return (
        f"{name:>16} {verdict:5} truth {true} receipt {claim} {outcome.receipt['proof']} "
        f"{outcome.seconds:.1f}s | {outcome.plan}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int, nargs="?", default=20, help="random jobs [20]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first [0]")
    parser.add_argument("--smallest", action="store_true", help="leave out flows as long as a claim is false")
    parser.add_argument("--kinds", nargs="*", help="one job for each kind of flow (all, or these) instead")
    parser.add_argument("--witness", action="store_true", help="under torchnet receipt on two hosts instead")
    options = parser.parse_args()
    if options.kinds is None:
        plans = {str(seed): draw(seed) for seed in range(options.seed, options.seed + options.jobs)}
    else:
        plans = {name: plan for name, plan in KINDS.items() if not options.kinds or name in options.kinds}
    judged: Callable[[Plan, Path], Outcome] = run
    if options.witness:
        plans, judged = {title: plan for title, plan in plans.items() if fits(plan)}, observe
    false = broken = 0
    with tempfile.TemporaryDirectory(prefix="torchnet-traffic-") as name:
        for number, (title, plan) in enumerate(plans.items()):
            folder = Path(name) / str(number)
            try:
                outcome = judged(plan, folder)
                print(line(title, outcome), flush=True)
                false += bool(outcome.violation)
                if outcome.violation and options.smallest and judged is run and len(plan.flows) > 1:
                    print(line("smallest", smallest(plan, Path(name) / f"{number}-smallest")), flush=True)
            except AssertionError as error:
                broken += 1
                print(f"{title:>16} BROKEN {str(error)[:2000]}", flush=True)
    print(f"{len(plans)} jobs: {false} false claims, {broken} that could not be judged")
    return 1 if false or broken else 0


if __name__ == "__main__":
    sys.exit(main())
