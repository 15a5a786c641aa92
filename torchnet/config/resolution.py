"""Resolve settings to a `JobSpec`: merge the layers, anchor paths, report all problems at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from torchnet.config import sources
from torchnet.config.job_spec import LOOPBACK, STDOUT, JobSpec, split_networks
from torchnet.config.kubernetes import Kubernetes
from torchnet.config.parsing import parse_switch
from torchnet.config.settings import BY_PATH, FIELDS, PLACES
from torchnet.config.sources import (
    DEFAULT,
    ENV_FILE,
    FLAG,
    JOB_FILE,
    NOTHING_ELSE,
    PROJECT_FILE,
    Layer,
    Origin,
    Value,
    from_environment,
    from_flags,
    from_job_file,
    from_project,
    merge,
)
from torchnet.config.validation_errors import FieldProblem, SpecError, from_validation
from torchnet.network.host_networks import is_host_network
from torchnet.text import printable


@dataclass(frozen=True)
class Resolved:
    """A validated job, the origin of each field by path, and warnings of one line each."""

    job: JobSpec
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...] = ()


def resolve(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    cwd: str | os.PathLike[str] = ".",
    config: str | None = None,
    unread: Collection[str] = (),
    shown: Mapping[str, str] = NOTHING_ELSE,
    defaults: Mapping[str, object] = NOTHING_ELSE,
) -> Resolved:
    """Resolve a job. Precedence: flags, ``TORCHNET_*`` variables, job file, project file, defaults.

    Reads the TOML files and the files of ``--env-file``, and nothing else on the machine. A flag that does not apply
    where the job runs (locally or on Kubernetes) is an error; such a setting in a file or variable is ignored.

    Args:
        flags: Typed values by field path (``network.rate``), and by table for ``--tune`` (``tune``).
        environ: Environment variables.
        cwd: Directory for relative paths and for the search for the project file.
        config: Path of the job file, relative to ``cwd``.
        unread: Field paths that files, the environment and ``--tune`` cannot set. A command whose script is torchnet's
            own, such as the benchmark, must not run the script of a file.
        shown: By field path, the flag that was typed instead of the field's own (torchrun's); shown as the origin.
        defaults: By field path, other defaults than those of `JobSpec`.

    Raises:
        torchnet.config.validation_errors.SpecError: Holds every problem of every layer.
    """
    here = Path(os.path.abspath(cwd))
    layers = [from_flags(flags, unread, shown), from_environment(environ)]
    if config is not None:
        layers.append(from_job_file(config, here))
    layers.append(from_project(here))
    for layer in layers[1:]:
        for path in unread:
            layer.values.pop(path, None)
    _settle_standalone(layers)
    merged = merge(layers)
    for path, raw in defaults.items():
        merged.setdefault(path, Value(raw, Origin(DEFAULT, "default")))
    problems = [problem for layer in layers for problem in layer.problems]
    problems += _drop_inapplicable(merged) + _env_files(merged, here)
    origins = {path: value.origin for path, value in merged.items()}
    try:
        job = JobSpec.model_validate(_tree(merged))
    except ValidationError as error:
        raise SpecError(problems + _add_missing(merged, from_validation(error, origins))) from None
    if problems:
        raise SpecError(problems)
    for field in FIELDS:
        origins.setdefault(field.path, Origin(DEFAULT, "default"))
    warnings = tuple(warning for layer in layers for warning in layer.warnings)
    return Resolved(job, origins, warnings)


def resolve_kubernetes(values: Mapping[str, Value], *, about: str, fix: str) -> Kubernetes:
    """Validate settings of the table ``kubernetes`` alone, for commands that run no job.

    Args:
        values: Values by field path (``kubernetes.queue``).
        about: What the settings describe, for the error.
        fix: The next command, for the error.

    Raises:
        torchnet.config.validation_errors.SpecError: Holds every problem.
    """
    try:
        return Kubernetes.model_validate(_tree(values).get("kubernetes", {}))
    except ValidationError as error:
        origins = {path: value.origin for path, value in values.items()}
        problems = from_validation(error, origins, table="kubernetes")
        raise SpecError(problems, about=about, fix=fix) from None


def _drop_inapplicable(merged: dict[str, Value]) -> list[FieldProblem]:
    """Remove settings that do not apply where the job runs; each that was given as a flag is a problem."""
    place = merged["on"].raw if "on" in merged else PLACES[0]
    if place not in PLACES:
        return []
    found = []
    for path in [path for path in merged if path in BY_PATH and not BY_PATH[path].applies(place)]:
        value = merged.pop(path)
        if value.origin.layer == FLAG:
            what = f"has no effect with --on {place}, only with --on {BY_PATH[path].places}"
            found.append(FieldProblem(path, what, value.origin.where))
    # A file may name the networks of a cluster although this job runs locally.
    networks = merged.get("network.networks")
    in_file = networks is not None and networks.origin.layer in (JOB_FILE, PROJECT_FILE)
    if place == "local" and networks is not None and in_file and networks.raw not in (LOOPBACK, [LOOPBACK]):
        del merged["network.networks"]
    if place == "hosts" and networks is not None and in_file:
        _keep_host_networks(merged, networks)
    return found


def _keep_host_networks(merged: dict[str, Value], networks: Value) -> None:
    """Keep those of a file's networks that hosts can have: ``host:`` and ``rdma:``."""
    try:
        kept = [text for text in split_networks(networks.raw) if is_host_network(text)]
    except ValueError:
        return  # the validation says why
    if kept:
        merged["network.networks"] = replace(networks, raw=kept)
    else:
        del merged["network.networks"]


def _env_files(merged: dict[str, Value], here: Path) -> list[FieldProblem]:
    """Merge the variables of ``--env-file``. Variables that are set individually win, then the last file."""
    value = merged.get("env_file")
    names = _anchored("env_file", value, merged) if value is not None else ()
    found = []
    for name in reversed(
        [names] if isinstance(names, str) else names if isinstance(names, (list, tuple)) else ()
    ):
        variables, problems = sources.read(here / name) if isinstance(name, str) else ({}, [])
        found += [FieldProblem("env_file", f"{printable(name)}: {what}", "--env-file") for what in problems]
        for variable, (text, line) in variables.items():
            where = Origin(ENV_FILE, f"{name}:{line}")
            merged.setdefault(f"env.{variable}", Value(text, where))
    return found


def _add_missing(merged: Mapping[str, Value], problems: list[FieldProblem]) -> list[FieldProblem]:
    """Add missing Kubernetes settings, which the model checks only after every single field is valid."""
    if "on" not in merged or merged["on"].raw != "kubernetes":
        return problems
    reported = {problem.path for problem in problems}
    missing = [
        path
        for path in ("network.networks", "kubernetes.image")
        if path not in merged and path not in reported
    ]
    return problems + [FieldProblem(path, "is required", valid=BY_PATH[path].valid) for path in missing]


def _settle_standalone(layers: list[Layer]) -> None:
    """Resolve ``standalone`` against ``nnodes`` in a different layer: the higher layer wins."""
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
    """Return the values as the nested mapping that the model validates."""
    tree: dict[str, Any] = {}
    for path, value in merged.items():
        *groups, name = path.split(".", 1)
        place = tree.setdefault(groups[0], {}) if groups else tree
        if isinstance(place, dict):
            place[name] = _anchored(path, value, merged)
    return tree


def _anchored(path: str, value: Value, merged: Mapping[str, Value]) -> Any:
    """Resolve a path in a file relative to that file; module names and bare commands are not paths."""
    if value.base and path in BY_PATH and BY_PATH[path].repeat and isinstance(value.raw, (list, tuple)):
        return [_anchored(path, Value(item, value.origin, value.base), merged) for item in value.raw]
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
