"""The help pages, at a fixed width, and the errors that the command line itself reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import golden
from torchnet.cli import main

OTHERS = (
    "receipt",
    "status",
    "logs",
    "attach",
    "down",
    "env",
    "manifests",
    "network",
    "verify",
    "completion",
)
ERRORS = (
    "bench diff old.json",
    "bench diff bytes.json bytes.json",
    "bench diff --nnodes 2 old.json new.json",
    "status one two",
    "status -o xml",
    "down UPPER",
    "verify word",
    "logs --ranks x",
    "env --explain -o xml",
    "manifests --type macvlan",
    "manifests rbac -o xml more",
    "network",
    "network check",
    "network lint missing.yaml",
    "network lint -o xml",
    "network show",
    "network show a/b/c",
    "completion tcsh",
)


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


def test_the_help_of_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    """Without the usage, which each version of argparse wraps in another way."""
    with pytest.raises(SystemExit):
        main(["agent", "--help"])
    golden.check("help-agent.txt", capsys.readouterr().out.partition("\n\n")[2])


def test_the_errors_of_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    said = []
    for line in ERRORS:
        assert main(line.split()) == 2
        said.append(f"$ torchnet {line}\n{capsys.readouterr().err}")
    golden.check("cli-errors.txt", "\n".join(said))
