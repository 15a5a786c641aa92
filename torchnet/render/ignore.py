"""``.gitignore`` and ``.torchnetignore``: the one door to pathspec, which knows git's patterns.

As git reads them: the file nearest to a path decides, in a file the last pattern that fits, and what lies in a folder
that is left out cannot be brought back. In one folder ``.torchnetignore`` goes before ``.gitignore``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = (".torchnetignore", ".gitignore")
_LIMIT = 1 << 20


@dataclass(frozen=True)
class Rules:
    """The patterns of one ignore file, for what lies below ``folder``."""

    folder: str
    spec: Any

    def decides(self, path: str, *, is_folder: bool) -> bool | None:
        """True: left out; False: kept; None: it says nothing of ``path``."""
        inner = os.path.relpath(path, self.folder) + ("/" if is_folder else "")
        result: bool | None = self.spec.check_file(inner).include
        return result


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


def _compile(lines: list[str]) -> Any:
    from pathspec import GitIgnoreSpec

    kept = []
    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue  # git takes a pattern that it cannot read for one that fits nothing
        kept.append(line)
    return GitIgnoreSpec.from_lines(kept)
