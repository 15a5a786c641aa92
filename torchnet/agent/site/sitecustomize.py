"""Lets a Python process that the agent started tell where it is, when the agent asks by a signal.

A process without it could only be asked by a debugger, which stock images lack.  Whatever ``sitecustomize`` the
installation has of its own is loaded as if this one were not here.
"""

import os
import sys


def _stacks() -> None:
    place = os.environ.get("TORCHNET_STACKS", "")
    if place.count(":") == 1:
        import faulthandler

        number, descriptor = (int(part) for part in place.split(":"))
        # A child of the process inherits the variable, but not the file.
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:torchnet-stacks"):
            faulthandler.register(number, file=descriptor, all_threads=True)


def _torchnet() -> None:
    """``import torchnet`` finds what came along with the agent: last on the path, after what the image has itself."""
    root = os.path.abspath(__file__)
    for _ in range(4):
        root = os.path.dirname(root)
    # The zip, or what a pod's first container unpacked of it; not the place of installed packages.
    if os.path.isfile(root) or os.path.isfile(os.path.join(root, "__main__.py")):
        sys.path.append(root)


def _next() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    mine = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        if mine is not None:
            sys.modules["sitecustomize"] = mine


try:
    _stacks()
except (ImportError, OSError, ValueError):
    pass  # no /proc, or not started by the agent: then nobody asks
_torchnet()
_next()
