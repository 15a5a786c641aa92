"""What travels to a worker compiles and imports, from a zip, on every Python here, with nothing installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.pythons import pythons
from torchnet.k8s.objects.agent_zip import PARTS

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHONS = {f"{major}.{minor}": path for (major, minor), path in pythons().items()}


def travelling() -> list[Path]:
    paths = []
    for part in PARTS:
        place = ROOT / "torchnet" / part
        paths += [place] if part.endswith(".py") else sorted(place.rglob("*.py"))
    return paths


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("travels") / "agent.zip"
    with zipfile.ZipFile(path, "w") as file:
        for module in travelling():
            file.write(module, module.relative_to(ROOT))
    return path


@pytest.mark.parametrize("python", PYTHONS)
def test_it_imports_from_a_zip_with_nothing_installed(python: str, archive: Path) -> None:
    # A folder without __init__.py holds what other processes load by their own name: no module of ours.
    paths = [path for path in travelling() if (path.parent / "__init__.py").exists()]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = "import sys, importlib; sys.path.insert(0, sys.argv[1])\n"
    code += "for name in sys.argv[2:]: importlib.import_module(name)\n"
    code += "print(*sorted({module.partition('.')[0] for module in sys.modules}))"
    done = subprocess.run(
        # Isolated, and without the folders where packages are installed; what is deprecated is an error.
        [PYTHONS[python], "-I", "-S", "-W", "error", "-c", code, str(archive), *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split()) - {"__main__"}
    assert "torchnet" in loaded
    assert not loaded & {"torch", "pydantic", "typer", "tomli", "rich", "pyroute2"}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_whole_package_compiles(python: str) -> None:
    code = "import sys\nfor path in sys.argv[1:]: compile(open(path, encoding='utf-8').read(), path, 'exec')"
    paths = [str(path) for folder in ("torchnet", "launch") for path in sorted((ROOT / folder).rglob("*.py"))]
    subprocess.run([PYTHONS[python], "-W", "error", "-c", code, *paths], timeout=60, check=True)


def test_this_python_is_among_those() -> None:
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in PYTHONS
