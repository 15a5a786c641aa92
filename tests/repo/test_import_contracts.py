"""Each import contract of pyproject.toml, broken on purpose in a copy: else it may be guarding nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent

# contract -> the module that gets a line, and the line; several where a contract has several halves.
PLANTS = [
    ("layers", "network/network_status.py", "import torchnet.agent"),
    ("layers", "network/interface_selection.py", "import torchnet.linux"),
    ("layers", "linux/__init__.py", "import torchnet.training"),
    ("layers", "agent/__init__.py", "import torchnet.config"),
    ("layers", "config/__init__.py", "import torchnet.local"),
    ("layers", "config/__init__.py", "def later():\n    import torchnet.k8s.objects.code_bundle"),
    ("layers", "receipt/__init__.py", "import torchnet.console.console"),
    ("layers", "k8s/__init__.py", "def later():\n    import torchnet.cli"),
    ("layers", "k8s/__init__.py", "import torchnet.local"),
    ("layers", "local/__init__.py", "def later():\n    import torchnet.runtime"),
    ("layers", "runtime.py", "def later():\n    import torchnet.bench.job"),
    ("layers-k8s", "k8s/objects/__init__.py", "import torchnet.k8s.client"),
    ("layers-k8s", "k8s/client/__init__.py", "import torchnet.k8s.run.launch"),
    ("layers-k8s", "k8s/newcomer.py", "pass"),
    ("layers-k8s", "k8s/run/__init__.py", "import torchnet.k8s.kubernetes_runtime"),
    ("layers", "constants.py", "import torchnet.errors"),
    ("layers", "newcomer.py", "pass"),
    ("door-pyroute2", "local/__init__.py", "from pyroute2 import NDB"),
    ("door-torch", "agent/__init__.py", "def later():\n    import torch.distributed"),
    ("door-subprocess", "local/__init__.py", "import subprocess"),
    ("door-pydantic", "console/__init__.py", "import pydantic"),
    ("door-typer", "config/__init__.py", "import typer"),
    ("door-pathspec", "config/__init__.py", "def later():\n    import pathspec"),
    ("door-yaml", "k8s/addons/__init__.py", "import yaml"),
    ("door-kubernetes", "k8s/run/__init__.py", "import kubernetes.client"),
    ("door-kubernetes", "k8s/objects/__init__.py", "def later():\n    import urllib3"),
    ("bench-worker-travels", "bench/worker/worker_config.py", "from torchnet.config import job_spec"),
    ("door-matplotlib", "bench/__init__.py", "def later():\n    import matplotlib.figure"),
    ("no-door", "local/__init__.py", "import numpy"),
    ("no-door", "console/__init__.py", "def later():\n    from rich.table import Table"),
    ("agent-travels", "agent/__init__.py", "import yaml"),
    ("agent-travels", "network/__init__.py", "import numpy as np"),
    ("agent-travels", "errors.py", "import tomli"),
]


def contracts() -> dict[str, str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"]: contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in ("torchnet", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-logo",
        ],
        cwd=folder,
        # The copy goes before the package that is installed.
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


def test_the_contracts_are_kept(copy: Path) -> None:
    assert f"Contracts: {len(contracts())} kept, 0 broken." in lint(copy)


@pytest.mark.parametrize(("contract", "module", "line"), PLANTS)
def test_a_planted_import_breaks_its_contract(copy: Path, contract: str, module: str, line: str) -> None:
    with (copy / "torchnet" / module).open("a") as file:
        file.write(f"\n{line}\n")
    output = lint(copy)
    assert f"{contracts()[contract]} BROKEN" in output, output


def test_each_contract_has_a_planted_violation() -> None:
    assert contracts().keys() == {contract for contract, _, _ in PLANTS}


def test_training_on_import_costs_neither_torch_nor_tables() -> None:
    """What is lazy stays lazy: importing every module loads no torch, rich, kubernetes or matplotlib; but for
    what a benchmark's ranks run, which is never imported here."""
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "torchnet").rglob("*.py")
        if path.name != "__main__.py"
        and "cli" not in path.parts
        and path.parent != ROOT / "torchnet/bench/worker"
        and (path.parent / "__init__.py").exists()
    )
    code = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    code += (
        "print(*sorted({'torch', 'rich', 'typer', 'kubernetes', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == []
