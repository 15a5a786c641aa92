"""Rules of the house that no other tool checks."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tools.check import CHECKS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
LIMIT = 600  # lines of a module; past that it has a second subject

# Written in pieces, so that this file is no finding.
FOREIGN = [
    rf"/{'work'}/(main|shared|\.)",
    rf"/{'root'}/(scratch|\.pyenv|\.cache)",
    rf"/opt/{'wheels'}",
    rf"{'pythonhosted'}\.org",
    rf"pypi\.{'org'}/simple",
    rf"deb\.{'debian'}\.org",
    rf"registry\.{'npmjs'}",
]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    # An unpacked archive has no git; nor has it what git ignores.
    return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]


def foreign(text: str) -> list[str]:
    return [match[0] for pattern in FOREIGN for match in re.finditer(pattern, text)]


def test_no_file_names_the_machine_it_was_written_on() -> None:
    found = {}
    for path in tracked():
        if path.name != "uv.lock" and (names := foreign(path.read_bytes().decode(errors="replace"))):
            found[str(path.relative_to(ROOT))] = names
    assert found == {}


def test_the_search_for_such_names_finds_them() -> None:
    assert foreign(f"cd /{'work'}/main")
    assert foreign(f"https://files.{'pythonhosted'}.org/x")


def test_no_lock_file_is_tracked() -> None:
    assert ROOT / "uv.lock" not in tracked()


@pytest.mark.parametrize("package", ["torchnet", "torchnet_launch", "launch", "benchmarks", "tools"])
def test_modules_have_one_subject(package: str) -> None:
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] == package
    }
    assert sizes
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


def test_each_export_exists_and_stands_once() -> None:
    import torchnet

    assert len(set(torchnet.__all__)) == len(torchnet.__all__) > 0
    assert [name for name in torchnet.__all__ if not hasattr(torchnet, name)] == []
    assert [name for name in torchnet.__all__ if not (getattr(torchnet, name).__doc__ or "").strip()] == []


def test_the_version_is_one() -> None:
    import torchnet

    assert torchnet.__version__ == SETTINGS["project"]["version"]


def test_each_dependency_is_pinned() -> None:
    pins = {re.split(r"[ =;]", pin)[0] for pin in SETTINGS["tool"]["uv"]["constraint-dependencies"]}
    asked = [
        *SETTINGS["project"]["dependencies"],
        *(one for extra in SETTINGS["project"]["optional-dependencies"].values() for one in extra),
        *(one for group in SETTINGS["dependency-groups"].values() for one in group if isinstance(one, str)),
    ]
    names = {re.split(r"[ <>=;]", one)[0] for one in asked}
    assert names - pins == set()


def test_the_command_is_installed_under_its_name() -> None:
    points = importlib.metadata.entry_points(group="console_scripts", name="torchnet")
    if points:  # else the package is on the path without being installed; `uv run` installs it
        assert {point.value for point in points} == {SETTINGS["project"]["scripts"]["torchnet"]}
    assert SETTINGS["project"]["name"] == "torchnet-launch"


def test_the_checks_before_a_commit_are_all_checks() -> None:
    hooks = re.findall(r"entry: uv run tools/check.py (\w+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks == list(CHECKS)


def test_the_changelog_has_a_place_for_what_comes() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"


# The same step for a local job and for one on Kubernetes.
PARALLEL = {"launch.py", "monitor.py"}


def repeated(paths: list[str]) -> dict[str, int]:
    """File names that occur more than once, other than in the two parallel folders."""
    counts = Counter(path.rpartition("/")[2] for path in paths)
    for name in PARALLEL & counts.keys():
        counts[name] -= {f"torchnet/local/{name}", f"torchnet/k8s/run/{name}"} <= set(paths)
    return {name: count for name, count in counts.items() if count > 1 and not name.startswith("__")}


def test_a_module_name_means_one_thing() -> None:
    # Scripts that pods run carry the names of what people know: train.py, net.py.
    modules = [str(path.relative_to(ROOT)) for path in (ROOT / "torchnet").rglob("*.py")]
    assert repeated(modules) == {}
    assert repeated([*modules, "torchnet/linux/preflight.py", "torchnet/bench/launch.py"]) == {
        "preflight.py": 2,
        "launch.py": 2,
    }
