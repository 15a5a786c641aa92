"""``torchnet receipt``: its two forms on the command line, and input that is no receipt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.witness.test_host_receipt import pair
from torchnet.cli import main
from torchnet.witness.host_receipt import receipt_of


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for record in pair():
        Path(f"{record.host}.json").write_text(json.dumps(receipt_of([record])))
    return ["host-1.json", "host-2.json"]


@pytest.mark.parametrize("words", [("--json", "all.json", "{}", "{}"), ("{}", "{}", "--json", "all.json")])
def test_the_files_option_is_valid_on_both_sides_of_the_files(
    words: tuple[str, ...], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    names = iter(files)
    line = [next(names) if word == "{}" else word for word in words]
    assert main(["receipt", "merge", *line]) == 0
    assert "exchanged between the 2 hosts" in capsys.readouterr().out
    assert json.loads(Path("all.json").read_bytes())["nnodes"] == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("merge", "--network", "host:ens5", "host-1.json"), "--network"),
        (("merge", "--peers", "a", "host-1.json"), "--peers"),
        (("--json", "all.json", "merge", "host-1.json"), "first word"),
        (("merge", "empty.json"), "empty.json"),
        (("merge", "wrong.json"), "addresses"),
        (("merge", "no-address.json"), "1.2.3"),
        (("merge",), "no files"),
        (("--network", "host:lo", "--", "true"), "loopback"),
        (("--network", "rdma:mlx5_77", "--", "true"), "rdma:mlx5_77"),
    ],
)
def test_wrong_input_is_named(
    words: tuple[str, ...], named: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    receipt: dict[str, Any] = json.loads(Path(files[0]).read_bytes())
    Path("empty.json").write_text(json.dumps({"nodes": []}))
    witness = receipt["nodes"][0]["witness"]
    changes: dict[str, dict[str, Any]] = {
        "wrong": {"addresses": 7},
        "no-address": {"flows": [{**witness["flows"][0], "remote": "1.2.3"}], "peers": {"1.2.3": "x"}},
    }
    for name, change in changes.items():
        node = {**receipt["nodes"][0], "witness": {**witness, **change}}
        Path(f"{name}.json").write_text(json.dumps({**receipt, "nodes": [node]}))
    assert main(["receipt", *words]) in (2, 4)
    said = capsys.readouterr().err
    assert named in said
    assert "Traceback" not in said


def test_the_commands_exit_code_survives_counters_that_cannot_be_read() -> None:
    script = """
import sys
from torchnet.cli import main
from torchnet.witness.account import HostAccount

def unreadable(self):
    raise OSError(24, "Too many open files")

HostAccount.counters = unreadable
sys.exit(main(["receipt", "--", "sh", "-c", "exit 7"]))
"""
    words = [sys.executable, "-c", script]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7
    assert "Too many open files" in done.stderr
