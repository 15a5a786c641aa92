"""The documents for people, and what can be read from them: commands, words in quotes, links and tables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tools.readme import blocks

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
)
DOCUMENTS = (*PAGES, "CHANGELOG.md")
BOOTSTRAP = "python3 -m pip install -qq --target .uv uv && .uv/bin/uv run "


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def shell_lines(page: str) -> list[list[str]]:
    """The words of every command of a page, without the installation of uv and without comments.

    A pipeline counts by its first command; assignments before a command are left out.
    """
    joined = "\n".join(blocks(page)).replace("\\\n", "")
    found = []
    for line in joined.splitlines():
        words = shlex.split(line.strip().removeprefix(BOOTSTRAP), comments=True)
        words = words[: words.index("|")] if "|" in words else words
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            found.append(words)
    return found


def without_blocks(page: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page, flags=re.DOTALL | re.MULTILINE)


def quoted(page: str) -> list[str]:
    """What stands in backquotes outside of blocks."""
    return re.findall(r"`([^`\n]+)`", without_blocks(page))


def links(page: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_blocks(page))


def anchors(page: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first column has this heading, without the two lines at its head."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found
