"""Prints one of the README's two commands as it stands there, so that nobody keeps a second copy of it.

    python3 tools/readme.py train     # the first: a real training on two networks
    python3 tools/readme.py tests     # the second: all tests that the machine can run

Runs without anything installed, since both commands do.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
PLACES = ("train", "tests")


def blocks(text: str) -> list[str]:
    """The contents of the shell blocks of a Markdown text, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def command(name: str) -> str:
    """The command ``name``: the README's first shell blocks are the two, each of one line."""
    found = blocks(README.read_text(encoding="utf-8"))[PLACES.index(name)].strip()
    if "\n" in found:
        raise ValueError(f"the README's command for {name} has more than one line: {found!r}")
    return found


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PLACES:
        sys.exit(f"usage: python3 tools/readme.py {'|'.join(PLACES)}")
    print(command(sys.argv[1]))
