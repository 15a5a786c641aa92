"""The script of the jobs under ``torchnet launch``: one function for each; the first argument names it."""

from __future__ import annotations

import array
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.traffic.others import kit
from tests.traffic.others.kit import FIRST, MB, count, flow, get, meet, pair, plain, put, take


def _own_sysctl(name: str, value: str) -> None:
    if kit.addresses()["eth0"].startswith("172.30."):  # the local network's own namespace
        Path(f"/proc/sys/net/ipv4/{name}").write_text(value)


def tiny() -> None:
    """UDP over eth0 whose datagrams are smaller than the headers that TCP would have more."""
    plain("net1", MB // 10)
    kit.datagrams("eth0", 60_000, bytes(12))


def disconnect() -> None:
    """One socket is connected over eth0, then over net1; both ends clear its counts in between."""
    sock = pair("one", "eth0")
    flow(sock, "eth0", 4 * MB)
    meet("sent")
    kit.libc.connect(sock.fileno(), bytes(16), 16)  # AF_UNSPEC
    sock.close()
    plain("net1", 4 * MB)


def mptcp() -> None:
    with pair("one", "eth0", protocol=262) as sock:
        flow(sock, "eth0", 2 * MB)
    with pair("two", "net1", protocol=262) as sock:
        flow(sock, "net1", 2 * MB)
    plain("net1", 2 * MB)


def store() -> None:
    """Large values through a store, which is also what keeps a gradient of a small model."""
    from torch.distributed import TCPStore

    size, own = 100_000, kit.addresses()["net1"]
    host = get("host") if not FIRST else own
    if FIRST:
        put("host", own)
    server = TCPStore(host, 29_511, 2, FIRST)
    for index in range(40):
        if FIRST:
            server.get(f"value{index}")
        else:
            server.set(f"value{index}", "x" * size)
    for what in ("sent", "received"):  # only rank 1's connection is over a network
        count("net1", **{what: 40 * size * (not FIRST if what == "sent" else FIRST)})
    meet("stored")
    plain("eth0", 2 * MB)


def gloo() -> None:
    """Gloo over the frontend, by the script's own choice."""
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    tensor = torch.zeros(MB // 4)
    for _ in range(10):
        dist.all_reduce(tensor)
    count("eth0", sent=10 * MB, received=10 * MB)
    dist.destroy_process_group()
    meet("reduced")
    plain("net1", 10 * MB)


def fastopen() -> None:
    """Short connections whose bytes travel with the first packet, ended by resets."""
    _own_sysctl("tcp_fastopen", "1543")  # both ends, no cookie
    plain("net1", MB)
    server, target = kit.listen("short", "eth0")
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 1000)
    for _ in range(1_000):
        if FIRST:
            sock = socket.socket()
            count("eth0", sent=sock.sendto(bytes(1_000), 0x20000000, target))  # MSG_FASTOPEN
            count("eth0", received=len(sock.recv(1)))
        else:
            sock = server.accept()[0]
            take(sock, "eth0", 1_000)
            count("eth0", sent=sock.send(b"!"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def unaccepted() -> None:
    """The kernel took the bytes of connections that no process ever accepted."""
    plain("net1", 2 * MB)
    server, target = kit.listen("many", "eth0")
    opened = [socket.create_connection(target) for _ in range(50 * FIRST)]
    for sock in opened:
        sock.sendall(bytes(20_000))
    count("eth0", sent=FIRST * 50 * 20_000, received=(not FIRST) * 50 * 20_000)  # the kernel took them
    time.sleep(0.5)
    meet("sent")
    server.close()


def restart() -> None:
    """The first attempt fails after traffic over eth0, the second one uses net1."""
    again = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
    plain("net1" if again else "eth0", 2 * MB)
    if not again:
        meet("first")
        kit.write()
        kit.counts.clear()
        if FIRST:
            time.sleep(0.3)
            sys.exit(3)
        time.sleep(10)


def calls() -> None:
    """sendfile(), splice() and urgent data, on a connection that was opened by another process."""
    sock = pair("one", "net1")
    here, there = socket.socketpair()
    if not os.fork():
        descriptor = array.array("i", [sock.fileno()])
        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
        os._exit(0)
    sock.close()
    _, descriptors, _, _ = socket.recv_fds(there, 1, 1)
    sock = socket.socket(fileno=descriptors[0])
    sock.settimeout(None)
    os.wait()
    path = kit.FOLDER / "data"
    if not FIRST:
        take(sock, "net1", 4 * MB)
        sock.send(b"!", socket.MSG_OOB)
        count("net1", sent=1)
    else:
        path.write_bytes(bytes(2 * MB))
        with path.open("rb") as file:
            count("net1", sent=sock.sendfile(file))
            file.seek(0)
            read, write = os.pipe()
            while os.sendfile(write, file.fileno(), None, 1 << 15):
                count("net1", sent=os.splice(read, sock.fileno(), 1 << 15))
        time.sleep(0.3)
        count("net1", received=len(sock.recv(1, socket.MSG_OOB)))
    meet("done")
    plain("eth0", MB)


def flap() -> None:
    """A connection that survives the loss of its link."""
    with pair("one", "net1") as sock:
        for _ in range(30):
            flow(sock, "net1", MB // 10)
            time.sleep(0.1)
    plain("eth0", MB)


def ping() -> None:
    """ICMP, as any user may send it where net.ipv4.ping_group_range says so."""
    _own_sysctl("ping_group_range", "0 0")
    theirs = kit.exchange("hosts")["eth0"]
    number, size = 20_000, 40
    if FIRST:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
            sock.settimeout(5)
            sock.connect((theirs, 0))
            for _ in range(number):
                sock.send(b"\x08" + bytes(7 + size))
                sock.recv(1_000)
    count("eth0", sent=number * size, received=number * size)
    meet("answered")
    plain("net1", 2 * MB)


def _bind(name: str) -> Callable[[socket.socket], None]:
    """A ``setup`` that binds to an interface whatever the routes say."""

    def setup(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
        sock.setsockopt(socket.SOL_SOCKET, 5, 1)  # SO_DONTROUTE

    return setup


def swapped() -> None:
    """The bytes for the other worker take eth0, those for another host net1, and each the other one's addresses."""
    meet("begin")
    with pair("pinned", "net1", setup=_bind("eth0")) as sock:
        flow(sock, "eth0", 4 * MB)
    put("ready", None)
    with socket.socket() as sock:
        _bind("net1")(sock)
        sock.bind((kit.addresses()["eth0"], 0))
        sock.settimeout(kit.PATIENCE)
        sock.connect(("172.30.9.9", get("outsider")))
        sock.sendall(b"<" if FIRST else b">")
        if FIRST:
            sock.sendall(bytes(4 * MB))
            sock.recv(1)
        else:
            while sock.recv(1 << 16):
                pass
    meet("swapped")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    meet("the end")
    kit.write()
