"""The entry of the command ``torchnet``, and the check that the package `torchnet` is the one of torchnet-launch.

The distribution "torchnet" on PyPI, of 2018, has the same import name. Installed after torchnet-launch, it replaces
``torchnet/__init__.py``; uninstalled, it removes that file. Python runs it before every module of `torchnet`, so that
only a package of another name can report what happened.
"""

from __future__ import annotations

import os
import re
import sys

FIX = "pip uninstall -y torchnet && pip install --force-reinstall --no-deps torchnet-launch"
_METADATA = re.compile(r"torchnet-([^-]+)(-py[\d.]+)?\.(dist|egg)-info")
_BROKEN_INSTALLATION = 70  # as of `torchnet.errors.TorchnetError`, which may be out of reach here


def main() -> int:
    """Run ``torchnet`` with the process's arguments; the exit code."""
    try:
        import torchnet

        own = "traffic" in getattr(torchnet, "__all__", ())
    except Exception:  # the other one imports visdom; torchnet-launch's imports nothing that could be missing
        own = False
    if own:
        from torchnet.cli import main as command

        return command()
    from importlib.util import find_spec

    spec = find_spec("torchnet")
    folders = spec.submodule_search_locations if spec else None
    place = (spec and spec.origin) or f"{next(iter(folders or '?'))} (no __init__.py)"
    sys.stderr.write(
        f"torchnet: `import torchnet` gives {place} instead of torchnet-launch's package: the distribution "
        f'"torchnet", which has the same import name, replaced or removed files\n  fix: {FIX}\n'
    )
    return _BROKEN_INSTALLATION


def name_conflicts() -> list[str]:
    """A warning where the other distribution is installed as well.

    Lists the folders of ``sys.path`` in 0.3 ms; importing importlib.metadata alone takes 10 ms.
    """
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if found := _METADATA.fullmatch(name):
                return [
                    f'warning: the distribution "torchnet" {found[1]} in {folder or "."} has the same import name as '
                    "torchnet-launch: scripts may import either, and uninstalling one breaks the other"
                    f"\n  fix: {FIX}"
                ]
    return []
