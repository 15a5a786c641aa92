"""README's two commands are what CI runs, and its figures are the measured ones; test_docs.py checks all pages."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.backend.compare import RATIOS
from tests.repo.documents import BOOTSTRAP, ROOT, text
from tools.readme import command


@pytest.mark.parametrize("name", ["train", "tests"])
def test_ci_runs_the_readmes_own_commands(name: str) -> None:
    printed = subprocess.run(
        [sys.executable, "tools/readme.py", name], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert printed == command(name)
    assert text("README.md").count(f"```sh\n{printed}\n```") == 1
    assert f"{name}=$(python3 tools/readme.py {name})" in text(".ci/run")
    assert f'bash -c "${name}"\n' in text(".ci/run")


def test_ci_has_no_copy_of_them() -> None:
    assert "pip install" not in text(".ci/run")
    assert "pytest" not in text(".ci/run")


def test_the_two_commands_differ_in_what_uv_runs_alone() -> None:
    assert command("train").startswith(f"{BOOTSTRAP}torchnet launch ")
    assert command("tests") == f"{BOOTSTRAP}pytest"


def test_the_readme_is_short() -> None:
    assert len(text("README.md").splitlines()) <= 120


def test_the_ratios_are_those_of_the_committed_results() -> None:
    """Each as the page has it: median (low to high), in the line or the sentence of its path."""
    page = " ".join(text("docs/benchmarks.md").split())
    results = [json.loads(text(f"benchmarks/results/{name}.json")) for name in ("shaped", "unshaped")]
    assert {found["rounds"] for found in results} == {6}
    assert "ratios of 6 interleaved rounds" in page
    shapes = {name: shape for found in results for name, shape in found["shapes"].items()}
    assert len(shapes) == 6
    columns = ("bench / iperf3 both", "bench / loop", "bench / gloo", "tcp one / iperf3 one")
    for name, shape in shapes.items():
        cells = []
        for column in columns:
            median, low, high = shape["ratios"][column]
            cells.append(f"{median:.3f} ({low:.3f} to {high:.3f})")
        assert f"| {' | '.join([name.replace(', n =', ','), *cells])} |" in page
    for name, nodes in (("unshaped, n = 2", "iperf3 with 2 nodes"), ("unshaped, n = 4", "times with 4")):
        median, low, high = shapes[name]["ratios"]["tcp both / iperf3 both"]
        assert f"{nodes} ({low:.3f} to {high:.3f})" in page
        assert f"{median:.3f} times" in page


def test_the_readmes_figures_are_rows_of_the_page_of_figures() -> None:
    figures = text("README.md").partition("## Figures")[2].partition("\n## ")[0]
    shown = [line for line in figures.splitlines() if line.startswith("| ")]
    assert len(shown) == 6
    assert set(shown) <= set(text("docs/benchmarks.md").splitlines())


def test_the_benchmarks_page_names_each_script_and_each_key() -> None:
    page = text("benchmarks/README.md")
    scripts = [path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem != "__init__"]
    assert [name for name in [*scripts, "backend"] if name not in page] == []
    assert all(f"`{name}`" in page for name in {side for pair in RATIOS for side in pair})
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        found = json.loads(path.read_text())
        keys = {
            *found,
            *(key for shape in found.get("shapes", {}).values() for key in shape),
            *found.get("ddp", {}),
        }
        assert [key for key in keys if f"`{key}`" not in page] == [], path.name


def test_contributing_is_one_page_and_names_every_package() -> None:
    page = text("CONTRIBUTING.md")
    assert len(page.splitlines()) <= 80
    for package in sorted((ROOT / "torchnet").iterdir()):
        if package.is_dir() and package.name != "__pycache__":
            assert package.name in page, f"torchnet/{package.name} is missing in CONTRIBUTING.md"
