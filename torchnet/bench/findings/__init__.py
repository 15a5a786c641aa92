"""Problems in a benchmark's results: a pure function of the results.

Each cause is reported once. What follows from another finding is left out: a node with a different MTU is also slow,
and so is everything that waits for it. A finding needs figures that no healthy network gives;
torchnet.bench.findings.thresholds lists them all, with their reasons.
"""

from __future__ import annotations

from dataclasses import replace

from torchnet.bench.findings import bottlenecks, byte_counts, run_quality, slow_paths
from torchnet.bench.findings.finding_text import name_hosts
from torchnet.bench.findings.result_index import ResultIndex
from torchnet.bench.results import Finding, Results

__all__ = ["find"]


def find(results: Results) -> tuple[Finding, ...]:
    """Return the findings, most important first; empty if there are none."""
    return tuple(name_hosts(results, finding) for finding in _found(results))


def _found(results: Results) -> tuple[Finding, ...]:
    if results.ended == "network":
        return ()  # a network failure is a finding already, with its own text and fix
    lost = run_quality.lost(results)
    if results.setup is None:
        return tuple(lost)
    view = ResultIndex(results, results.setup)
    wrong = run_quality.wrong_results(view)
    stray = byte_counts.wrong_interface(view)
    mtu = bottlenecks.mtu(view)
    # If the ranks used another network as the backend, its paths do not matter.
    elsewhere = any(view.network in one.where for one in stray)
    network = [] if mtu or elsewhere else _network(view)
    network += [finding for rail in view.rails for finding in _rail(replace(view, rail=rail))]
    found = [*wrong, *lost, *stray, *mtu, *network]
    if stray or mtu or lost:
        return tuple(found)
    found += byte_counts.compare_counts(view)
    if not network:
        found += run_quality.slow_collective(view) or run_quality.noise(view)
    return tuple(found)


def _rail(view: ResultIndex) -> list[Finding]:
    """Return the findings of a rail other than the first."""
    found = bottlenecks.mtu(view) or _network(view)
    return [one.model_copy(update={"text": f"{view.rail}: {one.text}"}) for one in found]


def _network(view: ResultIndex) -> list[Finding]:
    """Return what raw TCP shows about the paths.

    A stream that its window limits is slow on every path, and so is one that loses packets. In these cases only paths
    that differ from the others are reported.
    """
    lossy = slow_paths.find_loss(view)
    buffers = [] if lossy.findings else bottlenecks.buffers(view)
    stream = [] if lossy.findings or buffers else bottlenecks.single_stream(view)
    explained = bool(lossy.findings or buffers or stream)
    slow = slow_paths.find_slow(view, lossy.covered, line=not explained)
    # A path that differs from the others is the more likely reason for the low rate of one stream.
    if slow.findings:
        return [*slow.findings, *lossy.findings]
    return [*lossy.findings, *buffers, *stream] or bottlenecks.cpu_bound(view)
