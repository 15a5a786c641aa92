"""The script of the jobs under ``torchnet launch``: one function for each; the first argument names it."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from tests.traffic.others import kit
from tests.traffic.others.kit import FIRST, MB, count, flow, get, meet, pair, plain, put


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


def flap() -> None:
    """A connection that survives the loss of its link."""
    with pair("one", "net1") as sock:
        for _ in range(30):
            flow(sock, "net1", MB // 10)
            time.sleep(0.1)
    plain("eth0", MB)


def gso() -> None:
    """UDP that the kernel cuts into datagrams."""
    plain("net1", MB)
    kit.datagrams("eth0", 100, bytes(40_000), gso=1_000)


def udplite() -> None:
    plain("net1", MB)
    kit.datagrams("eth0", 2_000, bytes(1_000), protocol=136)


def chatty() -> None:
    """More headers than payload, on both networks."""
    for way, rounds in (("eth0", 3_000), ("net1", 30_000)):
        with pair(f"chat-{way}", way) as sock:
            for _ in range(rounds):
                sock.send(bytes(10)) if FIRST else sock.recv(10)
                sock.recv(10) if FIRST else sock.send(bytes(10))
            count(way, sent=10 * rounds, received=10 * rounds)


def _ping(way: str, family: int, protocol: int, request: bytes) -> None:
    """ICMP, as any user may send it where net.ipv4.ping_group_range says so."""
    if kit.addresses()["eth0"].startswith("172.30."):  # the local network's own namespace
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 0")
    target = kit.exchange("ping")[way]
    if FIRST:
        with socket.socket(family, socket.SOCK_DGRAM, protocol) as sock:
            sock.settimeout(5)
            sock.connect((target, 0))
            for _ in range(20_000):
                sock.send(request + bytes(47))
                sock.recv(1_000)
    count(way, sent=800_000, received=800_000)  # without the header of ICMP
    meet("answered")
    plain("eth0" if way == "net1" else "net1", 2 * MB)


def ping_eth0() -> None:
    _ping("eth0", socket.AF_INET, socket.IPPROTO_ICMP, b"\x08")


def ping_net1() -> None:
    _ping("net1", socket.AF_INET6, socket.IPPROTO_ICMPV6, b"\x80")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    meet("the end")
    kit.write()
