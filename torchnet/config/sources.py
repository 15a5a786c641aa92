"""Sources of settings: flags, environment variables, job file and project file, in this order of precedence.

Each value keeps its origin. TOML files and ``--env-file`` (NAME=VALUE lines, read as docker and kubectl do) are
limited to 1 MiB. YAML is never read, so neither its aliases nor its object tags can do harm.
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
from torchnet.config.settings import BY_PATH, FIELDS, TABLES
from torchnet.config.validation_errors import FieldProblem, did_you_mean
from torchnet.constants import ENV_PREFIX
from torchnet.text import printable

ENV_FILE_LIMIT = 1 << 20
NOTHING_ELSE: Mapping[str, str] = MappingProxyType({})


def read(path: Path) -> tuple[dict[str, tuple[str, int]], list[str]]:
    """The variables with their line numbers, and what is wrong with the file, one sentence each."""
    try:
        with open(path, "rb") as file:
            data = file.read(ENV_FILE_LIMIT + 1)
    except OSError as error:
        return {}, [(error.strerror or str(error)).lower()]
    except ValueError:
        return {}, ["has a NUL character in its name"]
    if len(data) > ENV_FILE_LIMIT:
        return {}, [f"has more than {ENV_FILE_LIMIT} bytes, and no more are read"]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return {}, [f"is not UTF-8 (byte {error.start})"]
    found: dict[str, tuple[str, int]] = {}
    wrong = []
    for number, name, value in _pairs(text):
        try:
            if value is None:
                raise ValueError("there is no = in it")
            parse_variables({name: value})
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
        else:
            found[name] = (value, number)
    return found, wrong


def _pairs(text: str) -> Iterator[tuple[int, str, str | None]]:
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.partition("=")
            yield number, name.strip().removeprefix("export ").strip(), value if equals else None


SIZE_LIMIT = 1 << 20
# The standard library's reader takes minutes for a key of 100,000 parts; a key has three here.
_LONG_KEY = re.compile(rb"""(?:\.[ \t]*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*){64}""")
_HINTS = 20
PROJECT_NAMES = ("torchnet.toml", "pyproject.toml")


class _Unusable(Exception):
    """Why a file gives no values; becomes a `FieldProblem` of that file."""


class _Unread(_Unusable):
    """The file was not even read, so whether it means torchnet is unknown."""


def from_job_file(path: str, cwd: Path) -> Layer:
    """The job file of ``--config``; anything wrong with it is in the layer's problems."""
    layer = Layer(JOB_FILE)
    try:
        document = _load(cwd / path)
    except _Unusable as error:
        layer.problems.append(FieldProblem(path or '""', str(error), "--config", "the path of a TOML file"))
        return layer
    _fill(layer, document, f"{path}: ", os.path.dirname(path))
    return layer


def from_project(cwd: Path) -> Layer:
    """The nearest ``torchnet.toml``, or ``pyproject.toml`` with a ``[tool.torchnet]``, from ``cwd`` upward.

    The search ends with the directory that holds ``.git``, else with the file system's root.
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
    """Fill ``layer`` from ``path``; False where the search goes on."""
    shown = os.path.relpath(path, cwd)
    if not _is_ours(path, cwd):
        layer.warnings.append(f"{printable(shown)} is another user's and is not read; --config reads it")
        return False
    is_pyproject = path.name == "pyproject.toml"
    try:
        document: Any = _load(path, marker=b"torchnet" if is_pyproject else b"")
    except _Unusable as error:
        if is_pyproject and isinstance(error, _Unread):
            layer.warnings.append(f"{printable(shown)} {error}; it is left out")
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


def _is_ours(path: Path, cwd: Path) -> bool:
    """Found, not named: what another user left in /tmp must not decide what runs here."""
    try:
        owner = os.stat(path).st_uid
        return owner in (0, os.geteuid(), os.stat(cwd).st_uid)
    except OSError:
        return False


def _toml() -> Any:
    """The standard library's TOML reader, and its backport for 3.10."""
    return importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")


def _load(path: Path, marker: bytes = b"") -> dict[str, Any]:
    """The document at ``path``; ``{}`` where it does not even hold ``marker``. Raises `_Unusable`."""
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        raise _Unusable(f"is {path.suffix[1:].upper()} by its name, and TOML is expected")
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise _Unread("is a directory")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > SIZE_LIMIT:
                raise _Unread(f"has {size} bytes, and {SIZE_LIMIT} are read at most")
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise _Unread((error.strerror or str(error)).lower()) from None
    except ValueError:
        raise _Unread("has a NUL character in its name") from None
    if len(data) > SIZE_LIMIT:
        raise _Unread(f"goes on after {SIZE_LIMIT} bytes, and no more are read")
    if marker not in data:
        return {}
    if _LONG_KEY.search(data):
        raise _Unusable("has a key of more than 64 parts")
    try:
        return _toml().loads(data.decode())  # type: ignore[no-any-return]
    except UnicodeDecodeError as error:
        raise _Unusable(f"is not UTF-8 (byte {error.start}), so it is no TOML") from None
    except ValueError as error:
        raise _Unusable(f"is no TOML: {printable(str(error))}") from None
    except RecursionError:
        raise _Unusable("is nested too deeply") from None


def _fill(layer: Layer, document: dict[str, Any], keys: str, base: str) -> None:
    """Turn tables into paths; unknown keys and misplaced tables become problems."""

    def put(path: str, raw: Any) -> None:
        layer.values[path] = Value(raw, Origin(layer.name, keys + path), base)

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
    if path in BY_PATH and path not in layer.values:
        put(path, raw)
    elif path in layer.values:
        layer.problems.append(FieldProblem(path, "stands there twice, with - and with _", keys + path))
    elif len(layer.problems) >= _HINTS:
        layer.problems.append(FieldProblem(path, "there is no such field", keys + path))
    else:
        # "rate" at the top is most likely the network's, so a bare name is compared with the last parts too.
        tails = {known.rpartition(".")[2]: known for known in BY_PATH}
        near = tails.get(path.rpartition(".")[2])
        hint = f'; did you mean "{near}"?' if near else did_you_mean(path, BY_PATH)
        layer.problems.append(FieldProblem(path, f"there is no such field{hint}", keys + path))


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
    problems: list[FieldProblem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def from_flags(
    flags: Mapping[str, object], unread: Collection[str] = (), shown: Mapping[str, str] = NOTHING_ELSE
) -> Layer:
    """What the command line said, by field path; by table for ``--tune KEY=VALUE``, with no key of ``unread`` paths.

    ``shown``: by path, the flags that were typed in place of a field's own.

    A script brings its arguments along, even none: those in a file belong to the file's script.
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
    """A variable for the script; a wrong name or value becomes a problem of its own."""
    try:
        parse_variables({name: raw})
    except ValueError as error:
        layer.problems.append(FieldProblem("env", str(error), where, BY_PATH["env"].valid))
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
