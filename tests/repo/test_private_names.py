"""Tests use public names: those that use private ones break at every change that people do not see."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.repo.test_house import ROOT, tracked

MOST = 87  # as many as there are: lower it with each that goes


def private_names(text: str) -> Iterator[str]:
    """Names with one underscore that a test takes from the product: imported, read of an object, or replaced."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    of_self = {"self", "cls", "os", "sys"}
    read = [node for node in nodes if isinstance(node, ast.Attribute)]
    own = {node.attr for node in read if isinstance(node.value, ast.Name) and node.value.id in of_self}
    own |= {
        node.target.id
        for node in nodes
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    yield from (node.attr for node in read if _private(node.attr) and node.attr not in own)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchnet"):
            yield from (alias.name for alias in node.names if _private(alias.name))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "setattr"
        ):
            words = [str(one.value).rpartition(".")[2] for one in node.args if isinstance(one, ast.Constant)]
            yield from filter(_private, words)


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_test_uses_more_private_names() -> None:
    files = [path for path in tracked() if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")]
    found = {path: [*private_names(path.read_text())] for path in files}
    count = sum(map(len, found.values()))
    lines = [f"{path.relative_to(ROOT)}: {' '.join(names)}" for path, names in found.items() if names]
    assert count <= MOST, "\n".join(lines)


def test_private_names_are_seen() -> None:
    text = """\
from torchnet.agent import _streams, public
def test(monkeypatch):
    monkeypatch.setattr(public, "_PATIENCE", 1)
    monkeypatch.setattr("torchnet.agent.public._WAIT", 1)
    public._judge(public.__doc__)
class Own:
    def method(self):
        self._own = other._own
"""
    assert sorted(private_names(text)) == ["_PATIENCE", "_WAIT", "_judge", "_streams"]
