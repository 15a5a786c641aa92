"""Read the results of an earlier run from a file."""

from __future__ import annotations

import json

from torchnet.bench.results import SCHEMA, Results, ValidationError, load
from torchnet.text import printable


def read(text: str, name: str) -> Results:
    """Return the results in a file's text; ``name`` is the file's name.

    Raises:
        ValueError: They cannot be read, or have another schema version.
    """
    name = printable(name, 200)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}; `torchnet bench --json {name}` writes it") from None
    version = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(version, str):
        raise ValueError(f"{name} has no results of a benchmark: `torchnet bench --json {name}` writes them")
    if version != SCHEMA:
        newer = version.startswith("torchnet.bench/")
        advice = (
            "use the torchnet that wrote it" if newer else f"`torchnet bench --json {name}` writes results"
        )
        raise ValueError(
            f"{name} has the schema {version[:80]!r}, and this torchnet reads {SCHEMA!r}: {advice}"
        )
    try:
        return load(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        what = f"{printable(field, 200)}: {printable(first['msg'], 200)}"
        raise ValueError(
            f"{name} does not hold what {SCHEMA!r} must: {what} ({error.error_count()} in all)"
        ) from None
