"""The agent's zip: just what an agent loads, found without loading it, and it runs."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from torchnet.constants import AGENT_ZIP
from torchnet.errors import TorchnetError
from torchnet.k8s.objects import agent_zip as agent_zip_module
from torchnet.k8s.objects.agent_zip import agent_zip

ROOT = Path(__file__).resolve().parents[4]
LOADED = """
import importlib, pkgutil, sys, torchnet.agent, torchnet.network, torchnet.training
for package in (torchnet.agent, torchnet.network, torchnet.training):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(*sorted(n for n in sys.modules if n.partition(".")[0] in ("pyroute2", "torchnet")), sep="\\n")
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agent") / AGENT_ZIP
    path.write_bytes(agent_zip())
    return path


def modules(archive: Path) -> set[str]:
    names = [name for name in zipfile.ZipFile(archive).namelist() if name != "__main__.py"]
    return {name.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for name in names}


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_its_modules_are_those_that_an_agent_loads(archive: Path) -> None:
    done = run(sys.executable, "-c", LOADED, folder=ROOT)
    loaded = set(done.stdout.split())
    assert loaded, done.stderr
    assert loaded - modules(archive) == set()
    # Beside them only what Python itself starts, and what the ranks of a benchmark load.
    beside = {"torchnet.agent.sitecustomize.sitecustomize", "torchnet.linux.link_speed"}
    assert modules(archive) - loaded == beside


@pytest.mark.parametrize(("variables", "code"), [({}, 143), ({"TORCHNET_REPLACED": ""}, 75)])
def test_it_hears_that_it_is_to_end_before_anything_is_loaded(
    archive: Path, tmp_path: Path, variables: dict[str, str], code: int
) -> None:
    """As a container's first process it would not without a handler, and the imports take a while."""
    slow = tmp_path / "slow.zip"
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(slow, "w") as made:
        made.writestr("__main__.py", whole.read("__main__.py"))
        made.writestr("torchnet/__init__.py", "import time\nprint('loads', flush=True)\ntime.sleep(30)\n")
    environ = {**os.environ, **variables}
    with subprocess.Popen([sys.executable, str(slow)], stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loads\n"
        process.terminate()
        assert process.wait(10) == code


def test_it_is_small_and_holds_what_workers_need_and_nothing_else(archive: Path) -> None:
    assert archive.stat().st_size <= 240 * 1024
    own = {name.split(".")[1] if "." in name else "" for name in modules(archive)}
    assert own == {
        "",
        "agent",
        "constants",
        "errors",
        "linux",
        "network",
        "rlimits",
        "text",
        "training",
        "units",
    }
    assert {name.partition("/")[0] for name in zipfile.ZipFile(archive).namelist()} == {
        "__main__.py",
        "torchnet",
    }
    assert "torchnet/agent/sitecustomize/sitecustomize.py" in zipfile.ZipFile(archive).namelist()


def test_comments_and_docstrings_stay_at_home_and_nothing_else_does(archive: Path) -> None:
    with zipfile.ZipFile(archive) as whole:
        own = [name for name in whole.namelist() if name.startswith("torchnet/")]
        for name in own:
            here, there = (ROOT / name).read_text(), whole.read(name).decode()
            assert undocumented(there) == undocumented(here), name
            assert not [line for line in there.splitlines() if line.strip().startswith("#")], name
            assert '"""' not in there, name
    assert "torchnet/agent/event_loop.py" in own


def undocumented(source: str) -> str:
    """Return the syntax tree of ``source``, with the places where all begins, and each docstring as ``""``."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            node.value = ast.Constant("")
        for end in {"end_lineno", "end_col_offset"} & {*node._attributes}:
            setattr(node, end, None)
    return ast.dump(tree, include_attributes=True)


def test_the_same_bytes_each_time(archive: Path) -> None:
    assert agent_zip() == archive.read_bytes()


def test_building_it_imports_neither_torch_nor_pyroute2() -> None:
    code = (
        "import sys\nfrom torchnet.k8s.objects.agent_zip import agent_zip\nagent_zip()\n"
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'torch', 'pyroute2', 'kubernetes', 'numpy'}))"
    )
    assert run(sys.executable, "-c", code, folder=ROOT).stdout == "[]\n"


def test_it_runs_with_nothing_installed(archive: Path) -> None:
    done = run(sys.executable, "-S", str(archive), "agent", "--help", folder=archive.parent)
    assert (done.returncode, done.stderr) == (0, "")
    for flag in ("--phase", "--state", "--attachment"):
        assert flag in done.stdout
    wrong = run(sys.executable, "-S", str(archive), "agent", folder=archive.parent)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_it_ends_at_once_but_only_with_all_written(archive: Path) -> None:
    words = [sys.executable, str(archive), "--version"]
    done = run(*words, folder=archive.parent)
    assert (done.returncode, done.stdout.partition(" ")[0]) == (0, "torchnet")
    with open("/dev/full", "w") as full:
        assert subprocess.run(words, stdout=full, stderr=subprocess.DEVNULL, check=False).returncode > 0


def test_training_scripts_find_torchnet_behind_what_the_image_has(archive: Path, tmp_path: Path) -> None:
    code = "import sys, torchnet; print(torchnet.__file__, torchnet.__version__, sys.path[-1])"
    site = f"{archive}/torchnet/agent/sitecustomize"  # as the agent puts it before each process
    for paths, place in ((site, str(archive)), (f"{site}:{tmp_path}", str(tmp_path))):
        done = subprocess.run(
            [
                sys.executable,
                "-s",
                "-c",
                f"import sys; sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]; {code}",
            ],
            env={"PYTHONPATH": paths, "PATH": os.environ["PATH"]},
            cwd=archive.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        where, _, last = done.stdout.split()
        assert (where, last) == (f"{place}/torchnet/__init__.py", str(archive))
        # An image with a torchnet of its own: the next round.
        (tmp_path / "torchnet").mkdir(exist_ok=True)
        (tmp_path / "torchnet" / "__init__.py").write_text("__version__ = 'own'\n")


def test_the_zip_on_the_path_is_enough_to_import_it(archive: Path) -> None:
    code = "import torchnet, sys; print(torchnet.init, torchnet.__file__)"
    environment = {"PYTHONPATH": str(archive), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        cwd=archive.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{AGENT_ZIP}/torchnet" in done.stdout


@pytest.mark.parametrize("part", ["missing.py", "missing"])
def test_what_an_installation_lacks_is_named(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_zip_module, "PARTS", ("__init__.py", part))
    with pytest.raises(TorchnetError, match=rf"torchnet.*{part}"):
        agent_zip()


def test_entries_have_a_fixed_time_and_mode(archive: Path) -> None:
    for info in zipfile.ZipFile(io.BytesIO(archive.read_bytes())).infolist():
        assert (info.date_time, info.external_attr >> 16) == ((1980, 1, 1, 0, 0, 0), 0o100644)
