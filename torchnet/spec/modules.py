"""Whether ``python -m NAME`` would find a module, told without importing anything of it."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

from torchnet.network.text import printable
from torchnet.spec.words import quote


def check_module(name: str, cwd: str) -> str:
    """Why ``python -m name`` from ``cwd`` would find nothing to run, or "".

    `importlib.util.find_spec` is no way to ask: it imports the parent packages, hence torch for
    ``torch.distributed.run``, and runs their code in the launcher.
    """
    if name.endswith(".py") or os.sep in name:
        return "it is a file's path, and -m takes a module's name; leave out -m"
    if not all(part.isidentifier() for part in name.split(".")):
        return f"{quote(name)} is no module's name"
    # As the worker sees it: the directory it starts in, in the place of this command's own directory.
    path: list[str] | None = [cwd, *sys.path[1:]]
    spec: ModuleSpec | None = None
    so_far = ""
    for part in name.split("."):
        so_far = f"{so_far}.{part}" if so_far else part
        spec = _find(so_far, path)
        if spec is None:
            return (
                f"there is no module {printable(so_far, 200)}, neither in {printable(cwd, 200)} nor installed"
            )
        path = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if path is None and so_far != name:
            return f"{printable(so_far, 200)} is a module, not a package, so there is nothing in it"
    if path is not None and _find(f"{name}.__main__", path) is None:
        return "it is a package without a __main__.py, so there is nothing to run"
    return ""


def _find(name: str, path: list[str] | None) -> ModuleSpec | None:
    found = PathFinder.find_spec(name, path)
    if found is not None:
        return found
    # Built-in modules, and the finders that editable installations leave in the process.
    for finder in sys.meta_path:
        if finder is PathFinder or not hasattr(finder, "find_spec"):
            continue
        try:
            found = finder.find_spec(name, None if "." not in name else path)
        except Exception:
            continue
        if found is not None:
            return found
    return None
