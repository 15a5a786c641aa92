"""Bytes per TCP connection, by local and remote address, from the kernel's sock_diag.

A dump lists the open sockets. The multicast group of destroyed sockets delivers each one's final counts when
it closes (``ss -E`` listens to it). Together they are a complete account; neither needs privileges.

Sources:
    include/uapi/linux/{inet_diag,sock_diag}.h; net/ipv4/tcp.c, tcp_get_info().
"""

from __future__ import annotations

import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from errno import ENOBUFS

from torchnet.linux.netlink import HEADER, SOCK_DIAG, Netlink

# pyroute2.netlink.diag has these messages, too, but imports asyncio sockets with them (0.07 s in every worker
# while the training processes start) and decodes 60 fields of a socket (0.2 ms each), of which few are
# needed. The layout is kernel ABI: fields are only added at the end.
_REQUEST = struct.Struct("=BBBBI" + "HH16s16sII I".replace(" ", ""))
_MESSAGE = struct.Struct("=BBBB HH16s16sIII IIIII".replace(" ", ""))
_BY_FAMILY = 20
_INFO = 2  # INET_DIAG_INFO
_SO_COOKIE = 57  # include/uapi/asm-generic/socket.h; missing in Python's socket
_GROUPS_TCP_DESTROY = (1, 3)  # SKNLGRP_INET_TCP_DESTROY, SKNLGRP_INET6_TCP_DESTROY
_SYN_RECV, _TIME_WAIT, _LISTEN = 3, 6, 10
_STATES = 0xFFF & ~(1 << _LISTEN) & ~(1 << _TIME_WAIT) & ~(1 << _SYN_RECV)  # SYN_RECV has no socket yet
# struct tcp_info: offsets of the counters, and of fields that show a stalled peer.
_BYTES_ACKED, _BYTES_RECEIVED, _SEGS_OUT, _SEGS_IN, _BYTES_SENT, _BYTES_RETRANS = 120, 128, 136, 140, 200, 208
_BACKOFF, _OPTIONS, _RCV_SPACE = 4, 5, 96
_SND_MSS, _UNACKED, _ADVMSS, _DATA_SEGS_IN, _DATA_SEGS_OUT = 16, 24, 84, 152, 156
_OPTION_TIMESTAMPS = 1  # TCPI_OPT_TIMESTAMPS


@dataclass(frozen=True)
class SocketBytes:
    """One TCP connection. Addresses are literals, IPv4-mapped ones as IPv4.

    ``sent_bytes`` and ``received_bytes`` are payload without retransmissions, but the kernel counts the
    peer's FIN as one received byte. ``tried_bytes`` is payload with retransmissions. ``data_segments_in``
    includes repeated segments, each of up to ``mss`` bytes. ``cookie`` identifies the socket for the
    namespace's lifetime. ``header`` is the least length of a packet's IP and TCP headers, and ``uid`` the user who
    opened the socket.
    """

    local: str
    remote: str
    local_port: int
    remote_port: int
    sent_bytes: int
    received_bytes: int
    tried_bytes: int
    segments_out: int
    segments_in: int
    data_segments_in: int
    mss: int
    unacknowledged: int
    backoff: int
    inode: int
    cookie: int
    state: int
    header: int = 20 + 20
    uid: int = 0


def cookie(sock: socket.socket) -> int:
    """Return the :class:`SocketBytes` ``cookie`` of a socket of this process; it never changes."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def half_open(port: int) -> list[str]:
    """Return remote addresses whose connections to ``port`` here do not complete the handshake (SYN_RECV)."""
    return [socket.remote for socket in dump(states=1 << _SYN_RECV) if socket.local_port == port]


def listening(netlink: Netlink | None = None) -> list[SocketBytes]:
    """Return the listening TCP sockets of this network namespace."""
    return dump(netlink, states=1 << _LISTEN)


def dump(netlink: Netlink | None = None, *, states: int = _STATES) -> list[SocketBytes]:
    """Return the open TCP connections of this network namespace."""
    own = Netlink(SOCK_DIAG) if netlink is None else netlink
    try:
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(
                family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, states, 0, 0, b"", b"", 0, 0, 0
            )
            header = HEADER.pack(HEADER.size + len(request), _BY_FAMILY, 0, 0, 0)
            for kind, message in own.dump(header + request):
                # The remains of a closed socket appear as FIN_WAIT2 with its cookie, but without counts.
                if kind == _BY_FAMILY and (_info(message) or states != _STATES):
                    found.append(_parse(message))
        return found
    finally:
        if netlink is None:
            own.close()


class Destroyed:
    """The final counts of each TCP connection in this namespace that closes from now on."""

    def __init__(self) -> None:
        self.netlink = Netlink(SOCK_DIAG, groups=_GROUPS_TCP_DESTROY)
        self.lost = False  # messages were lost: the account is incomplete from here on
        self.closed_without_counts: deque[int] = deque(maxlen=10_000)
        """Cookies of connections that were reset (SO_LINGER 0): the kernel clears their counts and addresses before
        they close (net/ipv4/tcp.c, tcp_disconnect), but not the receive space, which is set once a connection is
        established. The caller empties this."""

    def fileno(self) -> int:
        return self.netlink.fileno()

    def read(self) -> Iterator[SocketBytes]:
        """Yield the connections that have closed since the last call, without waiting."""
        while True:
            try:
                for kind, message in self.netlink.events():
                    if kind != _BY_FAMILY:
                        continue
                    found = _parse(message)
                    if found.remote_port:
                        yield found
                    elif _u32(_info(message), _RCV_SPACE):
                        self.closed_without_counts.append(found.cookie)
                return
            except OSError as error:
                self.lost = True
                if error.errno != ENOBUFS:
                    return
                # Messages that fitted into the buffer can still be read after this error.

    def close(self) -> None:
        self.netlink.close()


def _parse(message: bytes) -> SocketBytes:
    fields = _MESSAGE.unpack_from(message, HEADER.size)
    family, state = fields[0], fields[1]
    sport, dport = socket.ntohs(fields[4]), socket.ntohs(fields[5])
    info = _info(message)
    tried, received, mss = _u64(info, _BYTES_SENT), _u64(info, _BYTES_RECEIVED), _u32(info, _ADVMSS)
    data_out = unwrapped(_u32(info, _DATA_SEGS_OUT), tried, _u32(info, _SND_MSS))
    data_in = unwrapped(_u32(info, _DATA_SEGS_IN), received, mss)
    local = _literal(family, fields[6])
    timestamps = len(info) > _OPTIONS and info[_OPTIONS] & _OPTION_TIMESTAMPS
    return SocketBytes(
        local=local,
        remote=_literal(family, fields[7]),
        local_port=sport,
        remote_port=dport,
        sent_bytes=_sent(info),
        received_bytes=received,
        tried_bytes=tried,
        segments_out=data_out + _difference(info, _SEGS_OUT, _DATA_SEGS_OUT),
        segments_in=data_in + _difference(info, _SEGS_IN, _DATA_SEGS_IN),
        data_segments_in=data_in,
        mss=mss,
        unacknowledged=_u32(info, _UNACKED),
        backoff=info[_BACKOFF] if len(info) > _BACKOFF else 0,
        inode=fields[15],
        cookie=fields[9] | fields[10] << 32,
        state=state,
        header=(40 if ":" in local else 20) + (32 if timestamps else 20),
        uid=fields[14],
    )


def _info(message: bytes) -> bytes:
    return _attribute(message, HEADER.size + _MESSAGE.size, _INFO)


def _sent(info: bytes) -> int:
    """Payload that has reached the peer, each byte once.

    Not bytes_sent minus bytes_retrans alone: a segment that this host's queueing discipline drops (a shaped
    link's does) counts as sent each time, never as retransmitted (net/ipv4/tcp_output.c, __tcp_transmit_skb).
    Not bytes_acked alone: it counts SYN and FIN as a byte each.
    """
    acked = _u64(info, _BYTES_ACKED)
    if len(info) < _BYTES_RETRANS + 8:
        return acked  # kernels before 4.19
    return min(acked, max(0, _u64(info, _BYTES_SENT) - _u64(info, _BYTES_RETRANS)))


def unwrapped(segments: int, payload: int, mss: int) -> int:
    """Return how many segments carried the payload, despite the kernel's 32-bit counter.

    It wraps every 8 minutes at 100 Gbit/s and an MTU of 1,500. The payload took payload / mss segments or a
    few more, so the nearest number of wraparounds is right for the first dozens. Not the next higher number:
    a card that merges segments makes several count as one.
    """
    turns = round((payload // mss - segments) / (1 << 32)) if mss else 0
    return segments + (max(0, turns) << 32)


def _difference(info: bytes, every: int, data: int) -> int:
    """Segments without data, i.e. acknowledgements."""
    return (_u32(info, every) - _u32(info, data)) % (1 << 32)


def _attribute(message: bytes, offset: int, wanted: int) -> bytes:
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            break
        if kind == wanted:
            return message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return b""


def _literal(family: int, raw: bytes) -> str:
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    if raw[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)


def _u64(info: bytes, offset: int) -> int:
    return int(struct.unpack_from("=Q", info, offset)[0]) if len(info) >= offset + 8 else 0


def _u32(info: bytes, offset: int) -> int:
    return int(struct.unpack_from("=I", info, offset)[0]) if len(info) >= offset + 4 else 0
