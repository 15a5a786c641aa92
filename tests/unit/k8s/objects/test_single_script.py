"""One script of a full folder: it travels alone where it needs nothing else of the folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.code_folder import files, write
from tests.unit.rendered import job
from torchnet.bench.job import SCRIPT
from torchnet.k8s.objects import code_bundle
from torchnet.k8s.objects.code_bundle import CodeBundle, gather
from torchnet.k8s.objects.single_script import is_alone

PLAIN = """\
\"\"\"See notes.txt.\"\"\"
import os, sys
import torch.distributed as dist
from torch import nn
print(open("/data/x.csv"), "data", "helpers")
"""


@pytest.fixture(autouse=True)
def _agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_bundle, "agent_zip", lambda: b"agent")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A folder of downloads with a script that needs none of them."""
    write(tmp_path, "movie.mkv", "notes.txt", "helpers.py", "data/a.csv", "pkg/__init__.py", "key.pem")
    write(tmp_path, "train.py", text=PLAIN)
    return tmp_path


def gathered(root: Path, script: str = "train.py", **more: Any) -> CodeBundle:
    return gather(job(job_script=script, **more), root, os.environ)


def test_a_script_that_needs_nothing_else_travels_alone(full: Path) -> None:
    code = gathered(full)
    assert (files(code), code.script) == (["train.py"], "train.py")
    (said,) = code.left_out
    assert str(full) in said
    assert ".torchnetignore" in said


def test_a_folder_of_any_size_is_no_obstacle(full: Path) -> None:
    with open(full / "movie.mkv", "wb") as file:
        file.truncate(1 << 40)
    assert files(gathered(full)) == ["train.py"]


def test_a_script_without_company_is_not_worth_a_word(tmp_path: Path) -> None:
    write(tmp_path, "train.py", text=PLAIN)
    assert gathered(tmp_path).left_out == ()


@pytest.mark.parametrize(
    "line",
    [
        *("import helpers", "import helpers as h", "from helpers import x", "import os, helpers"),
        *("import pkg.sub", "from pkg.sub import x", "import data", "from . import x", "from .x import y"),
        *("def f():\n    import helpers", "try:\n    import helpers\nexcept ImportError: pass"),
        *('__import__("helpers")', 'importlib.import_module("pkg.sub")', 'runpy.run_module("helpers")'),
        *('open("notes.txt")', 'open("./notes.txt")', "os.system('python helpers.py --x')"),
        *('Path(__file__).parent / "notes.txt"', 'f"{root}/notes.txt"'),
        *("a = (", "\0", "print 'python 2'"),
        *("import_module(name)", 'import_module(f"pkg.{name}")', 'import_module(name="helpers")'),
        *(
            'load("./pkg")',
            'load("data/")',
            'load(f"data/{name}.csv")',
            "os.system('python pkg/x.py --in=data/a')",
        ),
        *('Path(__file__).parent / "pkg"', 'os.path.join(os.path.dirname(__file__), "data")'),
    ],
)
def test_if_it_may_need_them_the_folder_travels(full: Path, line: str) -> None:
    write(full, "train.py", text=f"{PLAIN}\n{line}\n")
    (full / "key.pem").unlink()
    assert files(gathered(full)) == [
        *("data/a.csv", "helpers.py", "movie.mkv", "notes.txt", "pkg/__init__.py", "train.py"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        *("import helper", "import torch.helpers", "from torch.pkg import data", "helpers = 1"),
        *('open("data")', 'open("other.txt")', 'x = "notes"', 'load("my-notes.txt")', "# notes.txt"),
        *('"""As in notes.txt"""', "import_module(5)", "import_module()", "load(name)"),
        *('open("/pkg/x")', 'get("https://example.org/data/x")', 'load("org/data")', 'x = "my/data/"'),
    ],
)
def test_what_only_looks_like_it_does_not(full: Path, line: str) -> None:
    write(full, "train.py", text=f"{PLAIN}\n{line}\n")
    assert is_alone(str(full / "train.py"))


@pytest.mark.parametrize(
    "marker",
    [
        *(".git/HEAD", "pyproject.toml", "setup.py", "setup.cfg", "torchnet.toml", ".hg/x", ".svn/x"),
        *("src/.torchnetignore", "src/__init__.py", "src/pyproject.toml"),
    ],
)
def test_a_project_travels_as_a_whole(tmp_path: Path, marker: str) -> None:
    write(tmp_path, "src/train.py", "src/other.bin", text=PLAIN)
    assert is_alone(str(tmp_path / "src/train.py")), "the control"
    write(tmp_path, marker)
    assert not is_alone(str(tmp_path / "src/train.py"))
    assert "other.bin" in files(gathered(tmp_path, "src/train.py"))


def test_an_ignore_file_above_marks_nothing(tmp_path: Path) -> None:
    write(tmp_path, "src/train.py", text=PLAIN)
    write(tmp_path, ".torchnetignore", "__init__.py")
    assert is_alone(str(tmp_path / "src/train.py"))


def test_modules_programs_and_folders_bring_their_folder(full: Path) -> None:
    (full / "key.pem").unlink()
    write(full, "app/__main__.py", "app/lib.py")
    assert len(files(gathered(full, "train", job_module=True))) == 8
    assert len(files(gathered(full, "./train.py", job_no_python=True))) == 8
    assert files(gathered(full, "app")) == ["__main__.py", "lib.py"]


def test_a_script_of_unknown_size_or_rights_brings_its_folder(full: Path) -> None:
    assert not is_alone(str(full / "missing.py"))
    write(full, "train.py", text="#" * (2 << 20))
    assert not is_alone(str(full / "train.py"))


def test_a_private_script_does_not_travel_alone_either(full: Path) -> None:
    write(full, "train.py", text="x = 1\n")
    (full / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nx\n")
    (full / "train.py").unlink()
    (full / "train.py").symlink_to("key.pem")
    assert files(gathered(full)) == [
        *("data/a.csv", "helpers.py", "movie.mkv", "notes.txt", "pkg/__init__.py"),
    ]


def test_a_benchmarks_own_script_brings_its_modules() -> None:
    """Also where torchnet is installed, outside of any project."""
    assert (Path(SCRIPT).parent / "__init__.py").exists()
    assert len(files(gathered(Path(SCRIPT).parent, SCRIPT))) > 10
