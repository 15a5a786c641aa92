"""Runs a command under a seccomp filter that refuses unshare(2), as container runtimes' default profiles do.

    python -m tests.seccomp COMMAND [ARGS]…

A classic BPF program over struct seccomp_data (seccomp(2)): load the call's number, compare, return.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_UNSHARE = {"x86_64": 272, "aarch64": 97, "ppc64le": 282, "s390x": 303, "riscv64": 97}
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT = 0  # offset of seccomp_data.nr
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


def refuse_unshare() -> None:
    """For this process and whatever it starts; cannot be undone."""
    program = [
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_EQUAL, 0, 1, _UNSHARE[os.uname().machine]),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _MODE_FILTER, whole, 0, 0)):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    refuse_unshare()
    os.execvp(sys.argv[1], sys.argv[1:])
