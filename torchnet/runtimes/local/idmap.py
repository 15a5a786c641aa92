"""Which user and group numbers exist inside of the sandbox (user_namespaces(7))."""

from __future__ import annotations

import os


def write(pid: int) -> None:
    """Give the new user namespace of process ``pid`` its numbers.

    Root maps every number that exists here onto itself, so that files keep their owners.  Anybody else may map one
    number only, the own: files of others then show as nobody's, and the own stay the own.

    Raises:
        OSError: the kernel refused, e.g. because a policy took this process's capabilities.
    """
    if os.geteuid() == 0:
        try:
            _write(pid, "uid_map", _whole("uid_map"))
            _write(pid, "gid_map", _whole("gid_map"))
            return
        except PermissionError:
            pass  # without CAP_SETUID root is like anybody else; its own number needs CAP_SETFCAP then
    _write(pid, "setgroups", "deny")
    _write(pid, "uid_map", f"{os.geteuid()} {os.geteuid()} 1")
    _write(pid, "gid_map", f"{os.getegid()} {os.getegid()} 1")


def _whole(name: str) -> str:
    with open(f"/proc/self/{name}") as file:
        lines = [line.split() for line in file]
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in lines)


def _write(pid: int, name: str, text: str) -> None:
    # One write: the kernel takes the map in a single call.
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
