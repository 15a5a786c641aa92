"""The examples of docs/python.md run as they stand there, on two workers."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT
from tests.jobs import receipt, run

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)


def _examples() -> list[str]:
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    examples: list[str] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return examples


def test_launch_returns_a_receipt(tmp_path: Path) -> None:
    needs.networks()
    (tmp_path / "launch").symlink_to(ROOT / "launch")
    done = subprocess.run(
        [sys.executable, "-c", _examples()[0]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("100% over the backend (measured)\n")


def test_the_script_trains_and_counts_its_bytes(tmp_path: Path) -> None:
    needs.networks()
    (tmp_path / "train.py").write_text(_examples()[1])
    done = run("--json", tmp_path / "receipt.json", tmp_path / "train.py")
    assert done.code == 0, done.stderr
    counted = dict(re.findall(r"^\[rank 0\] (\w+) (\d+) \d+$", done.stdout, re.MULTILINE))
    assert int(counted["net1"]) > int(counted["eth0"])
    assert receipt(tmp_path / "receipt.json")["backend_share"] == 1.0
