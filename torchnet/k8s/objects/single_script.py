"""Whether a script needs nothing else of its folder, so that it is bundled alone.

A folder of downloads or a home directory with one script is not the script's code: it is too large for ConfigMaps, and
much in it is private. What counts as a project travels as a whole. If in doubt, the folder does.
"""

from __future__ import annotations

import ast
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

# Beside the script or above it, these mark a project.
_PROJECT = (".git", ".hg", ".svn", "pyproject.toml", "setup.py", "setup.cfg", "torchnet.toml")
# The same, beside it only. In a package, the script may import its package by another path.
_BESIDE = (".torchnetignore", "__init__.py")
_MODULES = (".py", ".pyc", ".so")
_IMPORTERS = ("import_module", "__import__", "run_module")
_LIMIT = 1 << 20


def is_alone(path: str) -> bool:
    """Whether the script at ``path`` belongs to no project, and neither imports nor names a file of its folder.

    Names of files in strings count, since ``open("config.yaml")`` needs that file, too. The name of a folder counts
    where a relative path begins with it, as in ``"./model"``, and where the script asks for its own place. The name
    alone does not: a script with ``"data"`` in it more often creates that folder than it reads it.
    """
    folder = Path(path).parent
    if any((folder / name).exists() for name in _BESIDE):
        return False
    if any((place / name).exists() for place in (folder, *folder.parents) for name in _PROJECT):
        return False
    try:
        with open(path, "rb") as file:
            source = file.read(_LIMIT + 1)
        files, folders = _siblings(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source) if len(source) <= _LIMIT else None
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if tree is None:
        return False
    nodes = list(ast.walk(tree))
    modules = {name.partition(".")[0] for name in files if name.endswith(_MODULES)} | folders
    named = {name for name in files if "." in name}
    strings = _strings(nodes)
    if any(isinstance(node, ast.Name) and node.id == "__file__" for node in nodes):
        named |= folders
    return not (
        any(isinstance(node, ast.ImportFrom) and node.level for node in nodes)
        or any(modules if name is None else name.partition(".")[0] in modules for name in _imports(nodes))
        or any(word in named for text in strings for word in re.split(r"[\s/\\]+", text))
        or any(start in folders for text in strings for start in _path_starts(text))
    )


def _siblings(path: str) -> tuple[set[str], set[str]]:
    """Return the names of the files and of the folders beside the script."""
    files: set[str] = set()
    folders: set[str] = set()
    with os.scandir(os.path.dirname(path)) as entries:
        for entry in entries:
            if entry.name != os.path.basename(path):
                (folders if entry.is_dir() else files).add(entry.name)
    return files, folders


def _imports(nodes: Iterable[ast.AST]) -> Iterator[str | None]:
    """Yield the names of the modules that the script imports, also by functions; None for a name that it computes."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            names = [*node.args, *(one.value for one in node.keywords)][:1]
            if called in _IMPORTERS:
                yield from (str(one.value) if isinstance(one, ast.Constant) else None for one in names)


def _strings(nodes: Iterable[ast.AST]) -> list[str]:
    """Return the strings, and the constant parts of f-strings, without docstrings."""
    docstrings = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def _path_starts(text: str) -> Iterator[str]:
    """Yield the first parts of the relative paths in a string."""
    for word in re.split(r"[\s=]+", text):
        start, slash, _ = word.removeprefix("./").partition("/")
        if slash or word.startswith("./"):
            yield start
