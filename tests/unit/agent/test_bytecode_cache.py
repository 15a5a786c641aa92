"""The bytecode that an agent in an archive keeps for the next start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import archive as agent_archive

# Starts like the archive's own __main__, imports NAMES, and prints how often which file was compiled.
PROGRAM = """
import builtins, collections, importlib, sys
archive, path, *names = sys.argv[1:]
sys.path.insert(0, archive)
from torchnet.agent import bytecode_cache
original, compiled = compile, collections.Counter()
def counting(source, file, *args, **kwargs):
    compiled[str(file)] += str(file).startswith(archive)
    return original(source, file, *args, **kwargs)
bytecode_cache.install(archive, path)
builtins.compile = counting
modules = [importlib.import_module(name) for name in names]
builtins.compile = original
bytecode_cache.save(archive, path)
print(sum(compiled.values()), max([0, *compiled.values()]), *(module.__file__ for module in modules))
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_archive.make(tmp_path_factory.mktemp("agent") / "agent.zip")


def start(archive: Path, path: Path | str, *names: str) -> tuple[int, int, list[str]]:
    """Return how many modules were compiled, how often at most one of them, and the files of those named."""
    words = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        PROGRAM,
        str(archive),
        str(path),
        *names,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=archive.parent)
    count, most, *files = done.stdout.split()
    return int(count), int(most), files


def test_a_module_is_compiled_once_for_all_starts(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "bytecode"
    names = "torchnet.agent.worker", "torchnet.network"
    count, most, files = start(archive, path, *names)
    assert count > 20
    assert most == 1
    assert files == [f"{archive}/torchnet/agent/worker.py", f"{archive}/torchnet/network/__init__.py"]
    assert start(archive, path, *names) == (0, 0, files)
    # What the first start did not need is compiled by the second.
    assert start(archive, path, "torchnet.agent.coordinator")[0] > 0


@pytest.mark.parametrize("wrong", ["another archive", "cut off", "no marshal", "another kind", "a folder"])
def test_a_file_that_does_not_fit_is_not_used(wrong: str, archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "bytecode"
    start(archive, path, "torchnet.constants")
    if wrong == "another archive":
        copy = tmp_path / archive.name
        copy.write_bytes(archive.read_bytes())
        archive = copy
    elif wrong == "cut off":
        path.write_bytes(path.read_bytes()[:-9])
    elif wrong == "no marshal":
        path.write_bytes(b"\xff" * 100)
    elif wrong == "another kind":
        path.write_bytes(b"i\x01\x00\x00\x00")  # an integer
    else:
        path.unlink()
        path.mkdir()
    assert start(archive, path, "torchnet.constants")[0] > 0


def test_without_a_file_each_start_compiles(archive: Path, tmp_path: Path) -> None:
    for path in ("", tmp_path / "missing" / "bytecode"):
        assert start(archive, path, "torchnet.constants")[0] > 0
    assert not list(tmp_path.iterdir())
