"""The training script of a traffic job: follows the plan, and records the payload that each process moves.

Uses the standard library alone (and torch for a plan with Gloo). TRAFFIC_FOLDER has ``plan.json``; each process
appends a line to ``record.jsonl`` there. Processes wait for each other by files in that folder, which causes no
traffic.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import struct
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 40.0  # seconds for anything that another process has to do first
OUTSIDER = -1
CHUNK = 1 << 16
_LINGER_0 = struct.pack("ii", 1, 0)
_WINDOW_BYTES = 100_000  # of datagrams, between two acknowledgements: fits any receive buffer
_ASK, _ACKNOWLEDGE = b"?", b"!"

Record = Counter[tuple[int, str, str, str]]  # bytes by (peer's node, interface, protocol, sent or received)


class Process:
    """One process of the job; ``rank`` -1 is the outsider, which only answers."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.plan = json.loads((folder / "plan.json").read_text())
        self.rank = rank
        self.record: Record = Counter()
        self.failed: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._kept: list[socket.socket] = []  # sockets that only the end of the process closes

    def run(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
        first = self.rank % self.plan["nproc"] == 0
        before = interface_counters() if first else {}
        incoming = [(flow, listen(flow)) for flow in self.plan["flows"] if flow["target"] == self.rank]
        self.barrier("start")
        outgoing = [flow for flow in self.plan["flows"] if flow["source"] == self.rank]
        # Before any thread starts: a forked child has only the thread that forked it.
        shared = {id(flow): self.connect(flow) for flow in outgoing if flow["process"] == "shared"}
        children = [
            self.fork(flow, shared.get(id(flow)))
            for flow in outgoing
            if flow["process"] in ("child", "shared")
        ]
        datagrams = [
            self.thread(receive_datagrams, self, flow, server)
            for flow, server in incoming
            if flow["protocol"].startswith("udp")
        ]
        threads = [
            self.thread(receive, self, flow, server)
            for flow, server in incoming
            if not flow["protocol"].startswith("udp")
        ]
        for flow in outgoing:
            if flow["process"] == "own":
                threads.append(self.thread(send, self, flow, None, (0, flow["size"])))
            elif flow["process"] == "shared":
                half = (0, flow["size"] // 2)
                threads.append(self.thread(send, self, flow, shared[id(flow)], half))
        if self.plan["gloo"] and self.rank != OUTSIDER:
            all_reduce(self.plan["gloo"])
        for thread in threads:
            thread.join()
        for pid in children:
            if os.waitpid(pid, 0)[1]:
                self.failed.append("a child failed")
        if self.failed:
            sys.exit("\n".join(self.failed))
        self.barrier("sent")
        self._stop.set()
        for thread in datagrams:
            thread.join()
        if self.rank != OUTSIDER:
            self.write(before if first else None)

    def barrier(self, name: str) -> None:
        """Wait until all ranks, and the outsider if there is one, are here."""
        (self.folder / f"{name}.{self.rank}").touch()
        names = {f"{name}.{rank}" for rank in range(self.plan["ranks"])}
        if any(flow["target"] == OUTSIDER for flow in self.plan["flows"]):
            names.add(f"{name}.{OUTSIDER}")
        deadline = time.monotonic() + PATIENCE
        while not names <= set(os.listdir(self.folder)):
            if time.monotonic() > deadline:
                sys.exit(f"rank {self.rank} waited in vain at {name!r}")
            time.sleep(0.02)

    def thread(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                target(*arguments)
            except BaseException:
                self.failed.append(f"rank {self.rank}, {arguments[1]}: {traceback.format_exc()}")

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def fork(self, flow: dict[str, Any], shared: socket.socket | None) -> int:
        """Fork a child that sends the whole flow, or the second half on the shared connection."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            self.record.clear()
            send(self, flow, shared, (flow["size"] // 2, flow["size"]) if shared else (0, flow["size"]))
            self.write(None)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def connect(self, flow: dict[str, Any]) -> socket.socket:
        sock = client(flow)
        patiently(lambda: sock.connect(address(flow, flow["to"], client=True)))
        return sock

    def count(self, flow: dict[str, Any], what: str, size: int) -> None:
        """Record ``size`` bytes that this process sent or received on the flow."""
        mine = flow["source"] if flow["source"] == self.rank else flow["target"]
        peer = flow["target"] if mine == flow["source"] else flow["source"]
        forward = (mine == flow["source"]) == (what == "sent")
        interface = flow["out_interface" if forward else "back_interface"]
        protocol = flow["protocol"].partition("-")[0]
        with self._lock:
            self.record[peer if peer < 0 else peer // self.plan["nproc"], interface, protocol, what] += size

    def keep(self, sock: socket.socket) -> None:
        with self._lock:
            self._kept.append(sock)

    def stopped(self) -> bool:
        return self._stop.is_set()

    def write(self, before: dict[str, tuple[int, int, int, int]] | None) -> None:
        """Append this process's line; the node's first process adds what its interfaces counted."""
        after = interface_counters() if before is not None else {}
        counters = {
            name: [now - then for now, then in zip(found, before[name], strict=True)]
            for name, found in after.items()
            if before and name in before
        }
        line = {
            "rank": self.rank,
            "node": self.rank // self.plan["nproc"],
            "bytes": [[*key, size] for key, size in self.record.items()],
            "counters": counters,
        }
        data = json.dumps(line).encode() + b"\n"
        file = os.open(self.folder / "record.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, data)
        os.close(file)


def send(process: Process, flow: dict[str, Any], opened: socket.socket | None, part: tuple[int, int]) -> None:
    """Send the bytes of ``part`` of the flow, on ``opened`` or on connections of its own."""
    if flow["protocol"].startswith("udp"):
        send_datagrams(process, flow)
        return
    count = flow["connections"]
    for number in range(count):
        first, last = (part[1] - part[0]) * number // count, (part[1] - part[0]) * (number + 1) // count
        sock = opened or process.connect(flow)
        sock.settimeout(PATIENCE)
        transmit(process, flow, sock, last - first, flow["seconds"] / count)
        if part[0]:
            return  # the parent waits for the answer
        if flow["end"] == "half":
            sock.shutdown(socket.SHUT_WR)
        drain(process, flow, sock, flow["back"])
        finish(process, flow, sock)


def receive(process: Process, flow: dict[str, Any], server: socket.socket) -> None:
    """Accept the flow's connections, read what comes, and answer."""
    count = flow["connections"]
    server.settimeout(PATIENCE)
    for number in range(count):
        sock = server.accept()[0]
        sock.settimeout(PATIENCE)
        drain(process, flow, sock, flow["size"] * (number + 1) // count - flow["size"] * number // count)
        if flow["end"] == "half" and sock.recv(1):
            raise AssertionError("more bytes than planned")
        transmit(process, flow, sock, flow["back"], 0)
        if flow["end"] == "exit":
            process.keep(sock)
            continue
        try:
            if sock.recv(1):
                raise AssertionError("more bytes than planned")
        except ConnectionResetError:
            pass
        sock.close()
    server.close()


def transmit(process: Process, flow: dict[str, Any], sock: socket.socket, size: int, seconds: float) -> None:
    chunk = max(1, size // 20) if seconds else CHUNK
    data = bytes(min(size, chunk))
    left = size
    while left:
        sock.sendall(memoryview(data)[: min(left, chunk)])
        process.count(flow, "sent", min(left, chunk))
        left -= min(left, chunk)
        if seconds:
            time.sleep(seconds * chunk / size)


def drain(process: Process, flow: dict[str, Any], sock: socket.socket, size: int) -> None:
    buffer = bytearray(CHUNK)
    while size:
        got = sock.recv_into(buffer, min(size, CHUNK))
        if not got:
            raise AssertionError(f"{size} bytes are missing")
        process.count(flow, "received", got)
        size -= got


def finish(process: Process, flow: dict[str, Any], sock: socket.socket) -> None:
    if flow["end"] == "exit":
        process.keep(sock)
        return
    if flow["end"] == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    sock.close()


def send_datagrams(process: Process, flow: dict[str, Any]) -> None:
    """Send the flow as datagrams; after each window, wait until the target has acknowledged it."""
    sock = client(flow)
    to = address(flow, flow["to"], client=True)
    connected = flow["protocol"] == "udp-connected"
    if connected:
        patiently(lambda: sock.connect(to))

    def put(data: bytes) -> None:
        patiently(lambda: sock.send(data) if connected else sock.sendto(data, to))
        process.count(flow, "sent", len(data))

    left, window = flow["size"], max(1, _WINDOW_BYTES // (flow["datagram"] + 600))
    while left:
        for _ in range(window):
            if left:
                put(bytes(min(left, flow["datagram"])))
                left -= min(left, flow["datagram"])
        sock.settimeout(0.5)
        deadline = time.monotonic() + PATIENCE
        while True:
            put(_ASK)
            try:
                process.count(flow, "received", len(sock.recv(16)))
                break
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
    finish(process, flow, sock)


def receive_datagrams(process: Process, flow: dict[str, Any], sock: socket.socket) -> None:
    sock.settimeout(0.1)
    while True:
        try:
            data, sender = sock.recvfrom(CHUNK)
        except TimeoutError:
            if process.stopped():
                return
            continue
        process.count(flow, "received", len(data))
        if data == _ASK:
            sock.sendto(_ACKNOWLEDGE, sender)
            process.count(flow, "sent", len(_ACKNOWLEDGE))


def patiently(action: Callable[[], object]) -> None:
    """Repeat an action until it succeeds: an address may still be tentative, and the target not yet listening."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            action()
            return
        except OSError as error:
            if error.errno == errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def listen(flow: dict[str, Any]) -> socket.socket:
    kind = socket.SOCK_DGRAM if flow["protocol"].startswith("udp") else socket.SOCK_STREAM
    if flow["protocol"] == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(f"\0traffic-{flow['port']}")
    else:
        anywhere = flow["address"] == "any"
        target = "::" if anywhere else flow["to"]
        sock = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, kind)
        if anywhere:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        patiently(lambda: sock.bind(("::", flow["port"]) if anywhere else address(flow, target)))
    if kind == socket.SOCK_STREAM:
        sock.listen(1024)
    return sock


def client(flow: dict[str, Any]) -> socket.socket:
    """The source's socket, bound as the flow says, not yet connected."""
    kind = socket.SOCK_DGRAM if flow["protocol"].startswith("udp") else socket.SOCK_STREAM
    if flow["protocol"] == "unix":
        return socket.socket(socket.AF_UNIX)
    six = ":" in flow["to"] or flow["address"] == "mapped"
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind)
    if flow["bind"] == "device":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, flow["way"].encode())
    elif flow["bind"]:
        sock.bind((flow["from"], 0))
    return sock


def address(flow: dict[str, Any], literal: str, client: bool = False) -> Any:
    if flow["protocol"] == "unix":
        return f"\0traffic-{flow['port']}"
    if literal.startswith("fe80:"):
        return literal, flow["port"], 0, socket.if_nametoindex(flow["way"])
    mapped = client and flow["address"] == "mapped"
    return (f"::ffff:{literal}" if mapped else literal), flow["port"]


def interface_counters() -> dict[str, tuple[int, int, int, int]]:
    """Received bytes and packets, sent bytes and packets of this node's interfaces."""
    found = {}
    for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = rest.split()
        found[name.strip()] = (int(fields[0]), int(fields[1]), int(fields[8]), int(fields[9]))
    return found


def all_reduce(size: int) -> None:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    tensor = torch.zeros(size // 4)
    for _ in range(10):
        dist.all_reduce(tensor)
    dist.destroy_process_group()


if __name__ == "__main__":
    Process(Path(os.environ["TRAFFIC_FOLDER"]), int(os.environ["RANK"])).run()
