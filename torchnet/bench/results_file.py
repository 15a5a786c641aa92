"""Read the results of an earlier run from a file."""

from __future__ import annotations

import json

from torchnet.bench.results import SCHEMA, Results, ValidationError, load
from torchnet.text import printable
from torchnet.units import counted


def read(text: str, name: str) -> Results:
    """Return the results in a file's text; ``name`` is the file's name.

    Raises:
        ValueError: They cannot be read, or have another schema version.
    """
    name = printable(name, 200)
    advice = f"write results with: torchnet bench --json {name}"
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}; {advice}") from None
    version = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(version, str):
        raise ValueError(f"{name} does not contain benchmark results; {advice}")
    if version != SCHEMA:
        if version.startswith("torchnet.bench/"):
            advice = "use the torchnet that wrote it"
        raise ValueError(
            f"{name} has the schema {version[:80]!r}, but this torchnet reads {SCHEMA!r}; {advice}"
        )
    try:
        return load(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        what = f"{printable(field, 200)}: {printable(first['msg'], 200)}"
        raise ValueError(
            f"{name} is not valid {SCHEMA!r}: {what} ({counted(error.error_count(), 'error')})"
        ) from None
