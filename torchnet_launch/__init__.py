"""Entry point of the ``torchnet`` command; checks that the `torchnet` package belongs to torchnet-launch.

The distribution "torchnet" on PyPI (2018) has the same import name. Installing it after torchnet-launch replaces
``torchnet/__init__.py``; uninstalling it removes that file. Python runs that file before any other module of
`torchnet`, so only a package with another name can report the conflict.
"""

from __future__ import annotations

import os
import re
import sys

FIX = "pip uninstall -y torchnet && pip install --force-reinstall --no-deps torchnet-launch"
_METADATA = re.compile(r"torchnet-([^-]+)(-py[\d.]+)?\.(dist|egg)-info")
_BROKEN_INSTALLATION = 70  # `torchnet.errors.TorchnetError.exit_code`; that module may not be importable here


def main() -> int:
    """Run ``torchnet`` with the process's arguments, and return the exit code."""
    try:
        import torchnet

        own = "traffic" in getattr(torchnet, "__all__", ())
    except Exception:  # the other package imports visdom; this package has no imports that can fail
        own = False
    if own:
        from torchnet.cli import main as command

        return command()
    from importlib.util import find_spec

    spec = find_spec("torchnet")
    folders = spec.submodule_search_locations if spec else None
    place = (spec and spec.origin) or f"{next(iter(folders or '?'))} (no __init__.py)"
    sys.stderr.write(
        f"torchnet: `import torchnet` imports {place} instead of the package of torchnet-launch: the distribution "
        f'"torchnet", which has the same import name, replaced or removed files\n  fix: {FIX}\n'
    )
    return _BROKEN_INSTALLATION


def name_conflicts() -> list[str]:
    """Return a warning if the other distribution is also installed, else an empty list.

    Listing the folders of ``sys.path`` takes 0.3 ms; importing importlib.metadata alone would take 10 ms.
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
