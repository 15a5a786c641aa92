"""Whether the torch that the processes will import was built with libuv, without importing it (1.3 s).

Its store asks for libuv by default and fails in builds without it, Debian's for one ("use_libuv was requested but
PyTorch was build without libuv support").  A build with it contains the class that serves the store by libuv.
"""

from __future__ import annotations

import importlib.util
import mmap
import os

_CLASS = b"LibUVStoreDaemon"  # torch/csrc/distributed/c10d/TCPStoreLibUvBackend.cpp
_LIBRARY = "lib/libtorch_cpu.so"


def probe() -> bool | None:
    """True or False, or None where there is no torch to look at, or one that is laid out differently."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        found = contains(os.path.join(folder, _LIBRARY))
        if found is not None:
            return found
    return None


def contains(path: str) -> bool | None:
    """Whether the library mentions the class; None when it cannot be read."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # From the end, where the names are: 8 ms instead of 120, in which an agent hears and says nothing.
            return data.rfind(_CLASS) >= 0
    except (OSError, ValueError):
        return None
