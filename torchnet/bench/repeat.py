"""A benchmark's command line as it can be run again: of results, whose ``setup.command`` is what was typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_FILES = ("--json", "--html")
_MASK = "=…"  # in place of a variable's value


class Again(NamedTuple):
    """``unset``: the variables that ``command`` lacks, as their values are not kept."""

    command: tuple[str, ...]
    unset: tuple[str, ...]


def repeatable(command: Sequence[str]) -> Again:
    """Without its variables' values, and without its files, so that these results stay for a comparison."""
    kept: list[str] = []
    unset: list[str] = []
    words = iter(command)
    for word in words:
        flag, equals, _ = word.partition("=")
        pair = [word] if equals or flag not in (*_FILES, "--env") else [word, next(words, "")]
        if flag == "--env" and pair[-1].endswith(_MASK):
            unset.append(pair[-1].removeprefix("--env=").removesuffix(_MASK))
        elif flag not in _FILES:
            kept += pair
    return Again(tuple(kept), tuple(unset))
