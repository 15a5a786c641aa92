"""Entry point of ``python -m torchnet``."""

from __future__ import annotations

import sys

from torchnet_launch import main

if __name__ == "__main__":
    sys.exit(main())
