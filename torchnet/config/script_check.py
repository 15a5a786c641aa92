"""Check the script, module or command before a job starts: one error instead of one traceback per rank.

Separate from `torchnet.config.job_spec`, which never accesses the machine. The worker's Python decides what runs, so
only what cannot work anywhere is rejected.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shutil
import stat
import sys
import warnings
from importlib.machinery import ModuleSpec, PathFinder

from torchnet.config.job_spec import JobSpec
from torchnet.config.parsing import quote
from torchnet.errors import UsageError
from torchnet.text import printable

_FIRST_LINE = 256
"""Bytes of a ``#!`` line that Linux reads (BINPRM_BUF_SIZE)."""


def check_command(command: str, cwd: str, search: str) -> str:
    """Return why ``command`` cannot be executed from ``cwd``, or "".

    Args:
        search: Value of PATH; searched for a name without a slash, as in execvp(3).
    """
    shown = printable(command, 200)
    path: str | None = os.path.join(cwd, command) if os.sep in command else shutil.which(command, path=search)
    if path is None:
        beside = os.path.isfile(os.path.join(cwd, command))
        return f"not found in PATH{f'; to run the file in this directory, use ./{shown}' if beside else ''}"
    if not os.path.exists(path):
        return "no such file"
    if os.path.isdir(path):
        return "is a directory"
    if not os.access(path, os.X_OK):
        return f"is not executable; run chmod +x {shown}, or remove --no-python if it is a Python script"
    return _check_interpreter(path, search)


def interpreter(content: bytes) -> list[str]:
    """Return the words after ``#!`` in the first line of ``content``; empty if there is no such line."""
    if not content.startswith(b"#!"):
        return []
    return os.fsdecode(content[2:_FIRST_LINE].partition(b"\n")[0]).strip(" \t").split(" ")


def _check_interpreter(path: str, search: str) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(_FIRST_LINE)
    except OSError:
        return ""  # executable but not readable, which is valid for a binary
    words = interpreter(head)
    if not words:
        # The kernel runs binaries (ELF, binfmt_misc); a text file without #! cannot be executed.
        return "" if b"\0" in head else "its first line names no interpreter (example: #!/bin/sh)"
    if words[-1].endswith("\r"):
        return "its first line has a Windows line ending (CR LF), so its interpreter cannot be found"
    if not os.access(words[0], os.X_OK):
        return f"its first line names {printable(words[0], 200)}, which cannot be executed"
    by_env = os.path.basename(words[0]) == "env" and len(words) == 2 and words[1][:1] != "-"
    if by_env and shutil.which(words[1], path=search) is None:
        return f"its first line names {printable(words[1], 200)}, which is not in PATH"
    return ""


def check_module(name: str, cwd: str) -> str:
    """Return why ``python -m name`` from ``cwd`` would find nothing to run, or "".

    Rejected: `importlib.util.find_spec`. It imports the parent packages, such as torch for ``torch.distributed.run``,
    and thereby runs their code in the launcher.
    """
    if name.endswith(".py") or os.sep in name:
        return "is the path of a file, but -m expects the name of a module; remove -m"
    if not all(part.isidentifier() for part in name.split(".")):
        return f"{quote(name)} is not a valid module name"
    # The worker's sys.path: its working directory replaces the directory of this command.
    path: list[str] | None = [cwd, *sys.path[1:]]
    spec: ModuleSpec | None = None
    so_far = ""
    for part in name.split("."):
        so_far = f"{so_far}.{part}" if so_far else part
        spec = _find(so_far, path)
        if spec is None:
            return f"no module {printable(so_far, 200)} in {printable(cwd, 200)} or in the installed packages"
        path = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if path is None and so_far != name:
            return f"{printable(so_far, 200)} is a module, not a package"
    if path is not None and _find(f"{name}.__main__", path) is None:
        return "is a package without a __main__.py"
    return ""


def _find(name: str, path: list[str] | None) -> ModuleSpec | None:
    found = PathFinder.find_spec(name, path)
    if found is not None:
        return found
    # Built-in modules, and the finders that editable installations register in the process.
    for finder in sys.meta_path:
        if finder is PathFinder or not hasattr(finder, "find_spec"):
            continue
        try:
            found = finder.find_spec(name, None if "." not in name else path)
        except Exception:
            continue
        if found is not None:
            return found
    return None


_COMPILE_LIMIT = 1 << 20
_LIST_LIMIT = 2_000
# Deny known interpreters only, since Python scripts may also name uv, pypy or a wrapper.
_NOT_PYTHON = frozenset(
    ("sh", "bash", "dash", "zsh", "ksh", "fish", "perl", "ruby", "node", "Rscript", "lua")
)


def check_script(job: JobSpec, cwd: str | os.PathLike[str]) -> list[str]:
    """Return the reasons why ``job.script`` cannot run from ``cwd``, one line each; empty if none is found."""
    if reads_script_from_stdin(job):
        problem = _check_stdin(job)
    elif job.module:
        problem = check_module(job.script, os.fspath(cwd))
    elif job.no_python:
        problem = check_command(
            job.script, os.fspath(cwd), job.env.get("PATH", os.environ.get("PATH", os.defpath))
        )
    else:
        problem = _check_file(os.path.join(cwd, job.script), local=job.on == "local")
    return [f"{printable(job.script, 200)}: {problem}"] if problem else []


def reads_script_from_stdin(job: JobSpec) -> bool:
    """Return whether the script is ``-``: Python reads it from standard input, as ``python -`` does."""
    return job.script == "-" and not job.module and not job.no_python


def _check_stdin(job: JobSpec) -> str:
    """Check that one process can read its script from standard input."""
    if job.on == "local" and job.nnodes == 1 and job.nproc_per_node == 1:
        return ""
    return "standard input can be the script of a single local process only: --nnodes 1 --nproc-per-node 1"


def require_script(job: JobSpec, cwd: str | os.PathLike[str]) -> None:
    """Check ``job.script``.

    Raises:
        UsageError: It cannot run from ``cwd``.
    """
    problems = check_script(job, cwd)
    if problems:
        raise UsageError(
            "\n  ".join(["cannot run the script:", *problems]),
            fix="ls, for the names here; -m runs a module, --no-python a program",
        )


def _check_file(path: str, *, local: bool) -> str:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if re.fullmatch(r"python[0-9.]*", os.path.basename(path)):
            return "torchnet starts Python itself; remove this argument"
        return f"no such file{_near(path)}"
    except OSError as error:
        return f"cannot access it ({error.strerror})"
    if stat.S_ISDIR(mode):
        if os.path.isfile(os.path.join(path, "__main__.py")):
            return ""
        return "is a directory without a __main__.py; give the path of a script in it"
    if not stat.S_ISREG(mode):
        return "is not a regular file, so not every rank can read it"
    try:
        with open(path, "rb") as file:
            source = file.read(_COMPILE_LIMIT + 1)
    except OSError as error:
        return f"cannot read it ({error.strerror})"
    return ("" if local else _unreadable_for_workers(path)) or _check_source(path, source)


def _near(path: str) -> str:
    try:
        with os.scandir(os.path.dirname(path) or ".") as entries:
            names = [entry.name for entry in itertools.islice(entries, _LIST_LIMIT)]
    except OSError:
        return ""
    near = difflib.get_close_matches(os.path.basename(path), names, n=1)
    return f"; did you mean {printable(near[0], 200)}?" if near else ""


def _unreadable_for_workers(path: str) -> str:
    """Check that the mode bits allow reading: scripts in pods run without capabilities, even if root launches them."""
    if os.geteuid() != 0:
        return ""
    real = os.path.realpath(path)
    parents = [real]
    while parents[-1] != "/":
        parents.append(os.path.dirname(parents[-1]))
    for place in parents:
        permission = stat.S_IROTH if place == real else stat.S_IXOTH
        if not _allows(os.stat(place), permission):
            where = "" if place == real else f" of {printable(place, 200)}"
            return f"scripts run without root's capabilities; the mode{where} denies them access; use chmod or copy it"
    return ""


def _allows(status: os.stat_result, permission: int) -> bool:
    """Return whether the mode bits alone grant this process access.

    Args:
        permission: The permission, as one of the bits for others (S_IROTH, S_IXOTH).
    """
    if status.st_uid == os.geteuid():
        permission <<= 6
    elif status.st_gid in (os.getegid(), *os.getgroups()):
        permission <<= 3
    return bool(status.st_mode & permission)


def _check_source(path: str, source: bytes) -> str:
    direct = "--no-python runs it directly"
    if path.endswith(".pyc") or _is_archive(path):
        return ""
    if b"\0" in source:
        return f"is a binary, not Python; {direct}"
    others = {os.path.basename(word) for word in interpreter(source)[:2]} & _NOT_PYTHON
    if others:
        return f"is a script for {others.pop()}, by its first line, not for Python; {direct}"
    if len(source) > _COMPILE_LIMIT:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f" (line {error.lineno}: {printable(error.msg, 120)})" if error.lineno else ""
        return f"is not valid Python{place}; if it is a program in another language, {direct}"
    except (ValueError, RecursionError, MemoryError, OverflowError):
        pass  # a limit of this Python's compiler; the worker's may differ
    return ""


def _is_archive(path: str) -> bool:
    """Return whether ``path`` is a zip file with a ``__main__.py``, which Python can run."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return "__main__.py" in archive.namelist()
    # RuntimeError: zipfile raises its subclass NotImplementedError for a newer version of the format.
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        return False
