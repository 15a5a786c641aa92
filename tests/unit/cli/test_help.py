"""The help pages, at a fixed width."""

from __future__ import annotations

import pytest

from tests import golden
from torchnet.cli import main

OTHERS = ("status", "logs", "attach", "down", "env", "manifests", "verify", "completion")


def page(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.fixture(autouse=True)
def _width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_the_help_of_launch(capsys: pytest.CaptureFixture[str]) -> None:
    golden.check("help-launch.txt", page(capsys, "launch"))


def test_the_help_of_bench(capsys: pytest.CaptureFixture[str]) -> None:
    golden.check("help-bench.txt", f"{page(capsys, 'bench')}\n{page(capsys, 'bench', 'diff')}")


def test_the_help_of_the_other_commands(capsys: pytest.CaptureFixture[str]) -> None:
    pages = [page(capsys), *(page(capsys, name) for name in OTHERS)]
    golden.check("help-other.txt", "\n".join(pages))
