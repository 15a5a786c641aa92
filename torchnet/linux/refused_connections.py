"""Connections to 127.0.0.0/8 that were refused in this network namespace.

Neither the kernel's counters nor most error messages name the port, so a packet socket takes the RST segments that
answer a SYN.

Source:
    packet(7), socket(7), RFC 9293 section 3.5.2 (such a segment has the sequence number 0), linux/filter.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_LENGTH = 64  # bytes of a packet that are kept: its headers
# IPv4 from 127.0.0.0/8, TCP, RST: (code, jump if true, jump if false, operand).
_FILTER = (
    (0x30, 0, 0, 9),  # load the protocol
    (0x15, 0, 6, 6),  # TCP
    (0x30, 0, 0, 12),  # load the first byte of the source address
    (0x15, 0, 4, 127),
    (0xB1, 0, 0, 0),  # X = length of the IP header
    (0x50, 0, 0, 13),  # load the flags
    (0x45, 0, 1, 0x04),  # RST
    (0x06, 0, 0, _LENGTH),
    (0x06, 0, 0, 0),
)

_sockets: list[socket.socket] = []


def watch() -> None:
    """Begin to watch; needs CAP_NET_RAW, which `ports` does not. Without packet sockets, `ports` returns none."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FILTER))
        program = struct.pack("HP", len(_FILTER), ctypes.addressof(code))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        sock.bind(("lo", _ETH_P_IP))
    except OSError:
        return
    _sockets.append(sock)


def ports() -> list[int]:
    """Return the ports to which connections were refused since the last call, each once."""
    found: dict[int, None] = {}
    for sock in _sockets:
        while True:
            try:
                packet = sock.recv(_LENGTH)
            except OSError:
                break
            start = (packet[0] & 15) * 4
            port, _, sequence = struct.unpack_from("!HHI", packet, start)
            if sequence == 0:
                found[port] = None
    return list(found)


def listens(port: int) -> bool:
    """Return whether something in this network namespace accepts connections to 127.0.0.1:``port``."""
    for name, addresses in (
        ("tcp", {"00000000", "0100007F"}),
        ("tcp6", {"0" * 32, "0000000000000000FFFF00000100007F"}),
    ):
        try:
            with open(f"/proc/self/net/{name}") as file:
                lines = [line.split() for line in file]
        except OSError:
            continue
        for words in lines[1:]:
            address, _, number = words[1].partition(":")
            if words[3] == "0A" and int(number, 16) == port and address in addresses:
                return True
    return False
