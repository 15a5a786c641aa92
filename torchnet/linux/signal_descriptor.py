"""signalfd(2): signals as a readable descriptor, with their origin, which Python's handlers do not receive."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_CLOEXEC, _NONBLOCK = os.O_CLOEXEC, os.O_NONBLOCK  # SFD_CLOEXEC, SFD_NONBLOCK
_SIGSET_BYTES = 128
_INFO = struct.Struct("=IiiII108x")  # struct signalfd_siginfo: signo, errno, code, pid, uid, …
_SI_KERNEL = 0x80  # include/uapi/asm-generic/siginfo.h

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Signal:
    """A received signal.

    Attributes:
        to_group: The kernel sent it, such as the terminal's SIGINT, which all processes of the foreground group get.
    """

    number: int
    to_group: bool


class SignalDescriptor:
    """A descriptor that is readable when one of the signals is pending. The caller blocks them first.

    Raises:
        OSError: the kernel has no descriptor left.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        bits = 8 * ctypes.sizeof(ctypes.c_ulong)
        words = (ctypes.c_ulong * (8 * _SIGSET_BYTES // bits))()
        for number in numbers:
            words[(number - 1) // bits] |= 1 << (number - 1) % bits
        self._fd = int(_libc.signalfd(-1, ctypes.byref(words), _CLOEXEC | _NONBLOCK))
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "signalfd")

    def fileno(self) -> int:
        return self._fd

    def read(self) -> Iterator[Signal]:
        """Yield the pending signals, without waiting."""
        while True:
            try:
                data = os.read(self._fd, _INFO.size)
            except BlockingIOError:
                return
            number, _, code, _, _ = _INFO.unpack(data)
            yield Signal(number, to_group=code == _SI_KERNEL and number != signal.SIGCHLD)

    def close(self) -> None:
        os.close(self._fd)
