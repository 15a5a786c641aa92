"""Layers of values: flags over environment over job file over project file. Each value keeps its origin."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torchnet.names import ENV_PREFIX
from torchnet.spec.fields import BY_PATH, FIELDS
from torchnet.spec.problems import Problem
from torchnet.spec.words import parse_variables, quote

FLAG, ENVIRONMENT, DEFAULT = "flag", "environment", "default"
JOB_FILE, PROJECT_FILE, ENV_FILE = "job file", "project file", "env file"
COMMAND_LINE = "the command line"


@dataclass(frozen=True)
class Origin:
    """Where a value came from: the layer, and the place as a person finds it again (``TORCHNET_RATE``)."""

    layer: str
    where: str

    def __str__(self) -> str:
        return self.where


@dataclass(frozen=True)
class Value:
    """A value as it was written. ``base`` is the directory that a path in it is relative to, "" for cwd."""

    raw: Any
    origin: Origin
    base: str = ""


@dataclass
class Layer:
    """The values of one source by field path (``env.NAME`` for each variable), and what was wrong with it."""

    name: str
    values: dict[str, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def from_flags(flags: Mapping[str, object]) -> Layer:
    """What the command line said, by field path.

    A script brings its arguments along, even none: those in a file belong to the file's script.
    """
    layer = Layer(FLAG)
    if "script" in flags:
        layer.values["args"] = Value((), Origin(FLAG, COMMAND_LINE))
    for path, raw in flags.items():
        if path == "env":
            _pairs(layer, raw)
        else:
            where = BY_PATH[path].flag or COMMAND_LINE
            layer.values[path] = Value(raw, Origin(FLAG, where))
    return layer


def _pairs(layer: Layer, raw: object) -> None:
    valid = BY_PATH["env"].valid
    for pair in raw if isinstance(raw, (list, tuple)) else (raw,):
        name, equals, text = str(pair).partition("=")
        if not equals:
            layer.problems.append(Problem("env", f"{quote(pair)} has no =", "--env", valid))
        else:
            put_variable(layer, name, text, "--env")


def put_variable(layer: Layer, name: str, raw: object, where: str) -> None:
    """A variable for the script; a wrong name or value becomes a problem of its own."""
    try:
        parse_variables({name: raw})
    except ValueError as error:
        layer.problems.append(Problem("env", str(error), where, BY_PATH["env"].valid))
    else:
        layer.values[f"env.{name}"] = Value(raw, Origin(layer.name, where))


def from_environment(environ: Mapping[str, str]) -> Layer:
    """The ``TORCHNET_*`` variables; an empty one counts as unset, as in ``VAR= torchnet …``."""
    layer = Layer(ENVIRONMENT)
    known = {one.env: one.path for one in FIELDS if one.env}
    suffixes = [variable.removeprefix(ENV_PREFIX) for variable in known]
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or not environ[name]:
            continue
        if name in known:
            layer.values[known[name]] = Value(environ[name], Origin(ENVIRONMENT, name))
            continue
        near = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), suffixes, n=1, cutoff=0.8)
        if near:
            # Not an error: other parts of torchnet have variables of this prefix too.
            hint = f"did you mean {ENV_PREFIX}{near[0]}?"
            layer.warnings.append(f"the environment variable {quote(name)} is not read; {hint}")
    return layer


def merge(layers: Sequence[Layer]) -> dict[str, Value]:
    """For each field (and each variable of ``env``) the value of the first layer that has one."""
    merged: dict[str, Value] = {}
    for layer in layers:
        for path, value in layer.values.items():
            merged.setdefault(path, value)
    return merged
