"""Why this machine refuses namespaces, and one fix.

The kernel returns EPERM for at least five different reasons. :func:`gather` reads what distinguishes them,
only after a refusal; :func:`judge` is a pure function of the result.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from torchnet.errors import RefusedError

_OTHER_WAY = "torchnet launch --network loopback …   (no second network: nothing is proved)"


@dataclass(frozen=True)
class NamespaceFacts:
    """The machine's settings that concern namespaces; None if unknown."""

    apparmor_restricts: bool | None = None
    userns_clone: bool | None = None
    max_user_namespaces: int | None = None
    seccomp: bool = False
    container: bool = False
    proc_covered: bool = False
    chroot: bool = False
    max_net_namespaces: int | None = None
    root: bool = False


# Refusals by the kernel or a policy; any other error is torchnet's own.
REFUSALS = frozenset(
    (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EUSERS, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENODEV)
)


def explain(step: str, error: OSError, facts: NamespaceFacts | None = None) -> RefusedError:
    """Turn the refusal of ``step`` into an error with the mechanism, a fix to paste, and the alternative."""
    mechanism, fix = judge(step, error.errno or 0, facts if facts is not None else gather())
    what = error.strerror or os.strerror(error.errno or 0)
    text = f"this machine does not allow the local networks: {step}: {what}; {mechanism}"
    return RefusedError(text, fix=f"{fix}\n       or: {_OTHER_WAY}")


def judge(step: str, code: int, facts: NamespaceFacts) -> tuple[str, str]:
    """Return (mechanism, fix) for a refusal with errno ``code``."""
    if code == errno.ENOSYS:
        return (
            "the kernel was built without this kind of namespace",
            "use a kernel with CONFIG_USER_NS and CONFIG_NET_NS",
        )
    if code in (errno.EOPNOTSUPP, errno.ENODEV):
        return "the kernel lacks a kind of link", "sudo modprobe -a veth bridge macvlan sch_tbf"
    if facts.max_user_namespaces == 0 or code in (errno.ENOSPC, errno.EUSERS):
        # Some HPC clusters set the limit of network namespaces to 0, and leave the others.
        users, nets = facts.max_user_namespaces, facts.max_net_namespaces
        name = f"user.max_{'net' if users and nets is not None and nets < users else 'user'}_namespaces"
        return f"the limit of the sysctl {name} is reached", f"sudo sysctl -w {name}=15000"
    if step == "uid_map" and facts.root:
        return (
            "root cannot map uid 0 into a new user namespace here: it lacks CAP_SETFCAP, as in a pod or inside another "
            "launch",
            "docker run --cap-add SETFCAP …, or start it outside",
        )
    if facts.userns_clone is False:
        return (
            "the sysctl kernel.unprivileged_userns_clone is 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if step in ("proc", "mounts") and facts.proc_covered:
        return (
            "this container has a masked /proc, so the kernel does not allow a new one to be mounted",
            "docker run --security-opt systempaths=unconfined --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined …",
        )
    if facts.apparmor_restricts:
        return (
            "AppArmor denies capabilities in new user namespaces (kernel.apparmor_restrict_unprivileged_userns)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if facts.seccomp:
        return (
            "a seccomp filter forbids the system call, as container runtimes' default profile does",
            "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined …",
        )
    if facts.chroot:
        return "this process is in a chroot, where user namespaces are not allowed", "leave the chroot"
    return "a security policy forbids it", "run it as root, or outside of the container"


def gather() -> NamespaceFacts:
    """Read the facts from this machine."""
    return NamespaceFacts(
        apparmor_restricts=_flag("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        userns_clone=_flag("/proc/sys/kernel/unprivileged_userns_clone"),
        max_user_namespaces=_number("/proc/sys/user/max_user_namespaces"),
        seccomp="Seccomp:\t2" in _text("/proc/self/status"),
        proc_covered=any(
            len(f := line.split()) > 4 and f[4].startswith("/proc/") and f[4] != "/proc/sys/fs/binfmt_misc"
            for line in _text("/proc/self/mountinfo").splitlines()
        ),
        chroot=_chroot(),
        root=os.geteuid() == 0,
        max_net_namespaces=_number("/proc/sys/user/max_net_namespaces"),
    )


def _chroot() -> bool:
    try:
        return os.stat("/proc/1/root/.").st_ino != os.stat("/").st_ino
    except OSError:
        return False


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _flag(path: str) -> bool | None:
    number = _number(path)
    return None if number is None else number != 0
