"""The code that pods receive: the script's folder and the agent, each as a zip archive with reproducible bytes.

The folder is the one that holds the script, with everything below it; for a module (``-m``) and a program
(``--no-python``) it is the working directory. ``.gitignore`` and ``.torchnetignore`` follow git's rules: the file
nearest to a path decides, the last matching pattern of a file wins, and nothing inside an excluded folder can be
included again. In the same folder ``.torchnetignore`` takes precedence. A script that is not part of a project is
bundled alone (`torchnet.k8s.objects.single_script`). With ``--code image`` and ``--code pvc:…`` only the agent is.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torchnet.config.job_spec import JobSpec
from torchnet.config.k8s_values import parse_code
from torchnet.errors import UsageError
from torchnet.k8s.objects.agent_zip import ArchiveEntry, agent_zip, zipped
from torchnet.k8s.objects.builders import MAP_LIMIT
from torchnet.k8s.objects.secret_filter import REASON as PRIVATE
from torchnet.k8s.objects.secret_filter import File, by_content, is_private, of_the_launch
from torchnet.k8s.objects.single_script import is_alone
from torchnet.text import printable

NAMES = (".torchnetignore", ".gitignore")
_LIMIT = 1 << 20


@dataclass(frozen=True)
class IgnoreRules:
    """The patterns of one ignore file, which apply below ``folder``: (excludes, expression), the last one first."""

    folder: str
    patterns: tuple[tuple[bool, re.Pattern[str]], ...]

    def decides(self, path: str, *, is_folder: bool) -> bool | None:
        """Return True if the file excludes ``path``, False if it includes it, None if no pattern matches."""
        inner = os.path.relpath(path, self.folder) + ("/" if is_folder else "")
        return next((leaves for leaves, pattern in self.patterns if pattern.search(inner)), None)


def rules_in(folder: str) -> list[IgnoreRules]:
    """Return the rules of the ignore files in ``folder`` itself, in order of precedence."""
    found = []
    for name in NAMES:
        lines = _lines(os.path.join(folder, name))
        if lines:
            found.append(IgnoreRules(folder, _compile(lines)))
    return found


def rules_above(folder: str) -> list[IgnoreRules]:
    """Return the rules of the folders above, up to the one with ``.git``, nearest first; none outside a checkout.

    The rules of ``.git/info/exclude`` come last.
    """
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
    """Whether ``rules`` exclude ``path``; the first one with a matching pattern decides."""
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
    """Compile the lines with pathspec, but let a pattern match only an entry itself, not the entry's content.

    Excluded folders are not entered, so their content needs no pattern. In git, ``!a`` does not apply to ``a/b``, nor
    ``a/**`` to ``a``; pathspec applies them to both. If pathspec changes the form of its expressions, the replacement
    finds nothing and pathspec's own behaviour applies.
    """
    from pathspec import GitIgnoreSpec

    found = []
    for line in lines:
        try:
            patterns = GitIgnoreSpec.from_lines([line]).patterns
        except ValueError:
            continue  # to git, an invalid pattern matches nothing
        for pattern in patterns:
            if pattern.include is not None and pattern.regex is not None:
                text = pattern.regex.pattern.replace("(?P<ps_d>/)", r"/\Z")
                found.append((pattern.include, re.compile(f"{text}." if text.endswith("/") else text)))
    return tuple(reversed(found))


# Of the compressed code, in several ConfigMaps. Each of them is an object in etcd, which is no place for data sets.
CODE_LIMIT = 3 * MAP_LIMIT
# Limits before compression: code rarely compresses to a tenth, and reading a whole data set would take too long.
RAW_LIMIT, FILES_LIMIT = 10 * CODE_LIMIT, 20_000
_NEVER = frozenset((".git", ".hg", ".svn", "__pycache__", ".venv"))
_SHOWN = 6


@dataclass(frozen=True)
class CodeBundle:
    """The archives for the pods.

    ``script`` is the script, module or program that the agent runs. ``code_zip`` is None if the image or a volume
    contains it.
    """

    torchnet_zip: bytes
    code_zip: bytes | None
    script: str
    left_out: tuple[str, ...] = ()
    """Files that were not bundled, each with its reason; without those that ignore files exclude."""


@dataclass
class _Found:
    """Files by their path in the archive: (path on this machine, size in bytes, executable)."""

    files: dict[str, tuple[str, int, bool]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.files.values())


def gather(job: JobSpec, cwd: str | os.PathLike[str], environ: Mapping[str, str]) -> CodeBundle:
    """Read the files that ``job`` needs.

    Args:
        cwd: The working directory, which relative paths are relative to.
        environ: Locates the user's key and kubeconfigs, which are never bundled.

    Raises:
        UsageError: The files do not fit into ConfigMaps; the message lists the largest ones and the alternatives.
        TorchnetError: The agent cannot be archived.
    """
    agent = agent_zip()
    if parse_code(job.kubernetes.code).kind != "configmap":
        return CodeBundle(agent, None, job.script)
    root, script = _root(job, os.path.abspath(cwd))
    kept = of_the_launch(job, os.path.abspath(cwd), environ)
    found = _script_alone(job, root, script) or _collect(root, kept)
    if found.size > RAW_LIMIT or len(found.files) > FILES_LIMIT:
        raise _too_large(root, found, f"{_size(found.size)} in {len(found.files)} files")
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
    if len(code) > CODE_LIMIT:
        raise _too_large(root, found, f"{_size(len(code))} compressed")
    return CodeBundle(agent, code, script, tuple(left_out))


def _root(job: JobSpec, cwd: str) -> tuple[str, str]:
    """Return the folder to bundle, and the script as it is called from there."""
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


def _script_alone(job: JobSpec, root: str, script: str) -> _Found | None:
    """Return the script alone if it needs nothing else of its folder; None if the folder is bundled."""
    path = os.path.join(root, script)
    if job.module or job.no_python or not os.path.isfile(path) or not is_alone(path):
        return None
    status = os.stat(path)
    found = _Found({script: (path, status.st_size, bool(status.st_mode & stat.S_IXUSR))})
    if len(os.listdir(root)) > 1:
        found.left_out.append(
            f"the other files of {printable(root, 200)}: it is not a project (no .git or pyproject.toml), and "
            f"{printable(script, 200)} neither imports nor names them; to bundle them, create a .torchnetignore there"
        )
    return found


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
            found.left_out.append(f"{printable(name, 200)}: the name is not valid UTF-8")
            continue
        found.files[name.replace(os.sep, "/")] = (path, status.st_size, bool(status.st_mode & stat.S_IXUSR))
        if len(found.files) > FILES_LIMIT:
            break
    return found


def _walk(
    folder: str, root: str, rules: list[IgnoreRules], found: _Found, chain: tuple[str, ...]
) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield (path, path below ``root``, status) of each regular file to bundle.

    ``chain`` holds the real paths of the folders from ``root`` to ``folder``, to detect links that form a loop.
    """
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
                reason = "not a regular file"
        except OSError as error:
            reason = "broken link" if entry.is_symlink() else (error.strerror or str(error)).lower()
        if reason:
            found.left_out.append(f"{printable(name, 200)}: {reason}")


def _wrong_link(real: str, chain: tuple[str, ...], *, is_folder: bool) -> str:
    if os.path.commonpath([real, chain[0]]) != chain[0]:
        return "link to a target outside the folder"
    if is_folder and (real in chain or any(one.startswith(f"{real}{os.sep}") for one in chain)):
        return "link to a parent folder"
    return ""


def _is_private(path: str, is_folder: bool) -> bool:
    return is_private(path.replace(os.sep, "/"), is_folder=is_folder)


def _too_large(root: str, found: _Found, what: str) -> UsageError:
    largest = sorted(found.files.items(), key=lambda item: (-item[1][1], item[0]))[:_SHOWN]
    lines = [
        f"the folder {printable(root, 200)} is too large: {what}; the limit is {_size(CODE_LIMIT)} compressed, in "
        "ConfigMaps"
    ]
    lines += [f"{_size(size):>10}  {printable(name, 200)}" for name, (_, size, _) in largest]
    return UsageError(
        "\n  ".join(lines),
        fix="exclude files in a .torchnetignore, or use --code image (the script is in the image) or "
        "--code pvc:NAME/PATH (the script is on a volume)",
    )


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
