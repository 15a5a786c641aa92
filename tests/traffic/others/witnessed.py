"""The script of the jobs under ``torchnet receipt``, whose hosts are namespaces in which it may change everything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

from tests.traffic.others import kit
from tests.traffic.others.kit import FIRST, MB, RANK, count, flow, ip, meet, pair, plain


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

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()
    plain("net1", 2 * MB)


def leader_gone() -> None:
    """The first thread of a process has ended, the others go on."""

    def rest() -> None:
        time.sleep(0.2)
        _slow("eth0")
        kit.write()
        os._exit(0)

    pid = os.fork()
    if pid == 0:
        threading.Thread(target=rest).start()
        kit.libc.syscall(60, 0)  # exit of this thread alone
    os.waitpid(pid, 0)
    plain("net1", 2 * MB)


def _over(link: str, way: str) -> None:
    """2 MB over an interface that the script makes and removes, on top of ``way``."""
    ip(f"link add {link}")
    name = "made0"
    ip(f"address add 10.77.0.{1 + RANK}/24 dev {name}")
    ip(f"link set {name} up")
    meet("made")
    with pair("inner", way, at="10.77.0.2") as sock:
        flow(sock, way, 2 * MB)
    meet("used")
    ip(f"link delete {name}")
    plain("eth0" if way == "net1" else "net1", 2 * MB)


def macvlan_net1() -> None:
    _over("link net1 name made0 type macvlan mode bridge", "net1")


def macvlan_eth0() -> None:
    _over("link eth0 name made0 type macvlan mode bridge", "eth0")


def vxlan_eth0() -> None:
    _over(f"made0 type vxlan id 7 dev eth0 remote {kit.exchange('ends')['eth0']} dstport 4789", "eth0")


def vxlan_net1() -> None:
    own, remote = kit.addresses()["net1"], kit.exchange("ends")["net1"]
    _over(f"made0 type vxlan id 7 dev net1 local {own} remote {remote} dstport 4789", "net1")


def temporary() -> None:
    """Addresses of eth0 that exist only during one connection."""
    ip(f"address add 10.77.0.{1 + RANK}/24 dev eth0")
    meet("added")
    with pair("inner", "eth0", at="10.77.0.2") as sock:
        flow(sock, "eth0", 2 * MB)
    meet("used")
    ip(f"address delete 10.77.0.{1 + RANK}/24 dev eth0")
    plain("net1", 2 * MB)


def moved() -> None:
    """An address moves from eth0 to net1 while a connection uses it."""
    ip(f"address add 10.77.0.{1 + RANK}/24 dev eth0")
    meet("added")
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
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as sock:
        sock.bind(("eth0", 0x88B5))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        meet("bound")
        if FIRST:
            for index in range(2_000):
                sent = sock.send(b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(1_000))
                count("eth0", sent=sent - 14)
                if index % 50 == 0:
                    time.sleep(0.002)
            kit.put("sent", None)
        else:
            kit.receive(sock, "eth0", "sent", header=14)


def taken() -> None:
    """The script moves eth0 into a network namespace of its own, as for a container, and uses it there."""
    plain("net1", 2 * MB)
    time.sleep(0.5)
    away = os.open("/proc/self/ns/net", os.O_RDONLY)
    mine = kit.addresses()["eth0"]
    kit.exchange("hosts")
    kit.libc.unshare(0x40000000)  # CLONE_NEWNET
    words = f"nsenter --net=/proc/{os.getpid()}/fd/{away} ip link set eth0 netns {os.getpid()}"
    subprocess.run(words.split(), check=True)
    ip(f"address add {mine}/16 dev eth0")
    ip("link set eth0 up")
    meet("taken")
    with pair("inner", "eth0") as sock:
        flow(sock, "eth0", 4 * MB)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    meet("the end")
    kit.write()
