"""From what people typed to a `JobSpec`: layers merged, paths anchored, everything checked at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from torchnet.spec.fields import BY_PATH, FIELDS
from torchnet.spec.files import from_job_file, from_project
from torchnet.spec.layers import DEFAULT, Layer, Origin, Value, from_environment, from_flags, merge
from torchnet.spec.model import STDOUT, JobSpec
from torchnet.spec.problems import SpecError, from_validation
from torchnet.spec.values import parse_switch


@dataclass(frozen=True)
class Resolved:
    """A checked job, the origin of every field of it by path, and warnings of one line each."""

    job: JobSpec
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...] = ()


def resolve(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: str | os.PathLike[str] = ".",
    config: str | None = None,
) -> Resolved:
    """Merge flags over ``TORCHNET_*`` over the job file over the project's file over the defaults.

    ``flags`` maps field paths (``network.rate``) to what was typed. Reads the TOML files and nothing else of
    the machine. Raises `torchnet.spec.problems.SpecError` with every problem of every layer.
    """
    here = Path(os.path.abspath(cwd))
    layers = [from_flags(flags), from_environment(environ)]
    if config is not None:
        layers.append(from_job_file(config, here))
    layers.append(from_project(here))
    _settle_standalone(layers)
    merged = merge(layers)
    origins = {path: value.origin for path, value in merged.items()}
    problems = [problem for layer in layers for problem in layer.problems]
    try:
        job = JobSpec.model_validate(_tree(merged))
    except ValidationError as error:
        raise SpecError(problems + from_validation(error, origins)) from None
    if problems:
        raise SpecError(problems)
    for field in FIELDS:
        origins.setdefault(field.path, Origin(DEFAULT, "default"))
    warnings = tuple(warning for layer in layers for warning in layer.warnings)
    return Resolved(job, origins, warnings)


def _settle_standalone(layers: list[Layer]) -> None:
    """``--standalone`` over a file's ``nnodes``, and the reverse: the higher layer wins."""
    for place, layer in enumerate(layers):
        lower = layers[place + 1 :]
        if "nnodes" in layer.values and "standalone" not in layer.values:
            for other in lower:
                other.values.pop("standalone", None)
            return
        if "standalone" in layer.values:
            value = layer.values["standalone"]
            try:
                alone = parse_switch(value.raw)
            except ValueError:
                return
            if alone:
                for other in lower:
                    other.values.pop("nnodes", None)
                layer.values.setdefault("nnodes", Value(1, value.origin))
            return


def _tree(merged: Mapping[str, Value]) -> dict[str, Any]:
    """The nested mapping that the model reads."""
    tree: dict[str, Any] = {}
    for path, value in merged.items():
        *groups, name = path.split(".", 1)
        place = tree.setdefault(groups[0], {}) if groups else tree
        if isinstance(place, dict):
            place[name] = _anchored(path, value, merged)
    return tree


def _anchored(path: str, value: Value, merged: Mapping[str, Value]) -> Any:
    """A path in a file is relative to the file; modules and bare commands are no paths."""
    if not value.base or not isinstance(value.raw, str) or not value.raw:
        return value.raw
    if path == "script":
        if _is_on(merged, "module") or (_is_on(merged, "no_python") and os.sep not in value.raw):
            return value.raw
    elif path not in BY_PATH or not BY_PATH[path].is_path or value.raw == STDOUT:
        return value.raw
    return os.path.join(value.base, value.raw)


def _is_on(merged: Mapping[str, Value], path: str) -> bool:
    try:
        return path in merged and parse_switch(merged[path].raw)
    except ValueError:
        return False
