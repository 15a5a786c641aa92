"""The command that looks at the network of a benchmark that is over, and measures nothing."""

from __future__ import annotations

from collections.abc import Sequence

from torchnet.bench.repeat import repeatable
from torchnet.spec.model import JobSpec
from torchnet.spec.pods import parse_attachment


def look(job: JobSpec, command: Sequence[str]) -> tuple[str, ...]:
    """Locally a network is as it was asked for: the dry run says by whom, value for value. A pod's is gone with it, and
    its image may not have had the tools: two new pods are tried at the same place, whoever named it."""
    if job.on == "local":
        return (*repeatable(command).command, "--dry-run")
    settings, first = job.kubernetes, parse_attachment(job.network.networks[0])
    told = {
        "--network": f"{first.namespace}/{first.name}" if first.namespace else first.name,
        "--image": settings.image,
        "-n": settings.namespace,
        "--context": settings.context,
        "--kubeconfig": settings.kubeconfig,
    }
    return ("torchnet", "verify", *(word for flag, value in told.items() if value for word in (flag, value)))
