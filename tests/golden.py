"""Golden files: the only tests that hold the exact wording of what people read.

A golden file holds one area's messages, one screen or one help page. Every other test asserts kinds, names, numbers and
exit codes, so that a reworded sentence changes one file.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

FILES = Path(__file__).resolve().parent / "golden"
UPDATE = "TESTS_OF_TORCHNET_UPDATE_GOLDEN"  # set to 1: write the files instead of comparing them


def check(name: str, text: str) -> None:
    """Compare ``text`` with tests/golden/NAME.

    Raises:
        AssertionError: they differ, or the file does not exist; with the difference and the command that updates it.
    """
    path = FILES / name
    expected = path.read_text(encoding="utf-8") if path.exists() else ""
    text = text.rstrip("\n") + "\n"
    if text == expected:
        return
    if os.environ.get(UPDATE):
        FILES.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    difference = "".join(
        difflib.unified_diff(expected.splitlines(True), text.splitlines(True), f"golden/{name}", "now")
    )
    raise AssertionError(
        f"the wording changed. If it should: {UPDATE}=1 uv run pytest, and review the diff.\n{difference}"
    )
