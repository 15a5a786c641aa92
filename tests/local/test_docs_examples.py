"""The example of docs/python.md runs as it stands there, on two workers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT
from tests.jobs import receipt, run

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)


def test_the_example_trains_and_counts_its_bytes(tmp_path: Path) -> None:
    needs.networks()
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "train.py").write_text(example)
    done = run("--json", tmp_path / "receipt.json", tmp_path / "train.py")
    assert done.code == 0, done.stderr
    counted = dict(re.findall(r"^\[rank 0\] (\w+) (\d+) \d+$", done.stdout, re.MULTILINE))
    assert int(counted["net1"]) > int(counted["eth0"])
    assert receipt(tmp_path / "receipt.json")["backend_share"] == 1.0
