"""The speed of an interface, as its driver reports it.

Not from /sys/class/net, which shows the network namespace in which it was mounted.

Source: include/uapi/linux/{ethtool,sockios}.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL, _GLINKSETTINGS, _GDRVINFO, _DRVINFO_SIZE = 0x8946, 0x4C, 0x03, 196
_SETTINGS = struct.Struct("=IIBBBBBBBbBBBB7I")  # struct ethtool_link_settings
_WORDS = 127  # maximum number of words for each of its three sets of link modes
_UNKNOWN, _TWISTED_PAIR = 0xFFFFFFFF, 0
_INVENTED = {"veth": 10_000, "tun": 10}
_ABOVE = ("macvlan", "ipvlan", "802.1Q VLAN Support", "bonding", "team", "bridge")


def speed(interface: str) -> int | None:
    """Return bits per second as the interface's driver reports; None if it reports nothing, or nothing meaningful.

    A veth always reports 10 Gbit/s and a tun 10 Mbit/s. A macvlan or ipvlan reports the value of the interface below
    it. If that is a veth, which may be in a namespace out of sight, its report shows it: a twisted pair without a
    single supported mode.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # The kernel first answers with the number of words that it wants, negated.
        head = _link_settings(sock, interface, 0)
        if head is None or not -_WORDS <= head[0] < 0:
            return None
        full = _link_settings(sock, interface, -head[0])
        driver = _driver(sock, interface)
    if full is None or full[0] <= 0:
        return None
    _, megabits, port, supported = full
    if megabits in (0, _UNKNOWN) or driver in _INVENTED:
        return None
    if driver in _ABOVE and megabits in _INVENTED.values() and port == _TWISTED_PAIR and not any(supported):
        return None
    return megabits * 1_000_000


def _driver(sock: socket.socket, interface: str) -> str:
    data = ctypes.create_string_buffer(struct.pack("=I", _GDRVINFO), _DRVINFO_SIZE)
    if not _ethtool(sock, interface, data):
        return ""
    return data.raw[4:36].split(b"\0")[0].decode(errors="replace")


def _link_settings(sock: socket.socket, interface: str, words: int) -> tuple[int, int, int, bytes] | None:
    """Return (number of words, megabits per second, port, supported modes); None if the driver reports nothing."""
    size = _SETTINGS.size + 3 * 4 * words
    data = ctypes.create_string_buffer(size)
    _SETTINGS.pack_into(data, 0, _GLINKSETTINGS, 0, 0, 0, 0, 0, 0, 0, 0, words, 0, 0, 0, 0, *[0] * 7)
    if not _ethtool(sock, interface, data):
        return None
    fields = _SETTINGS.unpack_from(data)
    return fields[9], fields[1], fields[3], data.raw[_SETTINGS.size : _SETTINGS.size + 4 * words]


def _ethtool(sock: socket.socket, interface: str, data: ctypes.Array[ctypes.c_char]) -> bool:
    """Return whether the driver of ``interface`` answered; the answer is in ``data``."""
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), ctypes.addressof(data)))
    except OSError:
        return False
    return True
