"""What torchnet verify's two test pods run, with the standard library and net.py, which lies beside it.

python3 echo.py serve PORT         answers each datagram with the same, never in fragments
python3 echo.py ask PORT ADDRESS   sends ADDRESS datagrams of net1's full size until one comes back, and ends

Both print what the kernel says of net1 as a line of JSON; the second leaves its result as the termination message.
"""

import json
import socket
import sys
import time

import net  # type: ignore[import-not-found, unused-ignore]

PATIENCE = 20  # seconds until an answer has to come: neighbours are looked for first
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}  # IP and UDP


def own() -> list[str]:
    """net1's addresses, without link-local ones."""
    found = [
        str(address)
        for name, address, _, _ in net.ipv6()
        if name == net.INTERFACE and not address.is_link_local
    ]
    legacy = net.ipv4(net.INTERFACE)
    return found + ([str(legacy.ip)] if legacy else [])


def whole(family: int) -> socket.socket:
    """A datagram socket whose packets are never cut."""
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, net.DONT_FRAGMENT, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, net.MTU_DISCOVER, net.DO)
    return made


def report(**more: object) -> str:
    text = json.dumps(
        {"interfaces": sorted(net.interfaces()), "addresses": own(), "mtu": net.mtu(net.INTERFACE), **more}
    )
    print(text, flush=True)
    return text


def serve(port: int) -> None:
    address = own()[0]
    with whole(socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        server.bind((address, port))
        report()
        while True:
            data, peer = server.recvfrom(65535)
            try:
                server.sendto(data, peer)
            except OSError as error:
                print(f"{len(data)} bytes cannot be sent back to {peer[0]}: {error}", flush=True)


def ask(port: int, target: str) -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    size = min(net.mtu(net.INTERFACE), 65535) - HEADERS[family]
    problem, reached, source = f"no answer to packets of {size + HEADERS[family]} bytes", False, ""
    until = time.monotonic() + PATIENCE
    with whole(family) as asking:
        asking.settimeout(1)
        while not reached and time.monotonic() < until:
            try:
                asking.connect((target, port))
                source = asking.getsockname()[0]
                if source not in own():
                    problem = f"packets leave from {source}, which is not {net.INTERFACE}'s"
                    break
                asking.send(b"x" * size)
                reached = len(asking.recv(65535)) == size
            except TimeoutError:
                pass
            except OSError as error:
                problem = f"a packet of {size + HEADERS[family]} bytes: {error}"
                time.sleep(0.5)
    text = report(
        reached=reached, source=source, size=size + HEADERS[family], problem="" if reached else problem
    )
    with open("/dev/termination-log", "w") as file:
        file.write(text)


if __name__ == "__main__":
    net.wait()
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        ask(int(sys.argv[2]), sys.argv[3])
