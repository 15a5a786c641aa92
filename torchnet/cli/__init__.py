"""The command line, ``torchnet`` and ``python -m torchnet``. Heavy imports are deferred until they are needed."""

from __future__ import annotations

from torchnet.cli.entry_point import main

__all__ = ["main"]
