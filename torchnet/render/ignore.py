"""``.gitignore`` and ``.torchnetignore``: the one door to pathspec, which knows git's patterns.

As git reads them: the file nearest to a path decides, in a file the last pattern that fits, and what lies in a folder
that is left out cannot be brought back. In one folder ``.torchnetignore`` goes before ``.gitignore``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

NAMES = (".torchnetignore", ".gitignore")
_LIMIT = 1 << 20


@dataclass(frozen=True)
class Rules:
    """The patterns of one ignore file, for what lies below ``folder``: (leaves out, expression), the last one first."""

    folder: str
    patterns: tuple[tuple[bool, re.Pattern[str]], ...]

    def decides(self, path: str, *, is_folder: bool) -> bool | None:
        """True: left out; False: kept; None: it says nothing of ``path``."""
        inner = os.path.relpath(path, self.folder) + ("/" if is_folder else "")
        return next((leaves for leaves, pattern in self.patterns if pattern.search(inner)), None)


def rules_in(folder: str) -> list[Rules]:
    """The ignore files that stand in ``folder`` itself, the stronger first."""
    found = []
    for name in NAMES:
        lines = _lines(os.path.join(folder, name))
        if lines:
            found.append(Rules(folder, _compile(lines)))
    return found


def rules_above(folder: str) -> list[Rules]:
    """Those of the folders above, up to the one that holds ``.git``, nearest first; none outside of a checkout."""
    found: list[Rules] = []
    place = Path(folder)
    if (place / ".git").exists():
        return _excluded(place)
    for parent in place.parents:
        found += rules_in(str(parent))
        if (parent / ".git").exists():
            return found + _excluded(parent)
    return []


def ignored(rules: list[Rules], path: str, *, is_folder: bool) -> bool:
    """Whether ``path`` is left out by ``rules``, the strongest first."""
    for one in rules:
        answer = one.decides(path, is_folder=is_folder)
        if answer is not None:
            return answer
    return False


def _excluded(checkout: Path) -> list[Rules]:
    lines = _lines(str(checkout / ".git" / "info" / "exclude"))
    return [Rules(str(checkout), _compile(lines))] if lines else []


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
