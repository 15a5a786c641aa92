"""Whether a command of ``--no-python`` can be executed: found, executable, its interpreter there."""

from __future__ import annotations

import os
import shutil

from torchnet.network.text import printable

_FIRST_LINE = 256
"""Bytes of the first line that Linux reads (BINPRM_BUF_SIZE)."""


def check_command(command: str, cwd: str, search: str) -> str:
    """Why ``command`` cannot be executed from ``cwd``, or "".

    A name without a slash is looked up in ``search``, a PATH, as the kernel's callers do.
    """
    shown = printable(command, 200)
    path: str | None = os.path.join(cwd, command) if os.sep in command else shutil.which(command, path=search)
    if path is None:
        beside = os.path.isfile(os.path.join(cwd, command))
        return f"it is not in PATH{f'; the file here is ./{shown}' if beside else ''}"
    if not os.path.exists(path):
        return "there is no such file"
    if os.path.isdir(path):
        return "it is a directory"
    if not os.access(path, os.X_OK):
        return f"it is not executable; chmod +x {shown}, or leave out --no-python if it is Python"
    return _check_interpreter(path, search)


def interpreter(content: bytes) -> list[str]:
    """The words behind ``#!`` in the first line of ``content``; empty where there are none."""
    if not content.startswith(b"#!"):
        return []
    return os.fsdecode(content[2:_FIRST_LINE].partition(b"\n")[0]).strip(" \t").split(" ")


def _check_interpreter(path: str, search: str) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(_FIRST_LINE)
    except OSError:
        return ""  # executable, but not readable: a binary may be so
    words = interpreter(head)
    if not words:
        # Binaries are the kernel's business (ELF, binfmt_misc); text without a first line never runs.
        return "" if b"\0" in head else "it has no first line that names an interpreter (#!/bin/sh)"
    if words[-1].endswith("\r"):
        return "its first line ends as on Windows (CR LF), so its interpreter will not be found"
    if not os.access(words[0], os.X_OK):
        return f"its first line names {printable(words[0], 200)}, which cannot be executed"
    by_env = os.path.basename(words[0]) == "env" and len(words) == 2 and words[1][:1] != "-"
    if by_env and shutil.which(words[1], path=search) is None:
        return f"its first line names {printable(words[1], 200)}, which is not in PATH"
    return ""
