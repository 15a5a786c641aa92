"""Texts that findings share, and the next command. It runs after the benchmark, when the pods are gone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from torchnet.bench.findings.result_index import ResultIndex
from torchnet.bench.rerun import rerun_command
from torchnet.bench.results import Finding, Results
from torchnet.units import bit_rate


def rate(bytes_per_s: float) -> str:
    """Format bytes per second in bits per second, the unit of line rates."""
    return bit_rate(bytes_per_s * 8)


def join_names(names: Sequence[str]) -> str:
    """Join names: ``a``, ``a and b``, ``a, b and c``; of more than six, the first five and how many more."""
    shown = list(names) if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def on_hosts(view: ResultIndex, command: str, *nodes: int) -> str:
    """Return a command about the machines themselves, such as processors or settings that new pods and networks
    inherit.

    On Kubernetes it names the nodes to run it on; local nodes are all on this machine.
    """
    if view.setup.on != "kubernetes":
        return command
    names = [view.host(node) or f"the host of the pod {view.name(node)}" for node in nodes]
    return f"{command}  # on {join_names(list(dict.fromkeys(names))) if names else 'the host of each pod'}"


def check_network(view: ResultIndex) -> str:
    """Return a command about the backend's interfaces. The interfaces are gone with the run, so no command can query
    them."""
    return shlex.join(view.results.look)


def name_hosts(results: Results, finding: Finding) -> Finding:
    """Name the machines that the finding's pods ran on: they outlive the pods."""
    ran = [f"{one.name} ran on {one.host}" for one in results.nodes if one.host and one.name in finding.where]
    return finding.model_copy(update={"text": f"{finding.text} {join_names(ran)}."}) if ran else finding


def rerun(view: ResultIndex, *options: str) -> str:
    """Return the benchmark's command line with options appended."""
    return shlex.join([*rerun_command(view.setup.command or ("torchnet", "bench")).command, *options])
