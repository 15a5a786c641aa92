"""Check the run itself: whether it finished, whether results were right, whether its figures are reliable."""

from __future__ import annotations

import statistics

from torchnet.bench.findings import thresholds
from torchnet.bench.findings.finding_text import on_hosts, rate, rerun
from torchnet.bench.findings.result_index import ResultIndex, core_of, cpu_limit, fast_stream
from torchnet.bench.results import Finding, Results
from torchnet.bench.worker.sizes import size_text
from torchnet.units import percent


def lost(results: Results) -> list[Finding]:
    """The run ended early, and not at the user's request."""
    if results.complete or results.ended in _NO_LOSS:
        return []
    reason = results.reason or f"exit code {results.exit_code}"
    text = f"The run ended early, and the figures were measured before that: {_sentence(reason)}"
    where = tuple(
        node.name for node in results.nodes if node.name in results.reason.replace(",", " ").split()
    )
    fix = "dmesg --ctime | tail"
    if results.setup and results.ended == "internal":
        fix = f"TORCHNET_TRACEBACK=1 {rerun(ResultIndex(results, results.setup))}"
    elif results.setup and results.setup.on == "kubernetes":
        fix = rerun(
            ResultIndex(results, results.setup), "--keep"
        )  # otherwise the pods and their logs are gone
    return [Finding(kind="lost", text=text, fix=fix, where=where)]


_NO_LOSS = ("interrupted", "timeout", "usage", "cluster", "network")
"""Kinds of failures that need no finding: their own message says everything, and a network failure is its own
finding."""


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def wrong_results(view: ResultIndex) -> list[Finding]:
    rows = [row for row in view.results.collectives if row.wrong]
    if not rows:
        return []
    worst = max(rows, key=lambda row: row.wrong or 0)
    sizes = (
        f", and elements in {len(rows) - 1} more of {len(view.results.collectives)} rows"
        if len(rows) > 1
        else ""
    )
    text = (
        f"Results are wrong: {worst.wrong} elements of {worst.collective} of {size_text(worst.size)} over "
        f"{worst.network}{sizes}. Memory, a network card, a driver or the backend corrupts data."
    )
    fix = on_hosts(view, "dmesg --ctime | tail")
    return [Finding(kind="wrong-results", text=text, fix=fix, where=(worst.collective,))]


def slow_collective(view: ResultIndex) -> list[Finding]:
    """All-reduce reaches much less than raw TCP in both directions at once."""
    rates = view.together
    rows = [row for row in view.large if row.collective == "all_reduce"]
    if not rates or not rows:
        return []
    best = max(rows, key=lambda row: row.busbw)
    way, slowest = min(rates.items(), key=lambda item: item[1].rate.median)
    fast = fast_stream(slowest)
    least = thresholds.COLLECTIVE_FAST if fast else thresholds.COLLECTIVE
    busy = thresholds.BUSY if view.line else thresholds.BUSY_UNSHAPED
    lines = view.setup.lines_used
    carried = slowest.rate.median * lines
    if best.busbw_high >= least * carried:
        return []
    if cpu_limit(view, best, busy) or cpu_limit(view, slowest, busy):
        return []
    core = core_of(view, best)
    if fast and view.setup.backend == "gloo" and (core is None or core >= thresholds.IDLE_GLOO):
        return []
    # Without a line and without CPU figures there is no evidence that the network takes the time.
    if view.line is None and (best.busy is None or slowest.core is None):
        return []
    share = percent(best.busbw / carried)
    each = f" over {lines} lines" if lines > 1 else ""
    text = (
        f"all_reduce is slow: {rate(best.busbw)} at best ({size_text(best.size)}), {share} of what raw TCP "
        f"reaches{each} from {view.way(way)} while the other direction is busy."
    )
    # More threads and connections: if they help, the limit is the backend, not the network.
    setting = "gloo_devices=2" if view.setup.backend == "gloo" else "nccl_socket_nthreads=4"
    fix = rerun(view, "--tune", setting)
    return [Finding(kind="slow-collective", text=text, fix=fix, where=("all_reduce",))]


def noise(view: ResultIndex) -> list[Finding]:
    rows = [row for row in view.large if row.time.count > 1]
    if not rows:
        return []
    middle = statistics.median([row.time.spread for row in rows])
    unsteady = view.line is None and any(cpu_limit(view, row, thresholds.BUSY_UNSHAPED) for row in rows)
    if middle <= (thresholds.NOISE_BUSY if unsteady else thresholds.NOISE):
        return []
    worst = max(rows, key=lambda row: row.time.spread)
    text = (
        f"The figures are noisy: half of the large sizes have an interval of ±{middle * 100:.0f} % or more "
        f"({worst.collective} of {size_text(worst.size)}: ±{worst.time.spread * 100:.0f} %). Something else uses the "
        "nodes or the network."
    )
    return [Finding(kind="noise", text=text, fix=on_hosts(view, "top -b -n 1"))]
