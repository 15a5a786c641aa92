"""Drop a random share of the packets that arrive at an interface, with hand-written nf_tables messages.

netem exists for this, but not in every kernel, and no other queueing discipline drops at random; nearly all
kernels have nf_tables.

Sources:
    include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h; nft(8), numgen.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from torchnet.linux.netlink import HEADER, Netlink
from torchnet.linux.pyroute2_import import encode

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # isort: skip

_NETFILTER = 12  # NETLINK_NETFILTER
_BEGIN, _END = 16, 17  # NFNL_MSG_BATCH_BEGIN and _END
_NFTABLES = 10  # NFNL_SUBSYS_NFTABLES
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = (_NFTABLES << 8 | number for number in (0, 3, 6))
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_NETDEV, _INGRESS = 5, 0
_SECONDS = 10.0
_WHOLE = 1_000_000  # resolution of a share
_REGISTER, _RANDOM, _TO_NETWORK_ORDER, _LESS, _VERDICT, _DROP = 1, 1, 1, 2, 0, 0
_NAME = "torchnet-loss"


def single_packets(index: int) -> bytes:
    """Segment what leaves this interface; otherwise up to 64 KiB of a stream pass as one packet."""
    message = ifinfmsg()
    message["index"] = index
    message["attrs"] = [("IFLA_GSO_MAX_SEGS", 1)]
    return encode(message, 19, 0)


def lose(interfaces: Sequence[str], share: float) -> None:
    """Drop a random ``share`` (above 0, below 1) of the packets that arrive at ``interfaces`` from now on.

    The interfaces are in this process's network namespace.

    Raises:
        OSError: this kernel lacks nf_tables or the parts of it that this needs.
    """
    with Netlink(_NETFILTER) as netlink:
        netlink.socket.settimeout(_SECONDS)
        for interface in interfaces:
            messages = _messages(f"{_NAME}-{interface}", interface, max(1, round(share * _WHOLE)))
            netlink.socket.send(b"".join(messages))
            _acknowledged(netlink, sum(bool(HEADER.unpack_from(one)[2] & _ACK) for one in messages))


def _acknowledged(netlink: Netlink, count: int) -> None:
    """Read ``count`` acknowledgements.

    :meth:`Netlink.batch` cannot: kernels before 6.10 answer a batch's begin and end only to refuse them.
    """
    while count > 0:
        data, offset = netlink.socket.recv(1 << 16), 0
        while offset + HEADER.size + 4 <= len(data):
            length = HEADER.unpack_from(data, offset)[0]
            if code := -struct.unpack_from("=i", data, offset + HEADER.size)[0]:
                raise OSError(code, f"{os.strerror(code)} (nf_tables, which a fault's loss needs)")
            count -= 1
            offset += (length + 3) & ~3


def _messages(table: str, interface: str, limit: int) -> list[bytes]:
    hook = _number(1, _INGRESS) + _number(2, 0) + _text(3, interface)
    dice = _number(1, _REGISTER) + _number(2, _WHOLE) + _number(3, _RANDOM) + _number(4, 0)
    # cmp compares bytes from the first on, so the number must be big-endian.
    order = b"".join(
        _number(kind, value)
        for kind, value in ((1, _REGISTER), (2, _REGISTER), (3, _TO_NETWORK_ORDER), (4, 4), (5, 4))
    )
    below = _number(1, _REGISTER) + _number(2, _LESS) + _nested(3, _attribute(1, struct.pack(">I", limit)))
    drop = _number(1, _VERDICT) + _nested(2, _nested(2, _number(1, _DROP)))
    parts = (("numgen", dice), ("byteorder", order), ("cmp", below), ("immediate", drop))
    rule = b"".join(_nested(1, _text(1, name) + _nested(2, data)) for name, data in parts)
    chain = _text(1, table) + _text(3, "arriving") + _nested(4, hook) + _text(7, "filter")
    return [
        _message(_BEGIN, 0, 0, b"", _NFTABLES),
        _message(_NEW_TABLE, _ACK | _CREATE, _NETDEV, _text(1, table)),
        _message(_NEW_CHAIN, _ACK | _CREATE, _NETDEV, chain),
        _message(
            _NEW_RULE,
            _ACK | _CREATE | _APPEND,
            _NETDEV,
            _text(1, table) + _text(2, "arriving") + _nested(4, rule),
        ),
        _message(_END, 0, 0, b"", _NFTABLES),
    ]


def _message(kind: int, flags: int, family: int, body: bytes, resource: int = 0) -> bytes:
    data = struct.pack(">BBH", family, 0, resource) + body
    return HEADER.pack(HEADER.size + len(data), kind, flags | _REQUEST, 0, 0) + data


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def _nested(kind: int, data: bytes) -> bytes:
    return _attribute(0x8000 | kind, data)  # NLA_F_NESTED


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value))
