"""Write results to files atomically: a full disk, a kill or a power failure leaves the old file or the new one."""

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
    """Return why ``path`` cannot be written, as far as a check in advance can find; None if no reason is found.

    Called before a job starts, so that a wrong path is not found only when the job ends. Changes nothing.
    """
    if path == "-":
        return None
    if "\0" in path:
        return "contains a NUL character"
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        return "is a directory"
    if not os.path.isdir(folder):
        return f"the directory {printable(folder)} does not exist; create it with mkdir -p"
    place = folder if _replaceable(target) else target
    return None if os.access(place, os.W_OK) else f"{printable(place)} is not writable"


def write_json(
    path: str, receipt: Mapping[str, Any], *, stdout: TextIO | None = None, stderr: TextIO | None = None
) -> str | None:
    """Write ``receipt`` as ASCII-only JSON to ``path``; "-" is standard output.

    A regular file is replaced atomically: a new file beside it, fsync, rename. Symbolic links are followed; devices and
    named pipes are written to directly. Directories are not created.

    If storing fails, an old file stays unchanged, the JSON goes to standard output so that the result is not lost, and
    one line on standard error gives the reason. A result that JSON cannot represent (NaN, an object) is printed as a
    Python literal instead. Such failures are returned, not raised, so that a full disk does not change the exit code of
    a job that succeeded.

    Returns:
        Why the file could not be written, or None.
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
        where = "the result is on standard output" if text else "the result cannot be shown either"
        text = f"{printable(path)} could not be written: {printable(reason)}; {where}"
        show(f"torchnet: error: {text}\n", stderr or sys.stderr)
        return reason
    return None


def store(path: str, data: bytes) -> str | None:
    """Write ``data`` to ``path`` as `write_json` does, without its fallback to standard output.

    Returns:
        Why the file could not be written, or None.
    """
    try:
        _store(path, data)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def _as_python(receipt: object) -> str:
    """Return the Python literal, or "" where repr fails too: deep nesting, integers of thousands of digits."""
    try:
        return f"{receipt!a}\n"
    except (ValueError, RecursionError):
        return ""


def _store(path: str, data: bytes) -> None:
    target = os.path.realpath(path)
    if not _replaceable(target):
        # Open non-blocking, since opening a named pipe without a reader would block forever (open(2), ENXIO).
        descriptor = os.open(target, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as special:
            special.write(data)
        return
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".torchnet-{secrets.token_hex(8)}.tmp")
    # 0666 less the umask, like any new file; tempfile would create it with 0600.
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
        return True  # does not exist yet


def _keep_mode(target: str, descriptor: int) -> None:
    try:
        os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode) & 0o777)
    except FileNotFoundError:
        pass


def _sync_folder(folder: str) -> None:
    """Make the rename durable. File systems that cannot sync a directory still have the file."""
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
    """Write ``text`` to ``file``; errors are ignored."""
    try:
        file.write(text)
        file.flush()
    except (OSError, ValueError):
        pass  # the output of last resort has failed too
