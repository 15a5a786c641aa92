"""The version that is installed."""

from __future__ import annotations


def version() -> str:
    """Its number; "(not installed)" where it runs from a clone that is not."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("torchnet-launch")
    except PackageNotFoundError:
        return "(not installed)"
