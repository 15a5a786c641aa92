"""Figures as the findings say them, and the next command in the place where the nodes are."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence

from torchnet.bench.findings.view import View


def rate(value: float) -> str:
    """``value`` is bytes per second; the text bits, as lines are named."""
    bits = value * 8
    return f"{bits / 1e9:.2f} Gbit/s" if bits >= 1e9 else f"{bits / 1e6:.3g} Mbit/s"


def count(value: float) -> str:
    """Bytes."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"


def percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def several(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; of more than six, the first five and how many more."""
    shown = list(names) if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def on(view: View, node: int, command: str) -> str:
    """The command, as one types it to have it run on the node."""
    name = view.name(node)
    if view.setup.on == "kubernetes":
        return f"kubectl exec{namespace(view.setup.command)} {shlex.quote(name)} -- {command}"
    return f"{command}  # on {name}"


def namespace(command: Sequence[str]) -> str:
    """The namespace that was typed, as kubectl and torchnet take it; empty where none was."""
    for flag, value in itertools.pairwise(command):
        if flag in ("-n", "--namespace"):
            return f" -n {shlex.quote(value)}"
    for word in command:
        if word.startswith("--namespace="):
            return f" -n {shlex.quote(word.partition('=')[2])}"
    return ""


def again(view: View, *options: str) -> str:
    """The benchmark as it was typed, with options behind it."""
    return shlex.join([*(view.setup.command or ("torchnet", "bench")), *options])
