"""Results written to files: after a full disk, a kill or a power cut there is the old file or the new, never
half.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from torchnet.text import printable


def problem(path: str) -> str | None:
    """Why ``path`` cannot be written, as far as can be told beforehand; None if nothing speaks against it.

    To be asked before a job starts, not after it has run for a day. Changes nothing.
    """
    if path == "-":
        return None
    if "\0" in path:
        return "a NUL cannot be part of a path"
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        return "is a directory"
    if not os.path.isdir(folder):
        return f"the directory {printable(folder)} does not exist (it is not made silently: mkdir -p it)"
    place = folder if _replaceable(target) else target
    return None if os.access(place, os.W_OK) else f"{printable(place)} is not writable"


def write_json(
    path: str, receipt: Mapping[str, Any], *, stdout: TextIO | None = None, stderr: TextIO | None = None
) -> str | None:
    """Write ``receipt`` as JSON to ``path``; "-" is standard output. Returns why it failed, or None.

    A regular file is replaced as a whole: a new file beside it, fsync, rename. A symbolic link is followed; a
    device or a named pipe is written to. Directories are not made.

    If it cannot be stored, an old file stays as it was, the JSON goes to standard output, so that nothing is
    lost, and one line to standard error says why. So it is with a result that is no JSON (NaN, an object): it
    goes there in Python's form. Nothing is raised, and the exit code stays the job's: a job that was done is not
    undone by a full disk, and who asked for the file sees the line and has the result.

    The text is ASCII (all else is escaped), so it can be printed on any terminal.
    """
    text = ""
    try:
        text = json.dumps(receipt, indent=2, allow_nan=False) + "\n"
        if path == "-":
            show(text, stdout or sys.stdout)
            return None
        _store(path, text.encode("ascii"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        text = text or _as_python(receipt)
        reason = getattr(error, "strerror", None) or str(error)
        show(text, stdout or sys.stdout)
        where = "the result is on standard output" if text else "the result cannot be shown, either"
        said = f"{printable(path)} could not be written: {printable(reason)}; {where}"
        show(f"torchnet: error: {said}\n", stderr or sys.stderr)
        return reason
    return None


def store(path: str, data: bytes) -> str | None:
    """Write ``data`` to ``path`` as `write_json` does, and nothing anywhere else. Returns why it failed, or None."""
    try:
        _store(path, data)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def _as_python(receipt: object) -> str:
    """Nothing where Python refuses, too: for lists in lists in lists, and for whole numbers of thousands of digits."""
    try:
        return f"{receipt!a}\n"
    except (ValueError, RecursionError):
        return ""


def _store(path: str, data: bytes) -> None:
    target = os.path.realpath(path)
    if not _replaceable(target):
        # Not blocking at first: a named pipe that nobody reads would wait for ever (open(2), ENXIO).
        descriptor = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as special:
            special.write(data)
        return
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".torchnet-{secrets.token_hex(8)}.tmp")
    # 0666 less the umask, as any new file; tempfile would make it 0600
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _keep_mode(target, descriptor)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(folder)


def _replaceable(target: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(target).st_mode)
    except OSError:
        return True  # not there yet


def _keep_mode(target: str, descriptor: int) -> None:
    try:
        os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode) & 0o777)
    except FileNotFoundError:
        pass


def _sync_folder(folder: str) -> None:
    """The name, too, on the disk; file systems that cannot sync a directory have the file all the same."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def show(text: str, file: TextIO) -> None:
    """Write it there if that is possible."""
    try:
        file.write(text)
        file.flush()
    except (OSError, ValueError):
        pass  # the last resort has gone, too
