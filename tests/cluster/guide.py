"""The guide in manifests/ as a script: its blocks of commands, each with the output that it shows.

Blocks of kind `text` stand for what the block of commands before them prints: line by line, where `…` in a line is
any text, and a line that is only `…` any number of lines. Runs of blanks count as one, since tables are as wide as
their entries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.cluster.addons import MANIFESTS

BLOCK = re.compile(r"^```(bash(?: \w+)?|text)\n((?:.*\n)*?)^```$", re.MULTILINE)
ANY = "…"


@dataclass(frozen=True)
class Step:
    """Commands, and what they print, if the guide shows it; ``kind`` is "", choice, node or cilium."""

    kind: str
    commands: str
    output: str | None
    heading: str

    @property
    def name(self) -> str:
        """For people: the section and the first words."""
        return f"{self.heading}: {' '.join(self.commands.split()[:6])}"


def steps() -> list[Step]:
    text = (MANIFESTS / "multus-guide.md").read_text(encoding="utf-8")
    found: list[Step] = []
    for match in BLOCK.finditer(text):
        kind, body = match.groups()
        if kind == "text":
            last = found.pop()
            found.append(Step(last.kind, last.commands, body, last.heading))
        else:
            headings = re.findall(r"^#+ (.*)$", text[: match.start()], re.MULTILINE)
            found.append(Step(kind.removeprefix("bash").strip(), body, None, headings[-1]))
    return found


def shown(output: str, pattern: str) -> bool:
    """Whether ``output`` is what ``pattern`` shows."""
    form = []
    for line in pattern.splitlines():
        words = " ".join(line.split())
        if words == ANY:
            form.append(r"(?:.*\n)*?")
        else:
            form.append(".*".join(re.escape(part) for part in words.split(ANY)) + r"\n")
    lines = "".join(" ".join(line.split()) + "\n" for line in output.splitlines())
    return re.fullmatch("".join(form), lines) is not None
