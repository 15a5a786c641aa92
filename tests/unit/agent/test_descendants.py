"""The processes that belong to a job, whatever they do to their threads and descriptors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchnet.agent.process_tree import descendants
from torchnet.agent.socket_owners import open_sockets

LEADER_GONE = """
import ctypes, socket, threading, time
one = socket.socket()
print(one.fileno(), flush=True)
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
FILES_OF_ITS_OWN = """
import ctypes, os, socket, threading, time
def run():
    ctypes.CDLL(None).unshare(0x400)  # CLONE_FILES
    one = socket.socket()
    print(one.fileno(), threading.get_native_id(), flush=True)
    time.sleep(60)
threading.Thread(target=run).start()
time.sleep(60)
"""


@contextmanager
def started(text: str) -> Iterator[tuple[int, list[str]]]:
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().split()
        finally:
            process.send_signal(signal.SIGKILL)


def inode(folder: Path, number: str) -> int:
    return int(os.readlink(folder / "fd" / number).partition("[")[2].rstrip("]"))


def test_a_process_whose_first_thread_has_ended_is_alive() -> None:
    with started(LEADER_GONE) as (pid, _):
        deadline = time.monotonic() + 10
        while b") Z " not in Path(f"/proc/{pid}/stat").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert pid in descendants()
        (thread,) = (name for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid)
        held = inode(Path(f"/proc/{pid}/task/{thread}"), "3")
        assert open_sockets().holders[held] == pid
    assert pid not in descendants()


def test_a_thread_with_descriptors_of_its_own_holds_sockets() -> None:
    with started(FILES_OF_ITS_OWN) as (pid, (number, thread)):
        held = inode(Path(f"/proc/{pid}/task/{thread}"), number)
        assert open_sockets().holders[held] == pid
