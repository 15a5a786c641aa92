"""What the documents for people say is true: commands, flags, names, files and links."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.backend.compare import RATIOS
from tests.conftest import Result
from tests.unit.bench_results import healthy
from tools.readme import blocks, command
from torchnet.bench.results import dump

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
BOOTSTRAP = "python3 -m pip install -qq --target .uv uv && .uv/bin/uv run "


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def shell_lines(name: str) -> list[str]:
    """Every command of a document, without the way uv comes to the machine, and without comments."""
    lines = [line for block in blocks(text(name)) for line in block.replace("\\\n", "").splitlines()]
    return [shlex.join(shlex.split(line.removeprefix(BOOTSTRAP), comments=True)) for line in lines if line]


TORCHNET_LINES = sorted(
    {line for name in DOCUMENTS for line in shell_lines(name) if line.startswith("torchnet ")}
)


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


def test_there_are_commands_to_check() -> None:
    assert len(TORCHNET_LINES) >= 6


@pytest.mark.parametrize("line", TORCHNET_LINES)
def test_each_command_line_is_understood(torchnet: Callable[..., Result], line: str, tmp_path: Path) -> None:
    words = shlex.split(line.partition(" '|'")[0])[1:]
    (tmp_path / "train.py").touch()  # on Kubernetes its folder travels, and the dry run shows it
    if words[:2] == ["bench", "diff"]:
        for name in words[2:]:
            (tmp_path / name).write_text(dump(healthy(2)))
    elif words[0] in ("launch", "bench"):
        words[1:1] = [] if "--dry-run" in words else ["--dry-run"]
    done = torchnet(*words, cwd=tmp_path, env={"KUBECONFIG": str(tmp_path / "none")})
    if words[0] in ("status", "logs", "attach", "down", "verify"):
        assert done.code == 3, done.stderr  # understood: all that is missing is a cluster
        return
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout


def test_each_flag_exists(torchnet: Callable[..., Result]) -> None:
    """All words like --this in README; those of other programs stand in shell blocks with their program."""
    prose = re.sub(r"^```.*?^```$", "", text("README.md"), flags=re.DOTALL | re.MULTILINE)
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose))
    helps = torchnet("launch", "--help").stdout + torchnet("bench", "--help").stdout
    known = set(re.findall(r"--[a-z][a-z-]+", helps)) | {"--server-side"}  # kubectl's
    assert len(shown) > 10
    assert shown - known == set()


def test_each_variable_exists(torchnet: Callable[..., Result]) -> None:
    shown = set(re.findall(r"`([A-Z][A-Z]+_[A-Z_]+)`", text("README.md"))) - {"CUDA_VISIBLE_DEVICES"}
    assert "MASTER_ADDR" in shown
    known = {variable["name"] for variable in json.loads(torchnet("env", "--explain", "-o", "json").stdout)}
    assert shown - known == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_file_that_is_named_exists(name: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", text(name))
    quoted = re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?)`", text(name))
    words = [word for line in shell_lines(name) for word in line.split()]
    scripts = [word for word in words if re.fullmatch(r"[\w.-]+/[\w./-]+\.[a-z]+", word)]
    local = [path for path in [*links, *quoted, *scripts] if "://" not in path]
    assert [path for path in local if not (ROOT / path).exists()] == []


def test_the_python_examples_name_what_exists() -> None:
    import torchnet

    found = re.findall(r"^```python\n(.*?)^```$", text("README.md"), re.DOTALL | re.MULTILINE)
    names = {
        node.attr
        for example in found
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "torchnet"
    }
    assert {"init", "traffic"} <= names
    assert names <= set(torchnet.__all__)


def test_the_ratios_are_those_of_the_committed_results() -> None:
    """Each as README has it: median (low to high), in the line or the sentence of its path."""
    page = " ".join(text("README.md").split())
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


def test_contributing_is_one_page_and_has_the_way_of_a_launch() -> None:
    page = text("CONTRIBUTING.md")
    assert len(page.splitlines()) <= 70
    for package in sorted((ROOT / "torchnet").iterdir()):
        if package.is_dir() and package.name != "__pycache__":
            assert package.name in page, f"torchnet/{package.name} is missing in CONTRIBUTING.md"
