"""Pins every version that `uv run` may choose: rewrites `constraint-dependencies` in pyproject.toml.

    uv run tools/constraints.py

`uv pip compile --universal` resolves all extras and groups for every supported Python and system at once.
The pins live in pyproject.toml since `uv run` obeys no other list without a lock file (UV_CONSTRAINT is for
`uv pip` alone), and a lock file would name the registry of whoever wrote it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
BEGIN = "# Pins, written by `uv run tools/constraints.py`.\nconstraint-dependencies = [\n"
END = "]\n# End of the pins.\n"
BLOCK = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)


def compiled(text: str) -> list[str]:
    """The newest versions that fit ``text``, a pyproject without pins: requirements with markers."""
    section = text.partition("[dependency-groups]")[2].partition("\n[")[0]
    groups = re.findall(r"^([a-z]+) = \[", section, re.MULTILINE)
    command = ["uv", "pip", "compile", "--universal", "--no-header", "--no-annotate", "--all-extras"]
    command += [f"--group=pyproject.toml:{group}" for group in groups]
    command += ["--python-version=3.10", "--no-python-downloads", "pyproject.toml"]  # 3.10: the oldest
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pyproject.toml").write_text(text)
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return [shorter(line) for line in done.stdout.splitlines() if line]


def shorter(pin: str) -> str:
    """``pin`` with what its marker says about Pythons alone: a pin of a package that a system lacks is idle.

    A marker that cannot be cut so, since a Python stands under an `or`, stays as it is.
    """
    requirement, _, marker = pin.partition(" ; ")
    clause = r"python_full_version [<>=!]+ '[^']+'"
    pythons = re.match(rf"{clause}(?: and {clause})*", marker)
    rest = marker[pythons.end() :] if pythons else marker
    flat = rest
    while "(" in flat:
        flat = re.sub(r"\([^()]*\)", "…", flat)
    if "python_full_version" in rest or (pythons and " or " in flat):
        return pin
    return f"{requirement} ; {pythons[0]}" if pythons else requirement


def main() -> None:
    text = PYPROJECT.read_text()
    if len(BLOCK.findall(text)) != 1:
        sys.exit(f"{PYPROJECT.name}: no block of pins; put this back under [tool.uv]:\n{BEGIN}{END}")
    pins = compiled(BLOCK.sub("", text))
    lines = "".join(f'    "{pin.replace(chr(34), chr(39))}",\n' for pin in pins)
    PYPROJECT.write_text(BLOCK.sub(lambda _: BEGIN + lines + END, text))
    print(f"{len(pins)} pins in {PYPROJECT.name}")


if __name__ == "__main__":
    main()
