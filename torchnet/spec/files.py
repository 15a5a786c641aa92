"""Values from TOML: ``--config FILE``, and the project's ``torchnet.toml`` or ``[tool.torchnet]``.

Nothing larger than 1 MiB is read. YAML is never read at all, so its bombs and object tags have no way in.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

from torchnet.network.text import printable
from torchnet.spec.fields import BY_PATH, TABLES
from torchnet.spec.layers import JOB_FILE, PROJECT_FILE, Layer, Origin, Value, put_variable
from torchnet.spec.problems import Problem, did_you_mean
from torchnet.spec.words import quote

SIZE_LIMIT = 1 << 20
# The standard library's reader takes minutes for a key of 100,000 parts; a key has three here.
_LONG_KEY = re.compile(rb"""(?:\.[ \t]*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')[ \t]*){64}""")
_HINTS = 20
PROJECT_NAMES = ("torchnet.toml", "pyproject.toml")


class _Unusable(Exception):
    """Why a file gives no values; becomes a `Problem` of that file."""


class _Unread(_Unusable):
    """The file was not even read, so whether it means torchnet is unknown."""


def from_job_file(path: str, cwd: Path) -> Layer:
    """The job file of ``--config``; anything wrong with it is in the layer's problems."""
    layer = Layer(JOB_FILE)
    try:
        document = _load(cwd / path)
    except _Unusable as error:
        layer.problems.append(Problem(path or '""', str(error), "--config", "the path of a TOML file"))
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
        layer.problems.append(Problem(shown, str(error)))
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
        layer.problems.append(Problem(f"{shown}: tool.torchnet", "is not a table"))
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
            layer.problems.append(Problem(name, f"{quote(raw)} is not a table", keys + key))
        else:
            _put_known(layer, name, raw, keys, put)


def _put_known(layer: Layer, path: str, raw: Any, keys: str, put: Any) -> None:
    if path in BY_PATH and path not in layer.values:
        put(path, raw)
    elif path in layer.values:
        layer.problems.append(Problem(path, "stands there twice, with - and with _", keys + path))
    elif len(layer.problems) >= _HINTS:
        layer.problems.append(Problem(path, "there is no such field", keys + path))
    else:
        # "rate" at the top is most likely the network's, so a bare name is compared with the last parts too.
        tails = {known.rpartition(".")[2]: known for known in BY_PATH}
        near = tails.get(path.rpartition(".")[2])
        hint = f'; did you mean "{near}"?' if near else did_you_mean(path, BY_PATH)
        layer.problems.append(Problem(path, f"there is no such field{hint}", keys + path))
