"""Script of the test pods of torchnet verify. Uses the standard library, and net.py and tcp.py in the same directory.

python3 probe.py RUN POD PORT RAIL...   for example: probe.py verify-1a2b3c verify-1a2b3c-0 29499 net1 net2

Prints the kernel's state of the rails as a line of JSON once all of them are usable, or if one does not become usable.
Then it serves on each rail: UDP on PORT echoes datagrams without fragmenting them; TCP on PORT measures the bandwidth.

If the file PLAN has a plan, the pod follows it, prints its results as a second line, and ends. Without a plan, it
serves until it is deleted. Each line is also the pod's termination message, if it is short enough for one.
"""

import json
import os
import socket
import statistics
import sys
import threading
import time
from typing import Any

import net  # type: ignore[import-not-found, unused-ignore]
import tcp  # type: ignore[import-not-found, unused-ignore]

RUN, POD, PORT, RAILS = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
PLAN = os.environ.get("PLAN", "/plan/plan")
TERMINATION = os.environ.get("TERMINATION", "/dev/termination-log")
MESSAGE = 4096  # bytes of a termination message
PATIENCE = 20  # seconds for a response, including neighbor discovery
HEADERS: dict[int, int] = {socket.AF_INET: 28, socket.AF_INET6: 48}  # IP and UDP
WARM, SECONDS, STREAMS = 0.3, 1.0, 4  # of a measurement, for each direction
DONE = f"done {RUN} ".encode()
# A pod measures with one partner at a time. No pods wait for each other in a circle, because the pod with the lower
# number is always the one that asks.
BUSY = threading.Lock()
SERVED: set[str] = set()


def own(rail: str) -> list[str]:
    """Return the addresses of the rail except link-local ones."""
    found = [str(address) for name, address, _, _ in net.ipv6() if name == rail and not address.is_link_local]
    legacy = net.ipv4(rail)
    return found + ([str(legacy.ip)] if legacy else [])


def report(**more: object) -> None:
    """Print the state of the rails and ``more``, and write it as the termination message."""
    existing = net.interfaces()
    rails = {rail: {"addresses": own(rail), "mtu": existing[rail]} for rail in RAILS if rail in existing}
    text = json.dumps({"interfaces": sorted(existing), "rails": rails, **more})
    print(text, flush=True)
    if len(text) <= MESSAGE:
        with open(TERMINATION, "w") as file:
            file.write(text)


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def unfragmented(address: str) -> socket.socket:
    """Return a datagram socket that does not fragment packets."""
    result = socket.socket(family(address), socket.SOCK_DGRAM)
    if family(address) == socket.AF_INET6:
        result.setsockopt(socket.IPPROTO_IPV6, net.DONT_FRAGMENT, 1)
    else:
        result.setsockopt(socket.IPPROTO_IP, net.MTU_DISCOVER, net.DO)
    return result


def echo(server: socket.socket) -> None:
    while True:
        data, peer = server.recvfrom(65535)
        if data.startswith(DONE):
            SERVED.add(data[len(DONE) :].decode(errors="replace"))
            continue
        try:
            server.sendto(data, peer)
        except OSError as error:
            print(f"cannot send {len(data)} bytes back to {peer[0]}: {error}", flush=True)


def put(connection: socket.socket, **fields: object) -> None:
    connection.sendall(json.dumps(fields).encode() + b"\n")


def take(connection: socket.socket) -> dict[str, Any]:
    """Read one line of JSON, byte by byte: what follows it belongs to nobody else, but must not be waited for."""
    data = b""
    while not data.endswith(b"\n") and len(data) < 1000:
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("the partner closed the connection")
        data += byte
    value: dict[str, Any] = json.loads(data)
    return value


def answer(connection: socket.socket, address: str, peer: str) -> None:
    """The serving end of a measurement: receives first, then sends."""
    with connection:
        connection.settimeout(PATIENCE)
        try:
            if take(connection).get("run") != RUN:
                return
            with BUSY:
                receiver = tcp.Receiver(address, STREAMS)
                put(connection, port=receiver.port)
                put(connection, rate=statistics.median(receiver.measure(peer, WARM, SECONDS).rates))
                tcp.send(address, peer, int(take(connection)["port"]), STREAMS, WARM)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            print(f"a measurement with {peer} ended early: {error}", flush=True)


def accept(server: socket.socket, address: str) -> None:
    while True:
        connection, peer = server.accept()
        threading.Thread(target=answer, args=(connection, address, peer[0]), daemon=True).start()


def serve() -> None:
    """Serve on each rail, in threads."""
    for rail in RAILS:
        address = own(rail)[0]
        datagrams = unfragmented(address)
        datagrams.bind((address, PORT))
        streams = socket.create_server((address, PORT), family=family(address), backlog=64)
        threading.Thread(target=echo, args=(datagrams,), daemon=True).start()
        threading.Thread(target=accept, args=(streams, address), daemon=True).start()


def reach(rail: str, target: str) -> dict[str, object]:
    """Send datagrams of the rail's MTU to ``target`` until one comes back."""
    whole = min(net.mtu(rail), 65535)
    size = whole - HEADERS[family(target)]
    problem, reached, source = f"no response to packets of {whole} bytes", False, ""
    until = time.monotonic() + PATIENCE
    with unfragmented(target) as client:
        client.settimeout(1)
        while not reached and time.monotonic() < until:
            try:
                client.connect((target, PORT))
                source = client.getsockname()[0]
                if source not in own(rail):
                    problem = f"packets have the source address {source}, which is not on {rail}"
                    break
                client.send(b"x" * size)
                reached = len(client.recv(65535)) == size
            except TimeoutError:
                pass
            except OSError as error:
                problem = f"a packet of {whole} bytes: {error}"
                time.sleep(0.5)
    return {"reached": reached, "source": source, "size": whole, "problem": "" if reached else problem}


def measure(source: str, target: str, limit: float) -> dict[str, object]:
    """Measure TCP to ``target`` and back, in bytes per second."""
    try:
        with socket.create_connection((target, PORT), PATIENCE, source_address=(source, 0)) as connection:
            connection.settimeout(limit)  # the partner may be measuring with another pod
            put(connection, run=RUN)
            tcp.send(source, target, int(take(connection)["port"]), STREAMS, WARM)
            there = float(take(connection)["rate"])
            receiver = tcp.Receiver(source, STREAMS)
            put(connection, port=receiver.port)
            back = statistics.median(receiver.measure(target, WARM, SECONDS).rates)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {"bandwidth_problem": f"{type(error).__name__}: {error}"}
    return {"there": there, "back": back}


def finish(target: str) -> None:
    """Tell the partner that this pod needs it no longer."""
    with unfragmented(target) as client:
        for _ in range(3):
            try:
                client.sendto(DONE + POD.encode(), (target, PORT))
            except OSError:
                return
            time.sleep(0.05)


def ask(partner: str, addresses: dict[str, str], limit: float) -> list[dict[str, object]]:
    """Test the path to a partner on each rail, one after the other.

    Args:
        limit: Seconds to wait until the partner is ready to measure the bandwidth; 0 to measure none.
    """
    results = []
    with BUSY:
        for rail, target in addresses.items():
            one = reach(rail, target)
            if one["reached"] and limit:
                one |= measure(str(one["source"]), target, limit)
            results.append({"partner": partner, "rail": rail, **one})
    for target in addresses.values():
        finish(target)
    return results


def follow(plan: dict[str, Any]) -> list[dict[str, object]]:
    """Go through the steps of the plan in order. A step in which the partner asks is over once it has finished."""
    results: list[dict[str, object]] = []
    until = time.monotonic() + plan["skew_s"]
    for step in plan["steps"]:
        until += plan["step_s"]
        if "addresses" in step:
            limit = plan["skew_s"] + plan["step_s"] if plan["bandwidth"] else 0
            results += ask(step["partner"], step["addresses"], limit)
            continue
        while step["partner"] not in SERVED and time.monotonic() < until:
            time.sleep(0.1)
    return results


def read_plan() -> dict[str, Any]:
    """Wait for the plan, which the kubelet writes into a file when the pod gets the annotation."""
    while True:
        try:
            with open(PLAN) as file:
                text = file.read()
        except FileNotFoundError:
            text = ""
        if text.strip():
            plan: dict[str, Any] = json.loads(text)
            return plan
        time.sleep(0.2)


def main() -> None:
    for rail in RAILS:
        net.INTERFACE = rail
        try:
            net.wait()
        except SystemExit as blocked:
            if rail in net.interfaces():
                report(blocked=str(blocked))
            raise
    serve()
    report()
    report(results=follow(read_plan()))


if __name__ == "__main__":
    main()
