"""Sources of settings: flags, environment variables, job file and project file, in order of precedence.

Each value keeps its origin. TOML files and ``--env-file`` (NAME=VALUE lines, read as docker and kubectl do) are limited
to 1 MiB. YAML is not accepted, which avoids the risks of its aliases and object tags.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import stat
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torchnet.config.parsing import parse_variables, quote
from torchnet.config.settings import BY_PATH, FIELDS, FORMER_PATHS, TABLES
from torchnet.config.validation_errors import FieldProblem, did_you_mean
from torchnet.constants import ENV_PREFIX
from torchnet.text import printable

ENV_FILE_LIMIT = 1 << 20
NOTHING_ELSE: Mapping[str, str] = MappingProxyType({})


def read(path: Path) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """Read an env file.

    Returns:
        The value and line number of each variable, and the problems with the file, one line each.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(ENV_FILE_LIMIT + 1)
    except OSError as error:
        return {}, [(error.strerror or str(error)).lower()]
    except ValueError:
        return {}, ["has a NUL character in its name"]
    if len(data) > ENV_FILE_LIMIT:
        return {}, [f"is larger than the limit of {ENV_FILE_LIMIT} bytes"]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return {}, [f"is not UTF-8 (byte {error.start})"]
    found: dict[str, tuple[str, int]] = {}
    problems = []
    for number, name, value in _pairs(text):
        try:
            if value is None:
                raise ValueError("has no =")
            parse_variables({name: value})
        except ValueError as error:
            problems.append(f"line {number}: {error}")
        else:
            found[name] = (value, number)
    return found, problems


def _pairs(text: str) -> Iterator[tuple[int, str, str | None]]:
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.partition("=")
            yield number, name.strip().removeprefix("export ").strip(), value if equals else None


SIZE_LIMIT = 1 << 20
# tomllib takes minutes to parse a key of 100,000 parts; valid keys have very few.
_LONG_KEY = re.compile(rb"""(?:\.[ \t]*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*){64}""")
_HINTS = 20
PROJECT_NAMES = ("torchnet.toml", "pyproject.toml")


class _Unusable(Exception):
    """A file cannot be used. The text states why, and becomes a `FieldProblem` of that file."""


class _Unread(_Unusable):
    """A file could not be read, so whether it has settings for torchnet is unknown."""


def from_job_file(path: str, cwd: Path) -> Layer:
    """Read the job file of ``--config``; the layer's ``problems`` hold its errors."""
    layer = Layer(JOB_FILE)
    try:
        document = _load(cwd / path)
    except _Unusable as error:
        layer.problems.append(FieldProblem(path or '""', str(error), "--config", "the path of a TOML file"))
        return layer
    _fill(layer, document, f"{path}: ", os.path.dirname(path))
    return layer


def from_project(cwd: Path) -> Layer:
    """Read the nearest ``torchnet.toml``, or ``pyproject.toml`` with ``[tool.torchnet]``, from ``cwd`` upward.

    The search ends at a directory that contains ``.git``, or at the root of the file system.
    """
    layer = Layer(PROJECT_FILE)
    for directory in (cwd, *cwd.parents):
        for name in PROJECT_NAMES:
            path = directory / name
            if os.path.isfile(path) and _read_project(layer, path, cwd):
                return layer
        if os.path.exists(directory / ".git"):
            break
    return layer


def _read_project(layer: Layer, path: Path, cwd: Path) -> bool:
    """Fill ``layer`` from ``path``; return False if the search should continue."""
    shown = os.path.relpath(path, cwd)
    if not _is_trusted(path, cwd):
        layer.warnings.append(
            f"{printable(shown)} belongs to another user and is ignored; use --config to read it"
        )
        return False
    is_pyproject = path.name == "pyproject.toml"
    try:
        document: Any = _load(path, marker=b"torchnet" if is_pyproject else b"")
    except _Unusable as error:
        if is_pyproject and isinstance(error, _Unread):
            layer.warnings.append(f"{printable(shown)} {error}; ignored")
            return False
        layer.problems.append(FieldProblem(shown, str(error)))
        return True
    keys = f"{shown}: "
    if is_pyproject:
        tool = document.get("tool")
        if not isinstance(tool, dict) or "torchnet" not in tool:
            return False
        document, keys = tool["torchnet"], f"{shown}: tool.torchnet."
    if isinstance(document, dict):
        _fill(layer, document, keys, os.path.dirname(shown))
    else:
        layer.problems.append(FieldProblem(f"{shown}: tool.torchnet", "is not a table"))
    return True


def _is_trusted(path: Path, cwd: Path) -> bool:
    """Return whether the file's owner is trusted: root, this user, or the owner of ``cwd``.

    A project file is found, not named by the user. A file that another user left in /tmp must not decide what runs.
    """
    try:
        owner = os.stat(path).st_uid
        return owner in (0, os.geteuid(), os.stat(cwd).st_uid)
    except OSError:
        return False


def _toml() -> Any:
    """Return the standard library's TOML module, or its backport on Python 3.10."""
    return importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def _load(path: Path, marker: bytes = b"") -> dict[str, Any]:
    """Read the TOML document at ``path``; ``{}``, unparsed, if the file does not contain ``marker``.

    Raises:
        _Unusable: The file cannot be read, or is not valid TOML.
    """
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        raise _Unusable(f"has the extension of a {path.suffix[1:].upper()} file; only TOML is supported")
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise _Unread("is a directory")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > SIZE_LIMIT:
                raise _Unread(f"has {size} bytes; the limit is {SIZE_LIMIT}")
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise _Unread((error.strerror or str(error)).lower()) from None
    except ValueError:
        raise _Unread("has a NUL character in its name") from None
    if len(data) > SIZE_LIMIT:
        raise _Unread(f"is larger than the limit of {SIZE_LIMIT} bytes")
    if marker not in data:
        return {}
    if _LONG_KEY.search(data):
        raise _Unusable("has a key of more than 64 parts")
    try:
        return _toml().loads(data.decode())  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        raise _Unusable(f"is not valid TOML: not UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise _Unusable(f"is not valid TOML: {printable(str(error))}") from None
    except RecursionError:
        raise _Unusable("is nested too deeply") from None


def _fill(layer: Layer, document: dict[str, Any], keys: str, base: str) -> None:
    """Convert tables to field paths; unknown keys and misplaced tables become problems."""

    def put(path: str, raw: Any, written: str) -> None:
        layer.values[path] = Value(raw, Origin(layer.name, keys + written), base)

    for key, raw in document.items():
        name = key.replace("-", "_")
        if name == "env" and isinstance(raw, dict):
            for variable, text in raw.items():
                put_variable(layer, variable, text, f"{keys}env.{variable}")
        elif name in TABLES and isinstance(raw, dict):
            for inner, value in raw.items():
                _put_known(layer, f"{name}.{inner.replace('-', '_')}", value, keys, put)
        elif name in TABLES:
            layer.problems.append(FieldProblem(name, f"{quote(raw)} is not a table", keys + key))
        else:
            _put_known(layer, name, raw, keys, put)


def _put_known(layer: Layer, path: str, raw: Any, keys: str, put: Any) -> None:
    known = FORMER_PATHS.get(path, path)
    if known in BY_PATH and known not in layer.values:
        put(known, raw, path)
    elif known in layer.values:
        former = next((old for old, new in FORMER_PATHS.items() if new == known), "")
        how = f"as {former} and as {known}" if former else "with - and with _"
        layer.problems.append(FieldProblem(known, f"is set twice, {how}", keys + path))
    elif len(layer.problems) >= _HINTS:
        layer.problems.append(FieldProblem(path, "unknown field", keys + path))
    else:
        # A top-level "rate" most likely means network.rate, so compare bare names with the last parts of paths too.
        tails = {known.rpartition(".")[2]: known for known in BY_PATH}
        near = tails.get(path.rpartition(".")[2])
        hint = f'; did you mean "{near}"?' if near else did_you_mean(path, BY_PATH)
        layer.problems.append(FieldProblem(path, f"unknown field{hint}", keys + path))


TORCHRUN_VARIABLES = {
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "run.grace",
    "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": "output.prefix_template",
}
"""Variables of torchrun, other than PET_*, that are read if torchnet's own is not set (torch/distributed/run.py)."""

FLAG, ENVIRONMENT, DEFAULT = "flag", "environment", "default"
JOB_FILE, PROJECT_FILE, ENV_FILE = "job file", "project file", "env file"
COMMAND_LINE = "the command line"


@dataclass(frozen=True)
class Origin:
    """The origin of a value: its layer, and where the user can find it (``TORCHNET_RATE``)."""

    layer: str
    where: str

    def __str__(self) -> str:
        return self.where


@dataclass(frozen=True)
class Value:
    """A value as it was written.

    Attributes:
        base: The directory that a path in the value is relative to; "" for the working directory.
    """

    raw: Any
    origin: Origin
    base: str = ""


@dataclass
class Layer:
    """The values of one source by field path (``env.NAME`` for each variable), with its problems and warnings."""

    name: str
    values: dict[str, Value] = field(default_factory=dict)
    problems: list[FieldProblem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def from_flags(
    flags: Mapping[str, object], unread: Collection[str] = (), shown: Mapping[str, str] = NOTHING_ELSE
) -> Layer:
    """Collect the values of the command line.

    A script on the command line also sets its arguments, even to none, since the arguments in a file belong to that
    file's script.

    Args:
        flags: Typed values by field path, and by table for ``--tune KEY=VALUE``.
        unread: Field paths that ``--tune`` must not set.
        shown: By field path, the flag that was typed instead of the field's own; shown as the origin.
    """
    layer = Layer(FLAG)
    if "script" in flags:
        layer.values["args"] = Value((), Origin(FLAG, COMMAND_LINE))
    for path, raw in flags.items():
        if path == "env":
            _layer_pairs(layer, raw)
        elif path in TABLES:
            _layer_settings(layer, path, raw, unread)
        else:
            where = shown.get(path) or BY_PATH[path].flag or COMMAND_LINE
            layer.values[path] = Value(raw, Origin(FLAG, where))
    return layer


def _layer_pairs(layer: Layer, raw: object) -> None:
    valid = BY_PATH["env"].valid
    for pair in raw if isinstance(raw, (list, tuple)) else (raw,):
        name, equals, text = str(pair).partition("=")
        if not equals:
            layer.problems.append(FieldProblem("env", f"{quote(pair)} has no =", "--env", valid))
        else:
            put_variable(layer, name, text, "--env")


def _layer_settings(layer: Layer, table: str, raw: object, unread: Collection[str]) -> None:
    fields = {one.key: one for one in FIELDS if one.keyed and one.typed_path == table}
    known = {key: one for key, one in fields.items() if one.path not in unread}
    flag = next(one.flag for one in fields.values())
    valid = f"KEY=VALUE with the keys {', '.join(known)}"
    for pair in raw if isinstance(raw, (list, tuple)) else (raw,):
        name, equals, text = str(pair).partition("=")
        key = name.replace("-", "_")
        if key not in known:
            why = "has no effect here" if key in fields else f"is not a key{did_you_mean(key, known)}"
            layer.problems.append(FieldProblem(table, f"{quote(name)} {why}", flag, valid))
        elif not equals:
            layer.problems.append(FieldProblem(known[key].path, "has no =VALUE", flag, known[key].valid))
        else:
            layer.values[known[key].path] = Value(text, Origin(FLAG, flag))


def put_variable(layer: Layer, name: str, raw: object, where: str) -> None:
    """Add a variable for the script; an invalid name or value becomes a problem of the layer."""
    try:
        parse_variables({name: raw})
    except ValueError as error:
        layer.problems.append(FieldProblem("env", str(error), where, BY_PATH["env"].valid))
    else:
        layer.values[f"env.{name}"] = Value(raw, Origin(layer.name, where))


def from_environment(environ: Mapping[str, str]) -> Layer:
    """Collect the ``TORCHNET_*`` variables; an empty one counts as unset, as in ``VAR= torchnet …``."""
    layer = Layer(ENVIRONMENT)
    known = {one.env: one.path for one in FIELDS if one.env}
    former = {one.former_env: one.path for one in FIELDS if one.former_env}
    suffixes = [variable.removeprefix(ENV_PREFIX) for variable in known]
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or not environ[name]:
            continue
        if name in known:
            layer.values[known[name]] = Value(environ[name], Origin(ENVIRONMENT, name))
            continue
        if name in former:
            if not environ.get(BY_PATH[former[name]].env):
                layer.values[former[name]] = Value(environ[name], Origin(ENVIRONMENT, name))
            continue
        near = difflib.get_close_matches(name.removeprefix(ENV_PREFIX), suffixes, n=1, cutoff=0.8)
        if near:
            # Not an error, since other parts of torchnet also have variables with this prefix.
            hint = f"did you mean {ENV_PREFIX}{near[0]}?"
            layer.warnings.append(f"the environment variable {quote(name)} is ignored; {hint}")
    for name, path in TORCHRUN_VARIABLES.items():
        if environ.get(name) and path not in layer.values:
            layer.values[path] = Value(environ[name], Origin(ENVIRONMENT, name))
    return layer


def merge(layers: Sequence[Layer]) -> dict[str, Value]:
    """Return, for each field and each variable of ``env``, the value of the first layer that has one."""
    merged: dict[str, Value] = {}
    for layer in layers:
        for path, value in layer.values.items():
            merged.setdefault(path, value)
    return merged
