"""A local node: a process that looks like the first process of a pod, with its own /dev/shm."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import traceback
from collections.abc import Callable
from typing import NoReturn

from torchnet.linux import namespaces, refused_connections
from torchnet.local import topology

_RDMA = "/dev/infiniband"
_FABRIC = re.compile(r"(cxi|hfi1_)\d+")  # device files of Slingshot and Omni-Path
Step = Callable[[tuple[str, Callable[[], None]]], None]


def start_node(
    node: topology.NodePlan, namespace: int, step: Step, main: Callable[[int], int], *, internet: bool = False
) -> int:
    """Fork the node's first process into the network ``namespace``; return its PID as seen by this process."""
    # Only children enter a new PID namespace. Returning to this process's own afterwards allows the next call.
    step(("pid namespace", lambda: namespaces.unshare(namespaces.NEWPID)))
    child = os.fork()
    if child == 0:
        _run(node, namespace, step, main, internet)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(own, namespaces.NEWPID)
    os.close(own)
    return child


def _run(
    node: topology.NodePlan, namespace: int, step: Step, main: Callable[[int], int], internet: bool
) -> NoReturn:
    code = 70
    try:
        namespaces.die_with_parent(signal.SIGKILL, 0)
        namespaces.setns(namespace, namespaces.NEWNET)
        step(
            (
                "node's namespaces",
                lambda: namespaces.unshare(namespaces.NEWNS | namespaces.NEWUTS | namespaces.NEWIPC),
            )
        )
        socket.sethostname(node.name)
        step(("proc", lambda: _mounts(node, internet)))
        refused_connections.watch()
        # Files of mapped users alone: those that root has here without a node, too (capabilities(7)).
        namespaces.drop_privileges(namespaces.FILE_CAPABILITIES if os.geteuid() == 0 else ())
        code = main(node.rank)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code & 0xFF)


def _mounts(node: topology.NodePlan, internet: bool) -> None:
    flags = namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC
    namespaces.mount("proc", "/proc", "proc", flags)
    _fresh_sys(flags)
    # Its own shared memory, as in a pod: what killed processes leave there disappears with the node.
    namespaces.mount("tmpfs", "/dev/shm", "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, "mode=1777")
    if os.path.isdir(_RDMA):  # the machine's RDMA devices would bypass the node's networks
        namespaces.mount("tmpfs", _RDMA, "tmpfs", flags, "size=4k,mode=755")
    files: dict[str, str | None] = {
        f"/dev/{name}": None for name in os.listdir("/dev") if _FABRIC.fullmatch(name)
    }
    files["/etc/hosts"] = topology.hosts(node)
    if internet:
        files["/etc/resolv.conf"] = f"nameserver {topology.DNS}\n"
    _files(files)


def _fresh_sys(flags: int) -> None:
    """Mount /sys for this network namespace, with the machine's cgroups in their place."""
    shelf = "/dev/shm"  # any directory that another mount covers right afterwards
    with contextlib.suppress(OSError):
        namespaces.mount("/sys/fs/cgroup", shelf, flags=namespaces.MS_BIND | namespaces.MS_REC)
    namespaces.mount("sysfs", "/sys", "sysfs", flags)
    with contextlib.suppress(OSError):
        namespaces.mount(shelf, "/sys/fs/cgroup", flags=namespaces.MS_BIND | namespaces.MS_REC)
        namespaces.umount(shelf)


def _files(texts: dict[str, str | None]) -> None:
    """Bind the node's own versions of files, kept in memory, over the machine's.

    The node's processes can write to them, and cannot open those whose text is None.
    """
    # A tmpfs can be unmounted by path while its files stay in use. The directory exists on every machine.
    folder = "/dev/shm"
    namespaces.mount("tmpfs", folder, "tmpfs", 0, "size=4m,mode=755")
    for path, text in texts.items():
        target = os.path.realpath(path)
        if os.path.exists(target):
            source = f"{folder}/{os.path.basename(path)}"
            if text is not None or not _closed_file(source):
                with open(source, "w") as file:
                    file.write(text or "")
            namespaces.mount(source, target, flags=namespaces.MS_BIND)
    namespaces.umount(folder)


def _closed_file(path: str) -> bool:
    """Make a file that not even root can open: a character device without a driver; False on Linux before 5.8."""
    try:
        os.mknod(path, stat.S_IFCHR)
    except OSError:
        return False
    return True
