"""The command line: ``torchnet`` and ``python -m torchnet``. Imports nothing heavy before it is needed."""

from __future__ import annotations

from torchnet.cli.entry_point import main

__all__ = ["main"]
