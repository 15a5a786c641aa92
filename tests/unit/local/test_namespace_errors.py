"""Why namespaces are refused: the mechanism named, with one fix to paste."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from torchnet.local import namespace_errors
from torchnet.local.namespace_errors import NamespaceFacts, judge

EPERM, ENOSPC = errno.EPERM, errno.ENOSPC
MECHANISMS = {
    ("user namespace", errno.ENOSYS, NamespaceFacts()): ("kernel was built without", "CONFIG_USER_NS"),
    ("links", errno.EOPNOTSUPP, NamespaceFacts()): (
        "lacks a kind of link",
        "sudo modprobe -a veth bridge macvlan sch_tbf",
    ),
    ("links", errno.ENODEV, NamespaceFacts()): ("lacks a kind of link", "modprobe"),
    ("user namespace", ENOSPC, NamespaceFacts()): (
        "max_user_namespaces",
        "sysctl -w user.max_user_namespaces=15000",
    ),
    ("links", ENOSPC, NamespaceFacts(max_user_namespaces=99, max_net_namespaces=0)): (
        "max_net_namespaces",
        "sysctl -w user.max_net_namespaces=15000",
    ),
    ("user namespace", ENOSPC, NamespaceFacts(max_user_namespaces=0, max_net_namespaces=0)): (
        "max_user_namespaces",
        "sysctl",
    ),
    ("user namespace", errno.EUSERS, NamespaceFacts()): ("max_user_namespaces", "sysctl"),
    ("user namespace", EPERM, NamespaceFacts(max_user_namespaces=0)): ("max_user_namespaces", "sysctl"),
    ("user namespace", EPERM, NamespaceFacts(userns_clone=False)): (
        "unprivileged_userns_clone is 0",
        "userns_clone=1",
    ),
    ("proc", EPERM, NamespaceFacts(proc_covered=True)): (
        "container has a masked /proc",
        "systempaths=unconfined",
    ),
    ("mounts", EPERM, NamespaceFacts(proc_covered=True, seccomp=True)): (
        "masked /proc",
        "systempaths=unconfined",
    ),
    ("uid_map", EPERM, NamespaceFacts(apparmor_restricts=True)): (
        "AppArmor",
        "apparmor_restrict_unprivileged_userns=0",
    ),
    ("namespaces", EPERM, NamespaceFacts(apparmor_restricts=True, seccomp=True)): ("AppArmor", "sysctl"),
    ("user namespace", EPERM, NamespaceFacts(seccomp=True)): ("seccomp", "--security-opt seccomp=unconfined"),
    ("user namespace", EPERM, NamespaceFacts(seccomp=True, proc_covered=True)): (
        "seccomp",
        "seccomp=unconfined",
    ),
    ("user namespace", EPERM, NamespaceFacts(chroot=True)): ("in a chroot", "leave the chroot"),
    ("user namespace", EPERM, NamespaceFacts()): ("a security policy forbids it", "run it as root"),
    ("user namespace", EPERM, NamespaceFacts(False, True, 99, False, False, False, False)): (
        "a security policy",
        "as root",
    ),
}


@pytest.mark.parametrize(("step", "code", "facts"), MECHANISMS)
def test_the_mechanism_that_refused_is_named_with_a_fix(step: str, code: int, facts: NamespaceFacts) -> None:
    mechanism, fix = judge(step, code, facts)
    wanted = MECHANISMS[step, code, facts]
    assert wanted[0] in mechanism
    assert wanted[1] in fix
    error = namespace_errors.explain(step, OSError(code, os.strerror(code)), facts)
    assert error.exit_code == 4
    for part in (step, os.strerror(code), mechanism):
        assert part in error.text
    assert error.fix.startswith(fix)
    assert "--network loopback" in error.fix


def test_what_this_machine_says_is_read() -> None:
    facts = namespace_errors.gather()
    limit = Path("/proc/sys/user/max_user_namespaces")
    assert facts.max_user_namespaces == (int(limit.read_text()) if limit.exists() else None)
    assert facts.seccomp == ("Seccomp:\t2" in Path("/proc/self/status").read_text())
