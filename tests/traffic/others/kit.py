"""What the scripts of the other jobs share: addresses, meeting points, and the count of each payload byte.

OTHERS_FOLDER holds the files by which the ranks wait for each other, so waiting causes no traffic. Each process appends
what it sent and received to ``record.jsonl`` there.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

MB = int(os.environ.get("OTHERS_MB", "1000000"))  # less shows what is too little to be noticed
FOLDER = Path(os.environ["OTHERS_FOLDER"])
RANK = int(os.environ["RANK"])
FIRST = RANK == 0
HOLD = float(os.environ.get("OTHERS_HOLD", "0"))  # seconds for which a witness can see whose a connection is
counts: Counter[tuple[str, str]] = Counter()
libc = ctypes.CDLL(None, use_errno=True)


def put(name: str, value: object) -> None:
    """Leave a value for the other ranks."""
    path = FOLDER / f"{name}.{os.getpid()}.new"
    path.write_text(json.dumps(value))
    path.rename(FOLDER / name)


def get(name: str) -> Any:
    """Wait for a value that another rank left."""
    while not (FOLDER / name).exists():
        time.sleep(0.01)
    return json.loads((FOLDER / name).read_text())


def meet(name: str) -> None:
    """Wait until both ranks are here."""
    put(f"{name}-{RANK}", None)
    get(f"{name}-{1 - RANK}")


def addresses() -> dict[str, str]:
    """This node's global address on each interface."""
    found: dict[str, str] = {}
    for link in json.loads(subprocess.check_output(["ip", "-j", "address"])):
        for entry in link["addr_info"]:
            if entry["scope"] == "global":
                found.setdefault(link["ifname"], entry["local"])
    return found


def exchange(name: str) -> dict[str, str]:
    """The other rank's address on each interface; each meeting has its name."""
    put(f"{name}-addresses-{RANK}", addresses())
    return dict(get(f"{name}-addresses-{1 - RANK}"))


def count(way: str, sent: int = 0, received: int = 0) -> None:
    counts.update({(way, "sent"): sent, (way, "received"): received})


def write() -> None:
    """Append what this process counted."""
    with (FOLDER / "record.jsonl").open("a") as file:
        file.write(json.dumps([[RANK, *key, size] for key, size in counts.items()]) + "\n")


def pair(name: str, way: str, *, protocol: int = 0, at: str = "") -> socket.socket:
    """One end of a TCP connection from rank 0 to rank 1, to its address on ``way`` or ``at``."""
    mine, theirs = addresses(), exchange(name)
    target = at or (theirs if FIRST else mine)[way]
    sock = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_STREAM, protocol)
    if FIRST:
        sock.connect((target, get(f"{name}-port")))
        return sock
    with sock:
        sock.bind((target, 0))
        sock.listen()
        put(f"{name}-port", sock.getsockname()[1])
        return sock.accept()[0]


def flow(sock: socket.socket, way: str, size: int) -> None:
    """Rank 0 sends ``size`` bytes, and rank 1 answers with one, so that all of it has arrived."""
    if FIRST:
        sock.sendall(bytes(size))
        count(way, sent=size, received=len(sock.recv(1)))
    else:
        left = size
        while left:
            left -= len(sock.recv(min(left, 1 << 16))) or sys.exit("bytes are missing")
        count(way, sent=sock.send(b"!"), received=size)
    time.sleep(HOLD)


def plain(way: str, size: int, *, protocol: int = 0, at: str = "") -> None:
    """A connection that carries ``size`` bytes."""
    with pair(f"plain-{way}-{protocol}-{at}", way, protocol=protocol, at=at) as sock:
        flow(sock, way, size)
    meet(f"plain-{way}-{protocol}-{at}")


def datagrams(way: str, number: int, data: bytes, protocol: int = 0) -> None:
    """Rank 0 sends datagrams to rank 1's address on ``way``."""
    theirs = exchange("datagrams")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, protocol) as sock:
        if not FIRST:
            sock.bind((addresses()[way], 0))
            put("datagrams-port", sock.getsockname()[1])
            receive(sock, way, "datagrams-end")
            return
        sock.connect((theirs[way], get("datagrams-port")))
        for _ in range(number):
            count(way, sent=sock.send(data))
            time.sleep(0.00005)
        put("datagrams-end", None)


def receive(sock: socket.socket, way: str, end: str, header: int = 0) -> None:
    """Count what comes, until nothing does and rank 0 has put ``end``."""
    sock.settimeout(0.2)
    while True:
        try:
            count(way, received=len(sock.recv(1 << 16)) - header)
        except TimeoutError:
            if (FOLDER / end).exists():
                return


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)
