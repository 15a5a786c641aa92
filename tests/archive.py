"""The agent as it travels: its own modules in one zip."""

from __future__ import annotations

from pathlib import Path

from torchnet.k8s.objects.agent_zip import agent_zip


def make(path: Path) -> Path:
    """Write it to ``path``."""
    path.write_bytes(agent_zip())
    return path
