"""Connections to 127.0.0.0/8 and ::1 that were refused in this network namespace.

Neither the kernel's counters nor most error messages name the port, so a packet socket takes the RST segments that
answer a SYN.

Source:
    packet(7), socket(7), RFC 9293 section 3.5.2 (such a segment has the sequence number 0), RFC 8200 section 3,
    linux/filter.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct

_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_SO_ATTACH_FILTER = 26
_LENGTH = 64  # bytes of a packet that are kept: its headers
# From 127.0.0.0/8, TCP, RST: (code, jump if true, jump if false, operand).
_FILTER_4 = (
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
# From ::1.
_FILTER_6 = (
    (0x30, 0, 0, 6),  # load the next header
    (0x15, 0, 11, 6),  # TCP
    (0x20, 0, 0, 8),  # load the source address in four parts
    (0x15, 0, 9, 0),
    (0x20, 0, 0, 12),
    (0x15, 0, 7, 0),
    (0x20, 0, 0, 16),
    (0x15, 0, 5, 0),
    (0x20, 0, 0, 20),
    (0x15, 0, 3, 1),
    (0x30, 0, 0, 53),  # load the flags
    (0x45, 0, 1, 0x04),  # RST
    (0x06, 0, 0, _LENGTH),
    (0x06, 0, 0, 0),
)
_HEADER_6 = 40  # bytes

_sockets: list[socket.socket] = []


def watch() -> None:
    """Begin to watch; needs CAP_NET_RAW, which `addresses` does not; without packet sockets, that returns none."""
    for protocol, lines in ((_ETH_P_IP, _FILTER_4), (_ETH_P_IPV6, _FILTER_6)):
        try:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
            code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
            program = struct.pack("HP", len(lines), ctypes.addressof(code))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            sock.bind(("lo", protocol))
        except OSError:
            continue
        _sockets.append(sock)


def addresses() -> list[str]:
    """Return where connections were refused since the last call, as 127.0.0.1:PORT or [::1]:PORT, each once."""
    found: dict[str, None] = {}
    for sock in _sockets:
        while True:
            try:
                packet = sock.recv(_LENGTH)
            except OSError:
                break
            is_four = packet[0] >> 4 == 4
            start = (packet[0] & 15) * 4 if is_four else _HEADER_6
            port, _, sequence = struct.unpack_from("!HHI", packet, start)
            if sequence == 0:
                found[f"{'127.0.0.1' if is_four else '[::1]'}:{port}"] = None
    return list(found)


def listens(where: str) -> bool:
    """Return whether something in this network namespace accepts connections to an address of :func:`addresses`."""
    host, _, port = where.rpartition(":")
    own = {
        "127.0.0.1": {"00000000", "0100007F", "0" * 32, "0000000000000000FFFF00000100007F"},
        "[::1]": {"0" * 32, "00000000000000000000000001000000"},
    }[host]
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/self/net/{name}") as file:
                lines = [line.split() for line in file]
        except OSError:
            continue
        for words in lines[1:]:
            address, _, number = words[1].partition(":")
            if words[3] == "0A" and int(number, 16) == int(port) and address in own:
                return True
    return False
