"""The script of the other jobs: one function for each, which the first argument names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.traffic.others import kit
from tests.traffic.others.kit import FIRST, MB, RANK, count, flow, get, ip, meet, pair, plain, put


def tiny() -> None:
    """UDP over eth0 whose datagrams are smaller than the headers that TCP would have more."""
    plain("net1", MB // 10)
    kit.datagrams("eth0", 60_000, bytes(12))


def mptcp() -> None:
    plain("eth0", 2 * MB, protocol=262)
    plain("net1", 2 * MB, protocol=262)
    plain("net1", 2 * MB)


def store() -> None:
    """Large values through a store, which is also what keeps a gradient of a small model."""
    from torch.distributed import TCPStore

    size, own = 100_000, kit.addresses()["net1"]
    put("host", own) if FIRST else None
    server = TCPStore(get("host"), 29_511, 2, FIRST)
    for index in range(40):
        server.get(f"value{index}") if FIRST else server.set(f"value{index}", "x" * size)
    # Only rank 1's connection is over a network.
    count("net1", sent=(not FIRST) * 40 * size, received=FIRST * 40 * size)
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
        time.sleep(0.3 if FIRST else 10)
        sys.exit(3)


def flap() -> None:
    """A connection that survives the loss of its link."""
    with pair("one", "net1") as sock:
        for _ in range(30):
            flow(sock, "net1", MB // 10)
            time.sleep(0.1)
    plain("eth0", MB)


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


def _slow(way: str) -> None:
    with pair("slow", way) as sock:
        for _ in range(10):
            flow(sock, way, MB // 5)
            time.sleep(0.15)


def thread_files() -> None:
    """A thread with a table of files of its own opens the connection."""

    def alone() -> None:
        kit.libc.unshare(0x400)  # CLONE_FILES
        _slow("eth0")

    (thread := threading.Thread(target=alone)).start()
    thread.join()
    plain("net1", 2 * MB)


def leader_gone() -> None:
    """The first thread of a process has ended, the others go on."""

    def rest() -> None:
        time.sleep(0.2)
        _slow("eth0")
        kit.write()
        os._exit(0)

    if not os.fork():
        threading.Thread(target=rest).start()
        kit.libc.syscall(60, 0)  # exit of this thread alone
    os.wait()
    plain("net1", 2 * MB)


def _over(link: str, way: str) -> None:
    """2 MB over an interface that the script makes and removes, on top of ``way``."""
    ip(f"link add {link}")
    ip(f"address add 10.77.0.{1 + RANK}/24 dev made0")
    ip("link set made0 up")
    plain(way, 2 * MB, at="10.77.0.2")
    ip("link delete made0")
    plain("eth0" if way == "net1" else "net1", 2 * MB)


def macvlan_net1() -> None:
    _over("link net1 name made0 type macvlan mode bridge", "net1")


def macvlan_eth0() -> None:
    _over("link eth0 name made0 type macvlan mode bridge", "eth0")


def vxlan_eth0() -> None:
    _over(f"made0 type vxlan id 7 dev eth0 remote {kit.exchange('ends')['eth0']} dstport 4789", "eth0")


def vxlan_net1() -> None:
    ends = f"local {kit.addresses()['net1']} remote {kit.exchange('ends')['net1']}"
    _over(f"made0 type vxlan id 7 dev net1 {ends} dstport 4789", "net1")


def temporary() -> None:
    """Addresses of eth0 that exist only during one connection."""
    ip(f"address add 10.77.0.{1 + RANK}/24 dev eth0")
    plain("eth0", 2 * MB, at="10.77.0.2")
    ip(f"address delete 10.77.0.{1 + RANK}/24 dev eth0")
    plain("net1", 2 * MB)


def moved() -> None:
    """An address moves from eth0 to net1 while a connection uses it."""
    ip(f"address add 10.77.0.{1 + RANK}/24 dev eth0")
    with pair("inner", "eth0", at="10.77.0.2") as sock:
        flow(sock, "eth0", 3 * MB)
        meet("half")
        ip(f"address delete 10.77.0.{1 + RANK}/24 dev eth0")
        ip(f"address add 10.77.0.{1 + RANK}/24 dev net1")
        meet("moved")
        flow(sock, "net1", 2 * MB)


def packets() -> None:
    """Frames of a protocol of the script's own, over eth0."""
    plain("net1", 2 * MB)
    frame = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(1_000)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0x88B5))
        meet("bound")
        if FIRST:
            for _ in range(2_000):
                count("eth0", sent=sock.send(frame) - 14)
                time.sleep(0.0001)
            put("sent", None)
        else:
            kit.receive(sock, "eth0", "sent", header=14)


def taken() -> None:
    """The script moves eth0 into a network namespace of its own, as for a container, and uses it there."""
    plain("net1", 2 * MB)
    away, mine = os.open("/proc/self/ns/net", os.O_RDONLY), kit.addresses()["eth0"]
    meet("known")
    kit.libc.unshare(0x40000000)  # CLONE_NEWNET
    words = f"nsenter --net=/proc/{os.getpid()}/fd/{away} ip link set eth0 netns {os.getpid()}"
    subprocess.run(words.split(), check=True)
    ip(f"address add {mine}/16 dev eth0")
    ip("link set eth0 up")
    plain("eth0", 4 * MB)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    meet("the end")
    kit.write()
