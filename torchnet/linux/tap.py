"""A TAP device that stays when its maker is gone, for a user-mode network stack to attach to (tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
import struct

DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


def usable() -> bool:
    """Whether the device is there and may be opened."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


def trouble() -> str:
    """Why it is not usable, with what helps."""
    if not os.path.exists(DEVICE):
        return "does not exist (sudo modprobe tun)"
    return f"is closed to this user (sudo chmod 666 {DEVICE})"


def make(name: str) -> None:
    """Make the TAP device ``name`` in this network namespace; netlink has no message for it.

    Raises:
        OSError: no such device here, or not allowed.
    """
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)
