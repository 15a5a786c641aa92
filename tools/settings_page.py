"""Writes docs/settings.md from the table of settings.

uv run tools/settings_page.py
"""

from __future__ import annotations

from pathlib import Path

from torchnet.config.setting import GROUPS, Field
from torchnet.config.settings import FIELDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
HEAD = """\
# Settings

Written by `uv run tools/settings_page.py` from the table that the command line reads.

Each setting of a job can be a flag, an environment variable, or a key in a file: a job file (`--config`),
`torchnet.toml`, or `[tool.torchnet]` in `pyproject.toml`. [launch.md](launch.md#settings) has the order of precedence
and an example. A key with a dot is in a table: `network.rate` is `rate` under `[network]`. In a file, keys can use `-`
instead of `_`.
"""


def text() -> str:
    """Return the page: a table for each group."""
    parts = [HEAD]
    for group in GROUPS:
        rows = "".join(map(_row, (field for field in FIELDS if field.group == group)))
        head = "| flag | variable | key | default | meaning |\n|---|---|---|---|---|\n"
        parts.append(f"\n## {group}\n\n{head}{rows}")
    return "".join(parts)


def _row(field: Field) -> str:
    flag = f"{field.flag} {field.key}={field.metavar}" if field.keyed else field.flag
    flags = ", ".join(f"`{name}`" for name in (field.short, flag) if name)
    variable = f"`{field.env}`" if field.env else ""
    cells = (flags, variable, f"`{field.path}`", field.default, field.help)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
