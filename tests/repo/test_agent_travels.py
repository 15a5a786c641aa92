"""What travels to a worker compiles and imports, from a zip, on every Python here, with nothing installed."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pyroute2
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("__init__", "agent", "constants", "errors", "linux", "network", "rlimits", "text", "training")
OLDEST, NEWEST = (3, 10), (3, 14)


@cache
def pythons() -> dict[str, str]:
    """Version -> interpreter: this one, those on the PATH, and those that pyenv and uv keep."""
    found: dict[str, str] = {}
    candidates = [sys.executable, "/usr/bin/python3"]
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        name = f"python3.{minor}"
        candidates += filter(None, [shutil.which(name), f"/usr/bin/{name}"])
        for folder in ("~/.pyenv/versions/*/bin", "~/.local/share/uv/python/*/bin"):
            candidates += sorted(glob.glob(os.path.expanduser(f"{folder}/{name}")))
    for path in candidates:
        version = _version(path)
        if version and OLDEST <= version <= NEWEST:
            found.setdefault(f"{version[0]}.{version[1]}", path)
    return found


def _version(path: str) -> tuple[int, int] | None:
    try:
        done = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        major, minor = done.stdout.split()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # pyenv's placeholders for versions that are not chosen
    return int(major), int(minor)


def travelling() -> list[Path]:
    paths = []
    for part in PARTS:
        module, package = ROOT / f"torchnet/{part}.py", ROOT / f"torchnet/{part}"
        paths += [module] if module.exists() else sorted(package.rglob("*.py"))
    return paths


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("travels") / "agent.zip"
    library = Path(pyroute2.__file__).parent
    with zipfile.ZipFile(path, "w") as file:
        for module in travelling():
            file.write(module, module.relative_to(ROOT))
        for module in library.rglob("*.py"):
            file.write(module, module.relative_to(library.parent))
    return path


@pytest.mark.parametrize("version", pythons())
def test_it_imports_from_a_zip_with_nothing_installed(version: str, archive: Path) -> None:
    # A folder without __init__.py holds what other processes load by their own name: no module of ours.
    paths = [path for path in travelling() if (path.parent / "__init__.py").exists()]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = "import sys, importlib; sys.path.insert(0, sys.argv[1])\n"
    code += "for name in sys.argv[2:]: importlib.import_module(name)\n"
    code += "print(*sorted({module.partition('.')[0] for module in sys.modules}))"
    done = subprocess.run(
        # Isolated, and without the folders where packages are installed; what is deprecated is an error.
        [pythons()[version], "-I", "-S", "-W", "error", "-c", code, str(archive), *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split()) - {"__main__"}
    assert {"torchnet", "pyroute2"} <= loaded
    assert not loaded & {"torch", "pydantic", "typer", "tomli", "rich"}


@pytest.mark.parametrize("version", pythons())
def test_the_whole_package_compiles(version: str) -> None:
    code = "import sys\nfor path in sys.argv[1:]: compile(open(path, encoding='utf-8').read(), path, 'exec')"
    paths = [str(path) for folder in ("torchnet", "launch") for path in sorted((ROOT / folder).rglob("*.py"))]
    subprocess.run([pythons()[version], "-W", "error", "-c", code, *paths], timeout=60, check=True)


def test_this_python_is_among_those() -> None:
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in pythons()
