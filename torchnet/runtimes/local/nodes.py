"""One local node: a process that looks, from inside, like a pod's first."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import traceback
from collections.abc import Callable
from typing import NoReturn

from torchnet.kernel import syscalls
from torchnet.runtimes.local import plan

Step = Callable[[tuple[str, Callable[[], None]]], None]


def start_node(
    node: plan.Node, namespace: int, step: Step, main: Callable[[int], int], *, internet: bool = False
) -> int:
    """Fork the node's first process into the network ``namespace``; returns its pid as this process sees it."""
    # Only children go into a new PID namespace; going back to the own one first allows the next call.
    step(("pid namespace", lambda: syscalls.unshare(syscalls.NEWPID)))
    child = os.fork()
    if child == 0:
        _run(node, namespace, step, main, internet)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(own, syscalls.NEWPID)
    os.close(own)
    return child


def _run(node: plan.Node, namespace: int, step: Step, main: Callable[[int], int], internet: bool) -> NoReturn:
    code = 70
    try:
        syscalls.die_with_parent(signal.SIGKILL, 0)
        syscalls.setns(namespace, syscalls.NEWNET)
        step(
            (
                "node's namespaces",
                lambda: syscalls.unshare(syscalls.NEWNS | syscalls.NEWUTS | syscalls.NEWIPC),
            )
        )
        socket.sethostname(node.name)
        step(("proc", lambda: _mounts(node, internet)))
        syscalls.drop_privileges()
        code = main(node.rank)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code & 0xFF)


def _mounts(node: plan.Node, internet: bool) -> None:
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", flags)
    _fresh_sys(flags)
    # Shared memory of its own, as a pod has it: what killed processes leave there goes with the node.
    syscalls.mount("tmpfs", "/dev/shm", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=1777")
    files = {"/etc/hosts": plan.hosts(node)}
    if internet:
        files["/etc/resolv.conf"] = f"nameserver {plan.DNS}\n"
    _files(files)


def _fresh_sys(flags: int) -> None:
    """/sys of this network namespace, with the machine's control groups where they were."""
    shelf = "/dev/shm"  # any directory that is covered again right away
    with contextlib.suppress(OSError):
        syscalls.mount("/sys/fs/cgroup", shelf, flags=syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.mount("sysfs", "/sys", "sysfs", flags)
    with contextlib.suppress(OSError):
        syscalls.mount(shelf, "/sys/fs/cgroup", flags=syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.umount(shelf)


def _files(texts: dict[str, str]) -> None:
    """The node's own versions of files, in memory, bound over the machine's; its agent can write to them."""
    # A file system in memory can be unmounted by name while files of it stay in use.
    syscalls.mount("tmpfs", "/mnt", "tmpfs", 0, "size=4m,mode=755")
    for path, text in texts.items():
        target = os.path.realpath(path)
        if os.path.exists(target):
            source = f"/mnt/{os.path.basename(path)}"
            with open(source, "w") as file:
                file.write(text)
            syscalls.mount(source, target, flags=syscalls.MS_BIND)
    syscalls.umount("/mnt")
