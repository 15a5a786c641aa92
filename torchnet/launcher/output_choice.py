"""Which output of a job is shown, with which prefix, and where its log files are."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from string import Template

from torchnet.agent.spec import AgentSpec
from torchnet.config.job_spec import Output
from torchnet.console.console import Console, Listener

_NOBODY = -1  # no rank has this number; an empty selection would be all


def console_of(output: Output, spec: AgentSpec, listener: Listener | None) -> Console:
    """Return the console of this launcher's ranks."""
    return Console(
        world_size=spec.world_size,
        ranks=ranks(output, spec),
        quiet=output.quiet,
        listener=listener,
        prefix=prefix(output, spec),
    )


def with_log_dir(specs: list[AgentSpec], place: str | None = None) -> list[AgentSpec]:
    """Return the specifications with a temporary directory if streams are to be written without --log-dir.

    Args:
        place: Where it is created; None for the system's place of temporary files.
    """
    common = specs[0]
    if common.log_dir or not f"{common.redirects}{common.tee}".strip("0:,"):
        return specs
    folder = tempfile.mkdtemp(prefix="torchnet_", dir=place)
    return [replace(spec, log_dir=folder) for spec in specs]


def ranks(output: Output, spec: AgentSpec) -> Sequence[int]:
    """Return the ranks whose output is shown; () for all."""
    if not output.local_ranks:
        return output.ranks
    chosen = set(output.local_ranks)
    found = [
        rank
        for rank in range(spec.world_size)
        if rank % spec.nproc_per_node in chosen and (not output.ranks or rank in output.ranks)
    ]
    return found or [_NOBODY]


def prefix(output: Output, spec: AgentSpec) -> Callable[[int], str] | None:
    """Return the function that renders torchrun's template for a rank; None for torchnet's prefix."""
    if output.prefix_template is None:
        return None
    template = Template(output.prefix_template)
    machine = socket.gethostname()

    def render(rank: int) -> str:
        node, local = divmod(rank, spec.nproc_per_node)
        return template.safe_substitute(
            role_name=spec.role,
            rank=rank,
            local_rank=local,
            # On several hosts, this console shows the ranks of its own host.
            hostname=f"node-{node}" if spec.nnodes > 1 and spec.runtime == "local" else machine,
        )

    return render
