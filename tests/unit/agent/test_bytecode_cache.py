"""The bytecode that an agent in an archive keeps for the next start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import archive as agent_archive
from torchnet.agent import bytecode_cache, zip_main
from torchnet.agent.bytecode_cache import TRAINING

# Starts like the archive's own __main__, imports NAMES, and prints how often which file was compiled.
PROGRAM = """
import builtins, collections, contextlib, importlib, os, signal, sys
archive, path, *names = sys.argv[1:]
sys.path.insert(0, archive)
from torchnet.agent import bytecode_cache
original, compiled = compile, collections.Counter()
def counting(source, file, *args, **kwargs):
    compiled[str(file)] += str(file).startswith(archive)
    return original(source, file, *args, **kwargs)
bytecode_cache.install(archive, path)
child = names.pop(0) if names[0] in ("child", "ignored child") else ""
if child == "ignored child":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if child:
    bytecode_cache.compile_rest(archive, path)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
builtins.compile = counting
modules = [importlib.import_module(name) for name in names]
builtins.compile = original
bytecode_cache.save(archive, path)
bytecode_cache.end()
try:
    os.wait()
    print("a process is left")
except ChildProcessError:
    pass
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


LOADED = """
import importlib, sys
archive, *names = sys.argv[1:]
sys.path.insert(0, archive)
for name in names:
    importlib.import_module(f"torchnet.agent.{name}")
print(*(name for name in sys.modules if name.partition(".")[0] == "torchnet"))
"""


@pytest.mark.parametrize("child", ["child", "ignored child"])
def test_a_child_compiles_what_only_the_training_container_needs(
    child: str, archive: Path, tmp_path: Path
) -> None:
    prepared = "command_line", "preparation", "status_dir"
    begins = "agent", "coordinator", "dns_client", "output_writer", "rank0_lookup"
    first, both = (loaded(archive, *names) for names in (prepared, prepared + begins))
    assert set(TRAINING) == both - first
    path = tmp_path / "bytecode"
    modules = [f"torchnet.agent.{name}" for name in prepared]
    count, _, files = start(archive, path, child, *modules)
    assert count > 20
    assert files[0] == f"{archive}/torchnet/agent/command_line.py"
    assert start(archive, path, *modules, *TRAINING)[0] == 0
    # What was written before the child was ended is used.
    rest = tmp_path / "bytecode-rest"
    rest.write_bytes(rest.read_bytes()[:-9])
    assert start(archive, path, *modules, *TRAINING)[0] == 1


def loaded(archive: Path, *names: str) -> set[str]:
    words = [sys.executable, "-I", "-S", "-c", LOADED, str(archive), *names]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("wrong", ["another archive", "cut off", "no marshal", "another kind", "a folder"])
def test_a_file_that_does_not_fit_is_not_used(wrong: str, archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "bytecode"
    start(archive, path, "torchnet.constants")
    if wrong == "another archive":
        copy = tmp_path / archive.name
        copy.write_bytes(archive.read_bytes())
        archive = copy
    elif wrong == "cut off":
        path.write_bytes(path.read_bytes()[:9])
    elif wrong == "no marshal":
        path.write_bytes(b"\xff" * 100)
    elif wrong == "another kind":
        path.write_bytes(b"\x05\x00\x00\x00i\x01\x00\x00\x00")  # an integer
    else:
        path.unlink()
        path.mkdir()
    assert start(archive, path, "torchnet.constants")[0] > 0


@pytest.mark.parametrize(
    ("words", "starts"),
    [
        (["--phase", "prepare", "--state", "{state}"], True),
        (["--phase", "prepare"], False),
        (["--phase", "work", "--state", "{state}", "--run-id", "prepare"], False),
        (["--state", "{state}", "--phase", "all"], False),
    ],
)
def test_only_a_preparation_starts_the_child_and_ends_it_however_it_ends_itself(
    words: list[str], starts: bool, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    for name in ("install", "compile_rest", "save", "end"):
        monkeypatch.setattr(bytecode_cache, name, lambda *_, name=name: called.append(name))
    monkeypatch.setattr(sys, "path", [str(archive), *sys.path])
    with pytest.raises(SystemExit):
        zip_main.main(["agent", *(word.format(state=tmp_path) for word in words), "--help", "prepare"])
    assert called == ["install", *(["compile_rest"] if starts else []), "end"]


def test_without_a_file_each_start_compiles(archive: Path, tmp_path: Path) -> None:
    start(archive, archive.parent / "bytecode", "child", "torchnet.agent.worker")
    (archive.parent / "bytecode-rest").replace(
        archive.parent / "-rest"
    )  # nobody's: without a path it is not read
    for path in ("", tmp_path / "missing" / "bytecode"):
        assert start(archive, path, "torchnet.agent.worker")[0] > 50
    assert not list(tmp_path.iterdir())
