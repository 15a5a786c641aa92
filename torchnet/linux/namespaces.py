"""System calls that Python 3.10's standard library lacks: namespaces, mounts, prctl, capabilities."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV, MS_NOEXEC = 4096, 16384, 1 << 18, 2, 4, 8
MNT_DETACH = 2
FILE_CAPABILITIES = (0, 1, 2, 3, 4)
"""Root's rights over files: CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID (linux/capability.h)."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 1, 4, 24, 36
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPSET = {"x86_64": 126, "aarch64": 91, "ppc64le": 184, "s390x": 185, "riscv64": 91}
_KCMP = {"x86_64": 312, "aarch64": 272, "ppc64le": 354, "s390x": 343, "riscv64": 272}
_KCMP_FILES = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), call)


def unshare(flags: int) -> None:
    """unshare(2): move this process into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """setns(2): move this thread into the namespace behind an open descriptor."""
    _check(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode() or None)
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None)
    _check(result, f"mount {kind or source} on {target}")


def umount(target: str) -> None:
    """umount2(2), lazily."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def die_with_parent(signal: int, parent: int) -> None:
    """Have the kernel send ``signal`` to this process when its parent ends; exit if it already has.

    The kernel may clear this when credentials change (kernel/cred.c, commit_creds), so call it after
    unshare(2).
    """
    if not signal_with_parent(signal, parent):
        os._exit(128 + signal)


def signal_with_parent(signal: int, parent: int) -> bool:
    """Have the kernel send this process a signal when its parent ends; return False if it has already ended."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl")
    return os.getppid() == parent


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants (PR_SET_CHILD_SUBREAPER), so that none escapes."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def same_files(one: int, other: int) -> bool:
    """Return whether two threads share their table of descriptors (kcmp(2)).

    Raises:
        OSError: one of them has ended, or the kernel does not tell.
    """
    number = _KCMP.get(os.uname().machine, -1)
    result = _libc.syscall(number, one, other, _KCMP_FILES, 0, 0)
    _check(result, "kcmp")
    return bool(result == 0)


def has_file_rights() -> bool:
    """Return whether this process may access files of all users that its user namespace maps, more than its own."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file if line.startswith("CapEff"))
    with open("/proc/self/uid_map") as file:
        count = sum(int(line.split()[2]) for line in file)
    return bool(int(status.get("CapEff", "0"), 16) & 2) and count > 1


def drop_privileges(keep: Collection[int] = ()) -> None:
    """Drop all capabilities of this process and its future children for good, as in a "restricted" pod.

    Args:
        keep: Numbers of capabilities, below 32, that stay.
    """
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(_LAST_CAPABILITY + 1):
        if capability in keep:
            continue
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    bits = sum(1 << capability for capability in keep)
    # Effective, permitted and inheritable, of the lower 32 and then of the upper ones.
    sets = ctypes.create_string_buffer(struct.pack("=6I", bits, bits, 0, 0, 0, 0))
    _check(_libc.syscall(_CAPSET[os.uname().machine], header, sets), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    # Credential changes may clear the dumpable flag (commit_creds), and root would then own /proc/self.
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")
