"""Detect whether the processes' torch was built with libuv, without importing it (1.3 s).

Its store requests libuv by default and fails in builds without it, such as Debian's ("use_libuv was requested but
PyTorch was build without libuv support"). A build with libuv contains the class of the libuv store server.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import struct

_CLASS = b"LibUVStoreDaemon"  # torch/csrc/distributed/c10d/TCPStoreLibUvBackend.cpp
_LIBRARY = "lib/libtorch_cpu.so"
_HEAD = struct.Struct("<IIQQQQ")  # section header: name, type, flags, address, offset, size


def probe() -> bool | None:
    """Return True or False, or None if torch is missing or its layout is different."""
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
    """Return whether the library contains the class's name; None if it cannot be read."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # Even a stripped build has the name among its constants (5 ms). Searching the whole library for a missing
            # name took 0.5 s, which blocks the event loop.
            start, end = _section(data, b".rodata") or (0, len(data))
            return data.find(_CLASS, start, end) >= 0
    except (OSError, ValueError):
        return None


def _section(data: mmap.mmap, name: bytes) -> tuple[int, int] | None:
    """Return (start, end) of a section in a 64-bit ELF file (elf(5)); None if there is none."""
    if data[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        (table,) = struct.unpack_from("<Q", data, 0x28)
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        heads = [_HEAD.unpack_from(data, table + number * size) for number in range(count)]
        texts = heads[names][4]
        for label, _, _, _, offset, length in heads:
            if data[texts + label : texts + label + len(name) + 1] == name + b"\0":
                return offset, offset + length
    except (struct.error, IndexError):
        pass
    return None
