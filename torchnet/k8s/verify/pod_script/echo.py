"""Script of the two test pods of torchnet verify. Uses the standard library and net.py in the same directory.

python3 echo.py serve PORT         echo each datagram, without fragmentation
python3 echo.py ask PORT ADDRESS   send datagrams of net1's MTU to ADDRESS until one is echoed, then exit

Both print the kernel's state of net1 as a line of JSON, which is also their termination message: when they serve, when
they have a result, or when net1 does not become usable.
"""

import json
import socket
import sys
import time

import net  # type: ignore[import-not-found, unused-ignore]

PATIENCE = 20  # seconds for a response, including neighbor discovery
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}  # IP and UDP


def own() -> list[str]:
    """Return the addresses of net1 except link-local ones."""
    found = [
        str(address)
        for name, address, _, _ in net.ipv6()
        if name == net.INTERFACE and not address.is_link_local
    ]
    legacy = net.ipv4(net.INTERFACE)
    return found + ([str(legacy.ip)] if legacy else [])


def unfragmented(family: int) -> socket.socket:
    """Return a datagram socket that does not fragment packets."""
    result = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        result.setsockopt(socket.IPPROTO_IPV6, net.DONT_FRAGMENT, 1)
    else:
        result.setsockopt(socket.IPPROTO_IP, net.MTU_DISCOVER, net.DO)
    return result


def report(**more: object) -> None:
    """Print the state of net1 and ``more``, and write it as the termination message."""
    text = json.dumps(
        {"interfaces": sorted(net.interfaces()), "addresses": own(), "mtu": net.mtu(net.INTERFACE), **more}
    )
    print(text, flush=True)
    with open("/dev/termination-log", "w") as file:
        file.write(text)


def serve(port: int) -> None:
    address = own()[0]
    with unfragmented(socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        server.bind((address, port))
        report()
        while True:
            data, peer = server.recvfrom(65535)
            try:
                server.sendto(data, peer)
            except OSError as error:
                print(f"cannot send {len(data)} bytes back to {peer[0]}: {error}", flush=True)


def ask(port: int, target: str) -> None:
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    size = min(net.mtu(net.INTERFACE), 65535) - HEADERS[family]
    problem, reached, source = f"no response to packets of {size + HEADERS[family]} bytes", False, ""
    until = time.monotonic() + PATIENCE
    with unfragmented(family) as client:
        client.settimeout(1)
        while not reached and time.monotonic() < until:
            try:
                client.connect((target, port))
                source = client.getsockname()[0]
                if source not in own():
                    problem = f"packets have the source address {source}, which is not on {net.INTERFACE}"
                    break
                client.send(b"x" * size)
                reached = len(client.recv(65535)) == size
            except TimeoutError:
                pass
            except OSError as error:
                problem = f"a packet of {size + HEADERS[family]} bytes: {error}"
                time.sleep(0.5)
    report(reached=reached, source=source, size=size + HEADERS[family], problem="" if reached else problem)


if __name__ == "__main__":
    try:
        net.wait()
    except SystemExit as blocked:
        if net.INTERFACE in net.interfaces():
            report(blocked=str(blocked))
        raise
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        ask(int(sys.argv[2]), sys.argv[3])
