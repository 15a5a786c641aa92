"""The wheel: which files are in it, and that it runs without the checkout where torch is installed already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import lines
from tests.repo.test_house import SETTINGS
from torchnet_launch import FIX

ROOT = Path(__file__).resolve().parent.parent.parent
# Not Python modules, or run as scripts instead of imported: a build backend may leave such files out.
DATA = {
    "torchnet/py.typed",
    "torchnet/receipt/receipt.schema.json",
    "torchnet/bench/results.schema.json",
    "torchnet/agent/sitecustomize/sitecustomize.py",
    "torchnet/k8s/addons/example_scripts/train.py",
    "torchnet/k8s/verify/pod_script/probe.py",
}
SCRIPT = """\
import torch
import torch.distributed

import torchnet

torchnet.init()
ones = torch.ones(1 << 18)
torch.distributed.all_reduce(ones)
print(torchnet.__file__, int(ones[0]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # The backend is inside uv, as long as pyproject.toml allows uv's version: nothing is fetched.
    run(needs.uv(), "build", "--wheel", "--python", sys.executable, "--out-dir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and behind it the packages that the tests themselves import."""
    folder = tmp_path_factory.mktemp("environment")
    run(needs.uv(), "venv", "--offline", "--python", sys.executable, folder, cwd=folder)
    install = ("pip", "install", "--offline", "--no-deps", "--python", folder, wheel)
    run(needs.uv(), *install, cwd=folder)
    # Python does not process the .pth files of folders that come from such a file: the checkout stays out.
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site_packages(folder) / "packages-of-the-tests.pth").write_text("\n".join(packages))
    return folder


def site_packages(environment: Path) -> Path:
    (path,) = environment.glob("lib/python*/site-packages")
    return path


def run(*command: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command's output, with nothing in the environment that leads to the checkout."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    needs.ended(done.stderr)
    assert done.returncode == code, done.stderr
    return done


def test_the_wheel_has_the_two_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    files = {name for name in names if ".dist-info/" not in name}
    packages = [path for name in ("torchnet", "torchnet_launch") for path in (ROOT / name).rglob("*.*")]
    assert files == {str(path.relative_to(ROOT)) for path in packages if path.suffix != ".pyc"}
    assert files > DATA
    metadata = {name.partition(".dist-info/")[2] for name in names - files}
    assert metadata == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_it_runs_outside_of_the_checkout(environment: Path, tmp_path: Path) -> None:
    package = site_packages(environment) / "torchnet"
    torchnet = environment / "bin" / "torchnet"
    version = SETTINGS["project"]["version"]
    assert run(torchnet, "--version", cwd=tmp_path).stdout == f"torchnet {version}\n"
    assert run(torchnet.with_name("kubectl-torchnet"), "--version", cwd=tmp_path).stdout
    multus = run(torchnet, "manifests", "multus", cwd=tmp_path).stdout
    assert "kind: DaemonSet" in multus

    (tmp_path / "train.py").write_text(SCRIPT)
    options = ("--nnodes", 2, "--min-share", 1, "--json", "receipt.json")
    ran = run(torchnet, "launch", *options, "train.py", cwd=tmp_path)
    assert [lines(ran.stdout, rank)[-1] for rank in (0, 1)] == [f"{package / '__init__.py'} 2"] * 2
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert (receipt["backend_share"], receipt["proof"]) == (1.0, "measured")


def test_the_other_distribution_of_this_import_name_is_reported(environment: Path, tmp_path: Path) -> None:
    torchnet = environment / "bin" / "torchnet"
    commands = [("--version",), ("launch", "--dry-run", "train.py")]
    assert [run(torchnet, *words, cwd=tmp_path).stderr for words in commands] == ["", ""]
    metadata = site_packages(environment) / "torchnet-0.0.4.dist-info"
    metadata.mkdir()
    try:
        warnings = [run(torchnet, *words, cwd=tmp_path).stderr for words in commands]
    finally:
        metadata.rmdir()
    assert all(f'"torchnet" 0.0.4 in {metadata.parent}' in text for text in warnings)
    assert all(FIX in text for text in warnings)


@pytest.mark.parametrize(
    "text",
    ["from . import dataset, meter, engine, transform, logger\n", '__all__ = ["meter"]\n', None],
    ids=["fails", "imports", "uninstalled"],
)
def test_a_replaced_package_is_reported(environment: Path, tmp_path: Path, text: str | None) -> None:
    """As pip leaves it: the other distribution's __init__.py instead of ours, or none after its removal."""
    file = site_packages(environment) / "torchnet" / "__init__.py"
    own = file.read_text()
    file.unlink()
    if text is not None:
        file.write_text(text)
    try:
        ran = run(environment / "bin" / "torchnet", "--version", cwd=tmp_path, code=70)
    finally:
        file.write_text(own)
    assert ran.stdout == ""
    assert str(file.parent) in ran.stderr
    assert FIX in ran.stderr
    assert "Traceback" not in ran.stderr
