"""The code that pods receive: the script's folder and the agent, each as a zip with reproducible bytes.

The folder is the script's, with everything below it; for a module (``-m``) and a program (``--no-python``) it is
the working directory. ``.gitignore`` and ``.torchnetignore`` are honoured as git reads them: the file nearest to a
path decides, the last matching pattern of a file wins, and nothing inside an excluded folder can be included again;
in one folder ``.torchnetignore`` takes precedence. With ``--code image`` and ``--code pvc:…`` only the agent is
bundled.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torchnet.config.k8s_values import parse_code
from torchnet.config.model import JobSpec
from torchnet.errors import UsageError
from torchnet.k8s.objects.agent_zip import ArchiveEntry, agent_zip, zipped
from torchnet.k8s.objects.builders import MAP_LIMIT
from torchnet.k8s.objects.secret_filter import REASON as PRIVATE
from torchnet.k8s.objects.secret_filter import File, by_content, is_private, of_the_launch
from torchnet.text import printable

NAMES = (".torchnetignore", ".gitignore")
_LIMIT = 1 << 20


@dataclass(frozen=True)
class IgnoreRules:
    """The patterns of one ignore file, for what lies below ``folder``: (leaves out, expression), the last one first."""

    folder: str
    patterns: tuple[tuple[bool, re.Pattern[str]], ...]

    def decides(self, path: str, *, is_folder: bool) -> bool | None:
        """True: left out; False: kept; None: it says nothing of ``path``."""
        inner = os.path.relpath(path, self.folder) + ("/" if is_folder else "")
        return next((leaves for leaves, pattern in self.patterns if pattern.search(inner)), None)


def rules_in(folder: str) -> list[IgnoreRules]:
    """The ignore files that stand in ``folder`` itself, the stronger first."""
    found = []
    for name in NAMES:
        lines = _lines(os.path.join(folder, name))
        if lines:
            found.append(IgnoreRules(folder, _compile(lines)))
    return found


def rules_above(folder: str) -> list[IgnoreRules]:
    """Those of the folders above, up to the one that holds ``.git``, nearest first; none outside of a checkout."""
    found: list[IgnoreRules] = []
    place = Path(folder)
    if (place / ".git").exists():
        return _excluded(place)
    for parent in place.parents:
        found += rules_in(str(parent))
        if (parent / ".git").exists():
            return found + _excluded(parent)
    return []


def ignored(rules: list[IgnoreRules], path: str, *, is_folder: bool) -> bool:
    """Whether ``path`` is left out by ``rules``, the strongest first."""
    for one in rules:
        answer = one.decides(path, is_folder=is_folder)
        if answer is not None:
            return answer
    return False


def _excluded(checkout: Path) -> list[IgnoreRules]:
    lines = _lines(str(checkout / ".git" / "info" / "exclude"))
    return [IgnoreRules(str(checkout), _compile(lines))] if lines else []


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            return os.fsdecode(file.read(_LIMIT)).splitlines()
    except OSError:
        return []


def _compile(lines: list[str]) -> tuple[tuple[bool, re.Pattern[str]], ...]:
    """pathspec's expressions, made to fit an entry itself and not what lies in it.

    Folders that are left out are not entered, so what is in them needs no pattern. To git, ``!a`` says nothing of
    ``a/b``, and ``a/**`` nothing of ``a``; pathspec answers for both. Where its expressions come to look different,
    what is replaced here is not found and pathspec's answers stay.
    """
    from pathspec import GitIgnoreSpec

    found = []
    for line in lines:
        try:
            patterns = GitIgnoreSpec.from_lines([line]).patterns
        except ValueError:
            continue  # git takes a pattern that it cannot read for one that fits nothing
        for pattern in patterns:
            if pattern.include is not None and pattern.regex is not None:
                text = pattern.regex.pattern.replace("(?P<ps_d>/)", r"/\Z")
                found.append((pattern.include, re.compile(f"{text}." if text.endswith("/") else text)))
    return tuple(reversed(found))


# Before anything is compressed: text rarely shrinks to a sixteenth, and nobody waits for a data set to be read.
RAW_LIMIT, FILES_LIMIT = 16 * MAP_LIMIT, 20_000
_NEVER = frozenset((".git", ".hg", ".svn", "__pycache__", ".venv"))
_SHOWN = 6


@dataclass(frozen=True)
class CodeBundle:
    """``script`` is what the agent is told to run; ``code_zip`` is None where the script is in the pod already."""

    torchnet_zip: bytes
    code_zip: bytes | None
    script: str
    left_out: tuple[str, ...] = ()
    """Files that could not travel, each with its reason; not those that were asked to stay."""


@dataclass
class _Found:
    """Files by the path in the archive: (path here, size, executable)."""

    files: dict[str, tuple[str, int, bool]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.files.values())


def gather(job: JobSpec, cwd: str | os.PathLike[str], environ: Mapping[str, str]) -> CodeBundle:
    """Read what ``job`` needs from ``cwd``; ``environ`` says where its user's keys are.

    Raises:
        UsageError: it is more than a ConfigMap holds; with the largest files' sizes and the ways out.
    """
    agent = agent_zip()
    if parse_code(job.kubernetes.code).kind != "configmap":
        return CodeBundle(agent, None, job.script)
    root, script = _root(job, os.path.abspath(cwd))
    found = _collect(root, of_the_launch(job, os.path.abspath(cwd), environ))
    if found.size > RAW_LIMIT or len(found.files) > FILES_LIMIT:
        raise _too_large(root, found, f"has {_size(found.size)} in {len(found.files)} files")
    entries, left_out = [], list(found.left_out)
    for name, (path, _, executable) in found.files.items():
        try:
            with open(path, "rb") as file:
                data = file.read(RAW_LIMIT + 1)
        except OSError as error:
            left_out.append(f"{printable(name, 200)}: {(error.strerror or str(error)).lower()}")
            continue
        if reason := by_content(data):
            left_out.append(f"{printable(name, 200)}: {reason}")
        else:
            entries.append(ArchiveEntry(name, data, executable))
    code = zipped(entries)
    if len(code) + len(agent) > MAP_LIMIT:
        raise _too_large(root, found, f"has {_size(len(code))} when it is packed")
    return CodeBundle(agent, code, script, tuple(left_out))


def _root(job: JobSpec, cwd: str) -> tuple[str, str]:
    """The folder that travels, and the script as it is called from there."""
    if job.module:
        return cwd, job.script
    path = os.path.join(cwd, job.script)
    if job.no_python:
        inner = os.path.relpath(path, cwd)
        is_here = os.sep in job.script and not inner.startswith("..")
        return cwd, f"./{inner}" if is_here else job.script
    if os.path.isdir(path):
        return os.path.abspath(path), "."
    return os.path.abspath(os.path.dirname(path)), os.path.basename(path)


def _collect(root: str, kept: Mapping[File, str]) -> _Found:
    found = _Found()
    for path, name, status in _walk(root, root, rules_above(root), found, (os.path.realpath(root),)):
        reason = kept.get((status.st_dev, status.st_ino))
        if reason is not None:
            found.left_out += [f"{printable(name, 200)}: {reason}"] if reason else []
            continue
        try:
            name.encode()
        except UnicodeEncodeError:
            found.left_out.append(f"{printable(name, 200)}: its name is no UTF-8")
            continue
        found.files[name.replace(os.sep, "/")] = (path, status.st_size, bool(status.st_mode & stat.S_IXUSR))
        if len(found.files) > FILES_LIMIT:
            break
    return found


def _walk(
    folder: str, root: str, rules: list[IgnoreRules], found: _Found, chain: tuple[str, ...]
) -> Iterator[tuple[str, str, os.stat_result]]:
    """(path, path below ``root``, status) of each regular file; ``chain`` are the real folders on the way here."""
    rules = rules_in(folder) + rules
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        found.left_out.append(
            f"{printable(os.path.relpath(folder, root), 200)}/: {(error.strerror or '').lower()}"
        )
        return
    for entry in entries:
        name = os.path.relpath(entry.path, root)
        if entry.name in _NEVER:
            continue
        reason = ""
        try:
            status = entry.stat()
            is_folder = stat.S_ISDIR(status.st_mode)
            if ignored(rules, entry.path, is_folder=is_folder and not entry.is_symlink()):
                continue
            real = os.path.realpath(entry.path) if entry.is_symlink() else ""
            if real and (reason := _wrong_link(real, chain, is_folder=is_folder)):
                pass
            elif is_folder and os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
                continue
            elif any(_is_private(one, is_folder) for one in (name, real and os.path.relpath(real, chain[0]))):
                name, reason = name + "/" * is_folder, PRIVATE
            elif is_folder:
                yield from _walk(
                    entry.path, root, rules, found, (*chain, real or os.path.realpath(entry.path))
                )
            elif stat.S_ISREG(status.st_mode):
                yield entry.path, name, status
            else:
                reason = "is no regular file"
        except OSError as error:
            reason = "leads nowhere" if entry.is_symlink() else (error.strerror or str(error)).lower()
        if reason:
            found.left_out.append(f"{printable(name, 200)}: {reason}")


def _wrong_link(real: str, chain: tuple[str, ...], *, is_folder: bool) -> str:
    if os.path.commonpath([real, chain[0]]) != chain[0]:
        return "leads out of the folder"
    if is_folder and (real in chain or any(one.startswith(f"{real}{os.sep}") for one in chain)):
        return "leads to a folder that it is in"
    return ""


def _is_private(path: str, is_folder: bool) -> bool:
    return is_private(path.replace(os.sep, "/"), is_folder=is_folder)


def _too_large(root: str, found: _Found, what: str) -> UsageError:
    largest = sorted(found.files.items(), key=lambda item: (-item[1][1], item[0]))[:_SHOWN]
    lines = [
        f"the folder {printable(root, 200)} {what}, and a ConfigMap holds {_size(MAP_LIMIT)}, the agent's part of it:"
    ]
    lines += [f"{_size(size):>10}  {printable(name, 200)}" for name, (_, size, _) in largest]
    return UsageError(
        "\n  ".join(lines),
        fix="name what stays here in a .torchnetignore; or --code image (the script is in the image), or "
        "--code pvc:NAME/PATH (it is on a volume)",
    )


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
