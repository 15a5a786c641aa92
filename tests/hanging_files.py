"""A file system whose files can be created and never written: write(2) waits in the kernel, and no signal ends it.

    unshare -Urm python -m tests.hanging_files FOLDER COMMAND...    runs a command with the file system at FOLDER

It is a FUSE server that reads the request to write, and does not answer it.

Source: include/uapi/linux/fuse.h
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchnet.linux import namespaces

DEVICE = "/dev/fuse"
_IN, _OUT = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
_LOOKUP, _GETATTR, _SETATTR, _MKDIR, _WRITE, _FLUSH, _INIT, _CREATE = 1, 3, 4, 9, 16, 25, 26, 35
_ENOENT, _ENOSYS = 2, 38
_ROOT, _FILE = 1, 2
_folders = itertools.count(_FILE + 1)  # every folder is new and empty
_DIRECT_IO = 1
_SILENT = (2, _WRITE, _FLUSH, 42)  # also FORGET and BATCH_FORGET, which have no answer


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Mount it in this process's mount namespace; at the end, whoever waits for it gets an error."""
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"{DEVICE} cannot be opened: {error.strerror}")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    namespaces.mount("hanging", str(folder), "fuse", namespaces.MS_NOSUID | namespaces.MS_NODEV, options)
    server = os.fork()
    if server == 0:
        try:
            _serve(device)
        finally:
            os._exit(0)
    os.close(device)
    try:
        yield
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def _serve(device: int) -> None:
    while True:
        request = os.read(device, 2 << 20)
        _, operation, unique, node = _IN.unpack_from(request)[:4]
        if operation in _SILENT:
            continue
        error, body = _answer(operation, node)
        os.write(device, _OUT.pack(_OUT.size + len(body), -error, unique) + body)


def _answer(operation: int, node: int) -> tuple[int, bytes]:
    if operation == _INIT:
        return 0, struct.pack("=IIIIHHIIHH", 7, 31, 1 << 16, 0, 16, 12, 1 << 16, 1, 0, 0) + bytes(32)
    if operation == _LOOKUP:
        return _ENOENT, b""
    if operation in (_GETATTR, _SETATTR):
        return 0, struct.pack("=QII", 60, 0, 0) + _attributes(node)
    if operation == _MKDIR:
        made = next(_folders)
        return 0, struct.pack("=QQQQII", made, 0, 60, 60, 0, 0) + _attributes(made)
    if operation == _CREATE:
        entry = struct.pack("=QQQQII", _FILE, 0, 60, 60, 0, 0) + _attributes(_FILE)
        return 0, entry + struct.pack("=QII", 0, _DIRECT_IO, 0)
    return _ENOSYS, b""


def _attributes(node: int) -> bytes:
    mode = 0o100666 if node == _FILE else 0o40777
    return struct.pack("=6Q10I", node, *[0] * 5, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def main(folder: str, *command: str) -> int:
    with mounted(Path(folder)):
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
