"""A persistent TAP device, to which a user-mode network stack attaches (tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
import struct

DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


def usable() -> bool:
    """Return whether the device file exists and this user may open it."""
    return os.access(DEVICE, os.R_OK | os.W_OK)


def trouble() -> str:
    """Return why the device file is not usable, with a remedy."""
    if not os.path.exists(DEVICE):
        return "does not exist (sudo modprobe tun)"
    return f"is not accessible to this user (sudo chmod 666 {DEVICE})"


def make(name: str) -> None:
    """Create the TAP device ``name`` in this network namespace; netlink has no message for it.

    Raises:
        OSError: the device file is missing, or access is denied.
    """
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)
