"""Dry-run output: a resolved job as YAML or JSON, each value with its origin. Equal jobs give identical bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torchnet.config.job_spec import JobSpec
from torchnet.config.parsing import format_duration, format_rate
from torchnet.config.settings import FIELDS, Field
from torchnet.config.sources import Origin
from torchnet.yaml_io import entry

_DURATIONS = (
    *("run.grace", "run.link_grace", "run.stall_timeout", "run.start_timeout", "run.timeout"),
    "kubernetes.ttl",
)


def as_json(job: JobSpec, origins: Mapping[str, Origin]) -> str:
    """Return ``{"job": {…}, "origins": {path: {"layer": …, "where": …}}}`` with a final newline."""
    document = {
        "job": _plain(job),
        "origins": {path: {"layer": one.layer, "where": one.where} for path, one in _sorted(origins)},
    }
    return json.dumps(document, indent=2) + "\n"


def as_yaml(job: JobSpec, origins: Mapping[str, Origin]) -> str:
    """Return the job as YAML, with the origin of each value as a comment."""
    return "".join(_entries(job, origins))


def _sorted(origins: Mapping[str, Origin]) -> list[tuple[str, Origin]]:
    order = {field.path: place for place, field in enumerate(FIELDS)}
    return sorted(origins.items(), key=lambda item: (order.get(item[0].split(".")[0], len(order)), item[0]))


def value_at(job: JobSpec, field: Field) -> Any:
    """Return the value of ``field`` in ``job``."""
    value: Any = job
    for name in field.attribute:
        value = getattr(value, name)
    return value


def shown(job: JobSpec) -> list[Field]:
    """Return the fields that apply where ``job`` runs."""
    return [field for field in FIELDS if field.applies(job.on)]


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


def _entries(job: JobSpec, origins: Mapping[str, Origin]) -> Iterator[str]:
    table = ""
    for field in shown(job):
        group, dot, name = field.path.rpartition(".")
        if dot and group != table:
            table = group
            yield f"{group}:\n"
        value = value_at(job, field)
        if isinstance(value, dict) and value and not dot:
            yield f"{name}:\n"
            for key in sorted(value):
                yield entry(key, value[key], _where(origins.get(f"{name}.{key}")), "  ")
        else:
            comment = ", ".join(filter(None, (_meaning(field.path, value), _where(origins.get(field.path)))))
            yield entry(name, value, comment, "  " if dot else "")


def _where(origin: Origin | None) -> str:
    return origin.where if origin else "default"


def _meaning(path: str, value: Any) -> str:
    if path == "network.rate" and value is not None:
        return format_rate(value)
    if path in _DURATIONS and value:
        return format_duration(value)
    return ""
