"""Commands that a benchmark suggests: the same run again, or a check of the network alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torchnet.config.job_spec import JobSpec


def network_check(job: JobSpec, command: Sequence[str]) -> tuple[str, ...]:
    """Return the command that checks the network without a measurement.

    A local network is as configured, so the dry run shows it, with the source of each value. A pod's network is gone
    with the pod, and its image may lack the tools, so ``torchnet verify`` tries two new pods in the same place,
    wherever the value was set.
    """
    if job.on == "hosts":
        return ("ip", "-s", "address")
    if job.on == "local":
        return (*rerun_command(command).command, "--dry-run")
    settings = job.kubernetes
    flags = {
        "--network": job.attachments[0].path,
        "--image": settings.image,
        "-n": settings.namespace,
        "--context": settings.context,
        "--kubeconfig": settings.kubeconfig,
    }
    return ("torchnet", "verify", *(word for flag, value in flags.items() if value for word in (flag, value)))


_FILES = ("--json", "--html")
_MASK = "=…"  # replaces a variable's value


class RerunCommand(NamedTuple):
    """A command to repeat; ``unset`` names the variables whose values were not kept and must be set again."""

    command: tuple[str, ...]
    unset: tuple[str, ...]


def rerun_command(command: Sequence[str]) -> RerunCommand:
    """Return the command without values of variables, and without its files, so that these results stay for a
    comparison."""
    kept: list[str] = []
    unset: list[str] = []
    words = iter(command)
    for word in words:
        flag, equals, _ = word.partition("=")
        pair = [word] if equals or flag not in (*_FILES, "--env") else [word, next(words, "")]
        if flag == "--env" and pair[-1].endswith(_MASK):
            unset.append(pair[-1].removeprefix("--env=").removesuffix(_MASK))
        elif flag not in _FILES:
            kept += pair
    return RerunCommand(tuple(kept), tuple(unset))
