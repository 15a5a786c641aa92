"""Import pyroute2's submodules without its ``__init__``, which loads 163 modules in 0.35 s to re-export them.

To be imported before them. Importing a submodule does not execute a package that is already in ``sys.modules``. The
stand-in here becomes the whole package on first use of a name that it lacks, so a script that imports pyroute2 itself
notices nothing.

Rejected: ``importlib.util.LazyLoader``. Importing a submodule reads ``__path__``, which loads it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torchnet.linux.netlink import REQUEST

_ONLY_EXECUTED = ("__all__", "__version__")  # without them `from pyroute2 import *` would import nothing


class _LazyPackage(ModuleType):
    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        self.__loader__ = spec.loader
        self.__path__ = list(spec.submodule_search_locations or [])
        self.__file__ = spec.origin
        self.__package__ = spec.name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _ONLY_EXECUTED:
            raise AttributeError(name)  # the import system and introspection ask every module for these
        if name not in _ONLY_EXECUTED and importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        self._execute()
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        self._execute()
        return dir(self)

    def _execute(self) -> None:
        """Become the whole package; from then on a missing name is an AttributeError."""
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)


def prepare() -> None:
    """Make ``from pyroute2.netlink… import …`` cheap; do nothing if pyroute2 is already loaded.

    Raises:
        ModuleNotFoundError: pyroute2 is neither installed nor in the zip that torchnet was imported from.
    """
    if "pyroute2" in sys.modules:
        return
    spec = importlib.util.find_spec("pyroute2")
    if spec is None:
        raise ModuleNotFoundError("pyroute2 is missing: pip install pyroute2", name="pyroute2")
    sys.modules["pyroute2"] = _LazyPackage(spec)


def encode(message: Any, kind: int, flags: int) -> bytes:
    """Encode a pyroute2 message with ``kind`` and ``flags``; sending fills in the sequence number."""
    message["header"]["type"] = kind
    message["header"]["flags"] = flags | REQUEST
    message.encode()
    return bytes(message.data)


prepare()
