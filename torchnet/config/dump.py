"""The dry run: a resolved job as YAML or JSON, each value with its origin. The same bytes for the same job.

The YAML is written here because each value carries its origin as a comment, which no library's dumper keeps.
The shape is flat (scalars, lists of scalars, four tables), and every string is double-quoted, so that none
can turn into a number, a boolean or a tag when it is read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torchnet.config.fields import FIELDS, Field
from torchnet.config.model import JobSpec
from torchnet.config.parsing import format_duration, format_rate
from torchnet.config.sources import Origin
from torchnet.text import printable

# Words that YAML 1.1 reads as a boolean or null when they stand bare as a key; "on" is one of our own fields.
_RESERVED = frozenset(("on", "off", "yes", "no", "y", "n", "true", "false", "null"))
_DURATIONS = ("run.grace", "run.link_grace", "run.stall_timeout", "run.start_timeout", "run.timeout")


def as_json(job: JobSpec, origins: Mapping[str, Origin]) -> str:
    """``{"job": {…}, "origins": {path: {"layer": …, "where": …}}}``, one line end at the end."""
    document = {
        "job": _plain(job),
        "origins": {path: {"layer": one.layer, "where": one.where} for path, one in _sorted(origins)},
    }
    return json.dumps(document, indent=2) + "\n"


def as_yaml(job: JobSpec, origins: Mapping[str, Origin]) -> str:
    """The job as YAML, each value followed by its origin."""
    return "".join(f"{line}\n" for line in _lines(job, origins))


def _sorted(origins: Mapping[str, Origin]) -> list[tuple[str, Origin]]:
    order = {field.path: place for place, field in enumerate(FIELDS)}
    return sorted(origins.items(), key=lambda item: (order.get(item[0].split(".")[0], len(order)), item[0]))


def value_at(job: JobSpec, field: Field) -> Any:
    """The value of ``field`` in ``job``."""
    value: Any = job
    for name in field.attribute:
        value = getattr(value, name)
    return value


def shown(job: JobSpec) -> list[Field]:
    """The fields that have a meaning where ``job`` runs."""
    return [field for field in FIELDS if field.only in ("", job.on)]


def _plain(job: JobSpec) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for field in shown(job):
        table, dot, name = field.path.rpartition(".")
        place = document.setdefault(table, {}) if dot else document
        value = value_at(job, field)
        if isinstance(value, dict):
            value = dict(sorted(value.items()))
        place[name] = list(value) if isinstance(value, tuple) else value
    return document


def _lines(job: JobSpec, origins: Mapping[str, Origin]) -> Iterator[str]:
    table = ""
    for field in shown(job):
        group, dot, name = field.path.rpartition(".")
        if dot and group != table:
            table = group
            yield f"{group}:"
        value = value_at(job, field)
        indent = "  " if dot else ""
        if isinstance(value, dict) and value and not dot:
            yield f"{name}:"
            for key in sorted(value):
                yield f"  {_key(key)}: {_scalar(value[key])}{_comment(origins.get(f'{name}.{key}'))}"
        else:
            meaning = _meaning(field.path, value)
            yield f"{indent}{_key(name)}: {_flow(value)}{_comment(origins.get(field.path), meaning)}"


def _comment(origin: Origin | None, meaning: str = "") -> str:
    where = printable(origin.where) if origin else "default"
    return f"  # {meaning}, {where}" if meaning else f"  # {where}"


def _meaning(path: str, value: Any) -> str:
    if path == "network.rate" and value is not None:
        return format_rate(value)
    if path in _DURATIONS and value:
        return format_duration(value)
    return ""


def _flow(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_scalar(key)}: {_scalar(text)}' for key, text in sorted(value.items()))}}}"
    return _scalar(value)


def _key(name: str) -> str:
    bare = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _RESERVED
    return name if bare else _scalar(name)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        # What is not printable becomes \xNN, \uNNNN or \UNNNNNNNN, which are YAML's escapes, too.
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{printable(escaped)}"'
    if isinstance(value, float):
        # YAML 1.1 takes 1e-05 for a string: its floats need a point.
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    return json.dumps(value)
