"""What the example's pods do about their networks, with the standard library alone.

python3 net.py show             each interface with its MTU and addresses, as `ip addr` would
python3 net.py probe HOST       reach HOST with packets of net1's full size, as `ping -c 3` would
python3 net.py wait             until net1's address can be used
python3 net.py discover POD...  until all these pods have their address on the backend network; writes
                                rank 0's address (the first pod's) and a hosts file to /job
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
PATIENCE = 6  # seconds: a role that came just before the pods is not known everywhere at once
TENTATIVE, DUPLICATE = 0x40, 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED
MTU_DISCOVER, DO = 10, 2  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: Python has no names for them
DONT_FRAGMENT = 62  # IPV6_DONTFRAG
COMPLAINTS: set[str] = set()
REFUSED: dict[str, float] = {}  # since when, by pod


def interfaces() -> dict[str, int]:
    """Name -> MTU, of this pod."""
    return {name: mtu(name) for _, name in socket.if_nameindex()}


def mtu(name: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, 0x8921, struct.pack("16sI12x", name.encode(), 0))  # SIOCGIFMTU
    return int.from_bytes(answer[16:20], sys.byteorder)


def ipv6() -> list[tuple[str, ipaddress.IPv6Address, int, int]]:
    """(interface, address, prefix length, flags) of all IPv6 addresses, from /proc/net/if_inet6."""
    try:
        with open("/proc/net/if_inet6") as table:
            rows = [line.split() for line in table]
    except FileNotFoundError:
        return []
    return [
        (row[5], ipaddress.IPv6Address(int(row[0], 16)), int(row[2], 16), int(row[4], 16)) for row in rows
    ]


def ipv4(name: str) -> ipaddress.IPv4Interface | None:
    """The interface's IPv4 address with its prefix length, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        form = struct.pack("256s", name.encode())
        try:  # SIOCGIFADDR, SIOCGIFNETMASK
            address, mask = (fcntl.ioctl(asking, request, form)[20:24] for request in (0x8915, 0x891B))
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
    """Three datagrams of full size to a port that is closed there: the refusal says that they arrived."""
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
                sys.exit(f"{host} is not reached over {INTERFACE}: packets to it leave from {source}")
            began = time.monotonic()
            try:
                sender.send(b"x" * (size - (48 if family == socket.AF_INET6 else 28)))
                sender.recv(1)
                sys.exit(f"{target[0]} answers on port 9, which should be closed")
            except ConnectionRefusedError:
                took = (time.monotonic() - began) * 1000
                print(f"{size} bytes from {source} reached {target[0]}: seq={number} time={took:.2f} ms")
            except TimeoutError:
                sys.exit(f"no answer from {target[0]} to a packet of {size} bytes from {source}")
            except OSError as error:
                sys.exit(f"a packet of {size} bytes cannot be sent to {target[0]}: {error}")


def is_own(address: str) -> bool:
    """Whether ``address`` is one of net1's."""
    if ":" in address:
        return any(name == INTERFACE and str(own) == address for name, own, _, _ in ipv6())
    own = ipv4(INTERFACE)
    return own is not None and str(own.ip) == address


def wait() -> None:
    """Until net1 has an address that can be used: the kernel first looks for duplicates of an IPv6 one."""
    until = time.monotonic() + DEADLINE
    while True:
        own = [(address, flags) for name, address, _, flags in ipv6() if name == INTERFACE]
        own = [(address, flags) for address, flags in own if not address.is_link_local]
        for address, flags in own:
            if flags & DUPLICATE:
                sys.exit(f"{address} on {INTERFACE} is in use by somebody else, too")
        if all(not flags & TENTATIVE for _, flags in own) and (own or ipv4(INTERFACE)):
            return
        if time.monotonic() > until:
            missing = (
                "has no address" if INTERFACE in interfaces() else "is missing: kubectl describe pod says why"
            )
            sys.exit(f"{INTERFACE} {missing}")
        time.sleep(0.1)


def ask(pod: str) -> dict[str, Any] | None:
    """The pod's metadata from the API server, or None where there is no such pod (yet)."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    with open(f"{TOKEN}/token") as token, open(f"{TOKEN}/namespace") as namespace:
        path = f"https://{host}:{port}/api/v1/namespaces/{namespace.read()}/pods/{pod}"
        form = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        headers = {"Authorization": f"Bearer {token.read()}", "Accept": form}
    trusted = ssl.create_default_context(cafile=f"{TOKEN}/ca.crt")
    # As kubectl does: Python 3.13 by itself refuses authorities without extensions that clusters' often lack.
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
            sys.exit(f"the API server refuses to show the pod {pod}: {error}")
        return None
    except OSError as error:
        if str(error) not in COMPLAINTS:  # once, not each second
            print(f"the API server cannot be asked: {error}", flush=True)
            COMPLAINTS.add(str(error))
        return None


def address_of(metadata: dict[str, Any]) -> str | None:
    """The pod's address on the backend network as network-status tells it, or None where it says nothing."""
    for entry in json.loads(metadata.get("annotations", {}).get(STATUS, "[]")):
        # By attachment and interface: the order of the entries says nothing.
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
        sys.exit(f"two pods have one address: {found}")
    wait()
    own = found[socket.gethostname()]
    if not is_own(own):
        sys.exit(f"network-status says {own}, and {INTERFACE} does not have it")
    with open("/etc/hosts") as hosts:
        lines = hosts.read()
    # Their names, and the way back: PyTorch's store looks up the name of each address that connects.
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
