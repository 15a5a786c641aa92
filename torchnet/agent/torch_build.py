"""Whether the torch that the processes will import was built with libuv, without importing it (1.3 s).

Its store asks for libuv by default and fails in builds without it, Debian's for one ("use_libuv was requested but
PyTorch was build without libuv support").  A build with it contains the class that serves the store by libuv.
"""

from __future__ import annotations

import importlib.util
import mmap
import os
import struct

_CLASS = b"LibUVStoreDaemon"  # torch/csrc/distributed/c10d/TCPStoreLibUvBackend.cpp
_LIBRARY = "lib/libtorch_cpu.so"
_HEAD = struct.Struct("<IIQQQQ")  # a section's name, type, flags, address, offset, size


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
            # The class's name stands where constants do, also in a stripped build: 5 ms.  Where there is none, to look
            # through all of the library took 0.5 s, in which an agent hears and says nothing.
            start, end = _section(data, b".rodata") or (0, len(data))
            return data.find(_CLASS, start, end) >= 0
    except (OSError, ValueError):
        return None


def _section(data: mmap.mmap, name: bytes) -> tuple[int, int] | None:
    """From where to where an ELF file of 64 bits has a section (elf(5)); None where it is none, or has no such one."""
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
