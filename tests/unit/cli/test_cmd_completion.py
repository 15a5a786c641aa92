"""``torchnet completion``: the scripts, and what the shells get from them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_app import HEAVY, ROOT, loaded, torchnet
from torchnet.cli.cmd_completion import SHELLS, VARIABLE

# What is typed (the cursor is at its end) and what bash offers; for nothing it completes names of files itself.
COMPLETIONS = {
    "torchnet la": ["launch"],
    "torchnet launch --nn": ["--nnodes"],
    "torchnet launch --nnodes 2 --rat": ["--rate"],
    "torchnet launch --nnodes ": [],
    "torchnet launch train.py --nn": [],
    "torchnet launch --help ": [],
    "torchnet bench diff --help ": [],
    "torchnet --version la": ["launch"],
    "torchnet agent --": [],
}


def test_bash_completes_commands_and_flags(tmp_path: Path) -> None:
    command = tmp_path / "torchnet"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m torchnet "$@"\n')
    command.chmod(0o755)
    script = "source <(torchnet completion bash)\n"
    script += "complete -p torchnet | grep -q -- '-F _torchnet_completion'\n"
    for typed in COMPLETIONS:
        words = shlex.split(typed) + [""] * typed.endswith(" ")
        script += f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}\n"
        script += '_torchnet_completion torchnet\necho "${COMPREPLY[*]}"\n'
    ran = subprocess.run(
        ["bash", "--norc", "-e", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert dict(zip(COMPLETIONS, map(str.split, ran.stdout.splitlines()), strict=True)) == COMPLETIONS


def test_the_other_shells_get_one_line_for_each_flag() -> None:
    asked = {"_TYPER_COMPLETE_ARGS": "torchnet launch --n", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    fish, zsh = (torchnet(cwd=ROOT, **asked, **{VARIABLE: f"complete_{shell}"}) for shell in ("fish", "zsh"))
    flags = fish.stdout.split()
    assert {"--nnodes", "--nproc-per-node", "--network"} <= {*flags}
    assert fish.stdout == "".join(f"{flag}\n" for flag in flags)
    assert all(f'"{flag}"' in zsh.stdout for flag in flags)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_asks_by_the_variable(shell: str) -> None:
    ran = torchnet("completion", shell)
    assert ran.returncode == 0
    assert f"{VARIABLE}=complete_{shell}" in ran.stdout


@pytest.mark.parametrize("words", [(), ("tcsh",), ("bash", "zsh")], ids=str)
def test_another_shell_is_wrong_usage(words: tuple[str, ...]) -> None:
    ran = torchnet("completion", *words)
    assert ran.returncode == 2
    assert "bash, zsh, fish" in ran.stderr


def test_completion_loads_nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "torchnet launch --nnodes 2 --rat")
    monkeypatch.setenv("COMP_CWORD", "4")
    modules = loaded()
    assert "typer" in modules
    assert not modules & set(HEAVY)
