"""Network commands of the example pods. Uses only the standard library.

python3 net.py show             show each interface with its MTU and addresses, like `ip addr`
python3 net.py probe HOST       send packets of net1's MTU to HOST, like `ping -c 3`
python3 net.py wait             wait until the address of net1 is usable
python3 net.py discover POD...  wait until all these pods have an address on the backend network; write
                                the address of rank 0 (the first pod) and a hosts file to /job
"""

import fcntl
import ipaddress
import json
import os
import socket
import ssl
import struct
import sys
import time
import urllib.error
import urllib.request
from typing import Any

INTERFACE = os.environ.get("INTERFACE", "net1")
JOB = os.environ.get("JOB_FOLDER", "/job")
TOKEN = os.environ.get("TOKEN_FOLDER", "/var/run/secrets/torchnet")
STATUS = "k8s.v1.cni.cncf.io/network-status"
DEADLINE = 300  # seconds
PATIENCE = 6  # seconds until a new role has reached every API server
LINK_PATIENCE = 20  # seconds until a switch forwards on a new link
TENTATIVE, DUPLICATE = 0x40, 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
MTU_DISCOVER, DO = 10, 2  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: Python has no names for them
DONT_FRAGMENT = 62  # IPV6_DONTFRAG
REPORTED: set[str] = set()
REFUSED: dict[str, float] = {}  # time of the first refusal, by pod


def interfaces() -> dict[str, int]:
    """Return the MTU of each interface of this pod, by name."""
    return {name: mtu(name) for _, name in socket.if_nameindex()}


def mtu(name: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, 0x8921, struct.pack("16sI12x", name.encode(), 0))  # SIOCGIFMTU
    return int.from_bytes(answer[16:20], sys.byteorder)


def has_carrier(name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, 0x8913, struct.pack("16sH14x", name.encode(), 0))  # SIOCGIFFLAGS
    return bool(int.from_bytes(answer[16:18], sys.byteorder) & 0x40)  # IFF_RUNNING


def ipv6() -> list[tuple[str, ipaddress.IPv6Address, int, int]]:
    """Return (interface, address, prefix length, flags) of all IPv6 addresses, from /proc/net/if_inet6."""
    try:
        with open("/proc/net/if_inet6") as table:
            rows = [line.split() for line in table]
    except FileNotFoundError:
        return []
    return [
        (row[5], ipaddress.IPv6Address(int(row[0], 16)), int(row[2], 16), int(row[4], 16)) for row in rows
    ]


def ipv4(name: str) -> ipaddress.IPv4Interface | None:
    """Return the interface's IPv4 address with its prefix length, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        form = struct.pack("256s", name.encode())
        try:  # SIOCGIFADDR, SIOCGIFNETMASK
            address, mask = (fcntl.ioctl(control, request, form)[20:24] for request in (0x8915, 0x891B))
        except OSError:
            return None
    return ipaddress.IPv4Interface((address, bin(int.from_bytes(mask, "big")).count("1")))


def show() -> None:
    for name, size in interfaces().items():
        own = [str(ipv4(name))] if ipv4(name) else []
        for interface, address, prefix, flags in sorted(ipv6(), key=lambda row: row[1].is_link_local):
            if interface == name:
                state = " tentative" * bool(flags & TENTATIVE) + " duplicate" * bool(flags & DUPLICATE)
                own.append(f"{address}/{prefix}{state}")
        print(f"{name:8} mtu {size:<6} {'  '.join(own)}".rstrip())


def probe(host: str) -> None:
    """Send three full-size datagrams to a closed port: the ICMP error confirms that each arrived."""
    family, _, _, _, target = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    if INTERFACE not in interfaces():
        sys.exit(f"{INTERFACE} is missing")
    size = min(mtu(INTERFACE), 65535)
    for number in range(1, 4):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            if family == socket.AF_INET6:
                sender.setsockopt(socket.IPPROTO_IPV6, DONT_FRAGMENT, 1)
            else:
                sender.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, DO)
            sender.settimeout(2)
            sender.connect(target)
            source = sender.getsockname()[0]
            if not is_own(source):
                sys.exit(
                    f"the route to {host} does not use {INTERFACE}: its packets have the source address {source}"
                )
            for left in (2, 1, 0):  # a kernel sends few ICMP errors a second, and any packet may be lost
                began = time.monotonic()
                try:
                    sender.send(b"x" * (size - (48 if family == socket.AF_INET6 else 28)))
                    sender.recv(1)
                    sys.exit(f"{target[0]} responds on port 9, which should be closed")
                except ConnectionRefusedError:
                    took = (time.monotonic() - began) * 1000
                    print(f"{size} bytes from {source} reached {target[0]}: seq={number} time={took:.2f} ms")
                    break
                except TimeoutError:
                    if not left:
                        sys.exit(f"no response from {target[0]} to packets of {size} bytes from {source}")
                except OSError as error:
                    sys.exit(f"cannot send a packet of {size} bytes to {target[0]}: {error}")


def is_own(address: str) -> bool:
    """Return whether net1 has ``address``."""
    if ":" in address:
        return any(name == INTERFACE and str(own) == address for name, own, _, _ in ipv6())
    own = ipv4(INTERFACE)
    return own is not None and str(own.ip) == address


def wait() -> None:
    """Wait until net1 has a usable address: IPv6 addresses first pass duplicate address detection.

    That detection does not begin before the link has a carrier.
    """
    began = time.monotonic()
    while True:
        connected = INTERFACE in interfaces() and has_carrier(INTERFACE)
        own = [(address, flags) for name, address, _, flags in ipv6() if name == INTERFACE]
        own = [(address, flags) for address, flags in own if not address.is_link_local]
        for address, flags in own:
            if flags & DUPLICATE:
                sys.exit(f"{address} on {INTERFACE} is also in use by another machine")
        usable = all(not flags & TENTATIVE for _, flags in own) and (own or ipv4(INTERFACE))
        if connected and usable:
            return
        if INTERFACE in interfaces() and not connected and time.monotonic() > began + LINK_PATIENCE:
            sys.exit(f"{INTERFACE} has no carrier: the node's network card has no link")
        if time.monotonic() > began + DEADLINE:
            missing = (
                "has no address" if INTERFACE in interfaces() else "is missing: see kubectl describe pod"
            )
            sys.exit(f"{INTERFACE} {missing}")
        time.sleep(0.1)


def ask(pod: str) -> dict[str, Any] | None:
    """Return the pod's metadata from the API server, or None if the pod does not exist (yet)."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    with open(f"{TOKEN}/token") as token, open(f"{TOKEN}/namespace") as namespace:
        path = f"https://{host}:{port}/api/v1/namespaces/{namespace.read()}/pods/{pod}"
        form = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        headers = {"Authorization": f"Bearer {token.read()}", "Accept": form}
    trusted = ssl.create_default_context(cafile=f"{TOKEN}/ca.crt")
    # Python 3.13 enforces RFC 5280 strictly, which the certificate authorities of many clusters violate.
    trusted.verify_flags &= ~ssl.VERIFY_X509_STRICT
    request = urllib.request.Request(path, headers=headers)
    try:
        with urllib.request.urlopen(request, context=trusted, timeout=10) as answer:
            metadata: dict[str, Any] = json.load(answer)["metadata"]
        REFUSED.pop(pod, None)
        return metadata
    except urllib.error.HTTPError as error:
        now = time.monotonic()
        if error.code in (401, 403) and now - REFUSED.setdefault(pod, now) >= PATIENCE:
            sys.exit(f"the API server denies access to the pod {pod}: {error}")
        return None
    except OSError as error:
        if str(error) not in REPORTED:  # once, not each second
            print(f"cannot reach the API server: {error}", flush=True)
            REPORTED.add(str(error))
        return None


def address_of(metadata: dict[str, Any]) -> str | None:
    """Return the pod's address on the backend network according to network-status, or None."""
    for entry in json.loads(metadata.get("annotations", {}).get(STATUS, "[]")):
        # By attachment and interface: the order of the entries is undefined.
        if (entry.get("name"), entry.get("interface")) == (os.environ["NETWORK"], INTERFACE):
            return next(iter(entry.get("ips", [])), None)
    return None


def discover(*pods: str) -> None:
    until = time.monotonic() + DEADLINE
    found: dict[str, str] = {}
    while missing := [pod for pod in pods if pod not in found]:
        for pod in missing:
            address = address_of(ask(pod) or {})
            if address:
                found[pod] = address
                print(f"{pod} has {address}", flush=True)
        if time.monotonic() > until:
            sys.exit(f"no address on {os.environ['NETWORK']} after {DEADLINE} s: {', '.join(missing)}")
        if len(found) < len(pods):
            time.sleep(1)
    if len(set(found.values())) < len(found):
        sys.exit(f"two pods have the same address: {found}")
    wait()
    own = found[socket.gethostname()]
    if not is_own(own):
        sys.exit(f"network-status has {own}, but {INTERFACE} does not")
    with open("/etc/hosts") as hosts:
        lines = hosts.read()
    # PyTorch's store resolves the address of each client to a name.
    lines += "".join(f"{address}\t{pod}-{INTERFACE}\n" for pod, address in found.items())
    for name, text in (("hosts", lines), ("master", found[pods[0]])):
        with open(f"{JOB}/{name}", "w") as file:
            file.write(text)


if __name__ == "__main__":
    command, rest = sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2:]
    if command == "show" and not rest:
        show()
    elif command == "wait" and not rest:
        wait()
    elif command == "probe" and len(rest) == 1:
        probe(rest[0])
    elif command == "discover" and rest:
        discover(*rest)
    else:
        sys.exit(__doc__)
