"""Looks at the script before a job starts: one message instead of the same traceback from every rank.

Apart from the specification, which never touches the machine. What runs is decided by the worker's Python, so
only what cannot work anywhere is refused.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import stat
import warnings

from torchnet.network.text import printable
from torchnet.spec.command import check_command, interpreter
from torchnet.spec.model import JobSpec
from torchnet.spec.modules import check_module

_COMPILED_AT_MOST = 1 << 20
_LISTED_AT_MOST = 2_000
# Only these, since Python scripts may begin with other lines than python's: uv's, pypy's, a wrapper's.
_NOT_PYTHON = frozenset(
    ("sh", "bash", "dash", "zsh", "ksh", "fish", "perl", "ruby", "node", "Rscript", "lua")
)


def check_script(job: JobSpec, cwd: str | os.PathLike[str]) -> list[str]:
    """Why ``job.script`` cannot be run from ``cwd``, one sentence each; empty where nothing is against it."""
    if job.module:
        wrong = check_module(job.script, os.fspath(cwd))
    elif job.no_python:
        wrong = check_command(
            job.script, os.fspath(cwd), job.env.get("PATH", os.environ.get("PATH", os.defpath))
        )
    else:
        wrong = _check_file(os.path.join(cwd, job.script))
    return [f"{printable(job.script, 200)}: {wrong}"] if wrong else []


def _check_file(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if re.fullmatch(r"python[0-9.]*", os.path.basename(path)):
            return "Python is started by torchnet itself; leave it out"
        return f"there is no such file{_near(path)}"
    except OSError as error:
        return f"it cannot be looked at ({error.strerror})"
    if stat.S_ISDIR(mode):
        if os.path.isfile(os.path.join(path, "__main__.py")):
            return ""
        return "it is a directory without a __main__.py; name the script in it"
    if not stat.S_ISREG(mode):
        return "it is no regular file, and every rank has to read it by itself"
    try:
        with open(path, "rb") as file:
            source = file.read(_COMPILED_AT_MOST + 1)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return _unreadable_for_workers(path) or _check_source(path, source)


def _near(path: str) -> str:
    try:
        with os.scandir(os.path.dirname(path) or ".") as entries:
            names = [entry.name for entry in itertools.islice(entries, _LISTED_AT_MOST)]
    except OSError:
        return ""
    near = difflib.get_close_matches(os.path.basename(path), names, n=1)
    return f"; did you mean {printable(near[0], 200)}?" if near else ""


def _unreadable_for_workers(path: str) -> str:
    """Scripts run without capabilities, so root's right to read everything ends here."""
    if os.geteuid() != 0:
        return ""
    real = os.path.realpath(path)
    parents = [real]
    while parents[-1] != "/":
        parents.append(os.path.dirname(parents[-1]))
    for place in parents:
        wanted = stat.S_IROTH if place == real else stat.S_IXOTH
        if not _allows(os.stat(place), wanted):
            what = "it" if place == real else printable(place, 200)
            return f"{what} opens to root's capabilities alone, and scripts run without any; chmod or copy it"
    return ""


def _allows(status: os.stat_result, wanted: int) -> bool:
    """Whether the mode bits alone let this process in; ``wanted`` is one of the bits for others."""
    if status.st_uid == os.geteuid():
        wanted <<= 6
    elif status.st_gid in (os.getegid(), *os.getgroups()):
        wanted <<= 3
    return bool(status.st_mode & wanted)


def _check_source(path: str, source: bytes) -> str:
    otherwise = "with --no-python it is run as it is"
    if path.endswith(".pyc") or _is_archive(path):
        return ""
    if b"\0" in source:
        return f"it is not Python, but binary; {otherwise}"
    others = {os.path.basename(word) for word in interpreter(source)[:2]} & _NOT_PYTHON
    if others:
        return f"it is for {others.pop()} by its first line, not Python; {otherwise}"
    if len(source) > _COMPILED_AT_MOST:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f" (line {error.lineno}: {printable(error.msg, 120)})" if error.lineno else ""
        return f"it is not valid Python{place}; if it is something else, {otherwise}"
    except (ValueError, RecursionError, MemoryError, OverflowError):
        pass  # a limit of this compiler; the worker's Python may have another
    return ""


def _is_archive(path: str) -> bool:
    """Python runs zip files that hold a ``__main__.py``."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return "__main__.py" in archive.namelist()
    # RuntimeError: zipfile raises a subclass of it for a file that asks for a newer version of the format.
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        return False
