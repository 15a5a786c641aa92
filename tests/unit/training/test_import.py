"""import torchnet: what it loads, and what it offers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import torchnet

ROOT = Path(__file__).resolve().parents[3]


def test_importing_torchnet_loads_nothing() -> None:
    script = """
    import sys
    import torchnet
    loaded = {name.split(".")[0] for name in sys.modules}
    assert "torchnet" in loaded
    assert not loaded & {"torch", "pyroute2", "pydantic", "typer", "rich"}, loaded
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=env, check=True)


def test_what_is_exported() -> None:
    assert set(torchnet.__all__) <= set(dir(torchnet))
    for name in torchnet.__all__:
        assert getattr(torchnet, name) is getattr(torchnet, name)
    with pytest.raises(AttributeError):
        _ = torchnet.nothing


def test_the_version_is_the_projects() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{torchnet.__version__}"\n' in text
