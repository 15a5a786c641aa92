"""What is found out about a script before anything starts."""

from __future__ import annotations

import os
import re
import stat
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from torchnet.config.job_spec import JobSpec
from torchnet.config.script_check import check_script


def checked(cwd: Path, script: str, **fields: object) -> str:
    return "\n".join(check_script(JobSpec.model_validate({"script": script, **fields}), cwd))


def test_a_script_under_any_path_is_fine(weird_tmp_path: Path) -> None:
    (weird_tmp_path / "train.py").write_text("print(1)\n")
    weird = 'a b\n"c" é中.py'
    (weird_tmp_path / weird).write_text("print(1)\n")
    for script in ("train.py", weird, str(weird_tmp_path / "train.py"), "./train.py"):
        assert checked(weird_tmp_path, script) == ""


def test_a_missing_script_and_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    assert checked(tmp_path, "trian.py") == "trian.py: no such file; did you mean train.py?"
    assert "no such file" in checked(tmp_path, "elsewhere/x.py")
    assert "Python" in checked(tmp_path, "python3")


@pytest.mark.parametrize("script", ["x" * 5000, "a\nb.py", "\udcff.py", "train.py/x", "\x1b[31m.py"])
def test_names_that_cannot_exist(tmp_path: Path, script: str) -> None:
    (tmp_path / "train.py").touch()
    message = checked(tmp_path, script)
    assert message
    assert message.isprintable()
    assert len(message) < 600


def test_directories_and_archives(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assert "directory" in checked(tmp_path, "app")
    (tmp_path / "app" / "__main__.py").touch()
    assert checked(tmp_path, "app") == ""
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", "print(1)")
    assert checked(tmp_path, "app.pyz") == ""
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data", "x")
    assert "binary" in checked(tmp_path, "data.zip")
    data = bytearray((tmp_path / "app.pyz").read_bytes())
    needed = data.index(b"PK\1\2") + 6  # the version of the format, in the directory's entry
    data[needed : needed + 2] = (99).to_bytes(2, "little")
    (tmp_path / "newer.pyz").write_bytes(data)
    assert "binary" in checked(tmp_path, "newer.pyz")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x7fELF\x02\x01\x01\0\0\0", "binary"),
        (b"print(1)\n\0", "binary"),
        (b"#!/bin/bash\nexit\n", "bash"),
        (b"#!/usr/bin/env perl\n1\n", "perl"),
        (b"echo hello\n", "line 1"),
        (b"x = '\xff'\n", "not valid Python"),
        (b"x = (\n" * 300, "not valid Python"),
    ],
)
def test_what_is_not_python_leads_to_no_python(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "job").write_bytes(content)
    message = checked(tmp_path, "job")
    assert said in message
    assert "--no-python" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/usr/bin/env python3\nprint(1)\n",
        b"#!/usr/bin/env -S uv run --script\nprint(1)\n",
        b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
        b"\xef\xbb\xbfprint(1)\r\n",
        b"'\\d'\n",  # compiles with a warning, which must not be an error here
        b"(" * 100 + b")" * 100,
    ],
)
def test_what_is_python(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.py").write_bytes(content)
    assert checked(tmp_path, "train.py") == ""


def test_a_pipe_cannot_be_read_by_every_rank(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.py")
    assert "regular file" in checked(tmp_path, "train.py")


PODS: dict[str, Any] = {
    "on": "kubernetes",
    "network": {"networks": ["net"]},
    "kubernetes": {"image": "example.org/image:1"},
}


def test_a_script_without_read_permission(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print(1)")
    script.chmod(0)
    assert re.search("Permission denied|capabilities", checked(tmp_path, "train.py", **PODS))
    assert bool(checked(tmp_path, "train.py")) == (os.geteuid() != 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has more rights than its scripts in pods")
def test_a_folder_that_only_capabilities_open(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)")
    assert checked(tmp_path, "private/train.py") == ""
    os.chown(folder, 12345, 12345)
    folder.chmod(0o700)
    assert "capabilities" in checked(tmp_path, "private/train.py", **PODS)
    assert checked(tmp_path, "private/train.py") == ""


def test_a_read_only_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print(1)")
    tmp_path.chmod(0o555)
    try:
        assert checked(tmp_path, "train.py") == ""
    finally:
        tmp_path.chmod(0o755)


def command(path: Path, content: str, mode: int = 0o755) -> None:
    path.write_text(content)
    path.chmod(mode)


def test_commands(tmp_path: Path) -> None:
    command(tmp_path / "run.sh", "#!/bin/sh\necho 1\n")
    assert checked(tmp_path, "./run.sh", no_python=True) == ""
    assert checked(tmp_path, sys.executable, no_python=True) == ""
    assert checked(tmp_path, "sh", no_python=True) == ""
    assert "./run.sh" in checked(tmp_path, "run.sh", no_python=True)
    assert "PATH" in checked(tmp_path, "no-such-command", no_python=True)
    assert "no such file" in checked(tmp_path, "./none.sh", no_python=True)
    assert "directory" in checked(tmp_path, "./", no_python=True)
    assert checked(tmp_path, "run.sh", no_python=True, env={"PATH": str(tmp_path)}) == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("echo 1\n", "#!/bin/sh"),
        ("#!/no/such/shell\n", "/no/such/shell"),
        ("#!/bin/sh\r\necho 1\r\n", "CR LF"),
        ("#!/usr/bin/env no-such-shell\n", "no-such-shell"),
        ("#!\n", "cannot be executed"),
        ("", "#!/bin/sh"),
    ],
)
def test_commands_whose_first_line_will_fail(tmp_path: Path, content: str, said: str) -> None:
    command(tmp_path / "run.sh", content)
    assert said in checked(tmp_path, "./run.sh", no_python=True)


def test_a_command_that_is_not_executable(tmp_path: Path) -> None:
    command(tmp_path / "run.sh", "#!/bin/sh\n", 0o644)
    assert not (tmp_path / "run.sh").stat().st_mode & stat.S_IXUSR
    assert "chmod +x" in checked(tmp_path, "./run.sh", no_python=True)


def test_modules(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("raise SystemExit('imported by the launcher')")
    (tmp_path / "pkg" / "train.py").touch()
    (tmp_path / "single.py").touch()
    assert checked(tmp_path, "pkg.train", module=True) == ""
    assert checked(tmp_path, "single", module=True) == ""
    assert checked(tmp_path, "json.tool", module=True) == ""
    assert "__main__" in checked(tmp_path, "pkg", module=True)
    (tmp_path / "pkg" / "__main__.py").touch()
    assert checked(tmp_path, "pkg", module=True) == ""
    assert "no module pkg.none" in checked(tmp_path, "pkg.none", module=True)
    assert "not a package" in checked(tmp_path, "single.x", module=True)
    assert "-m" in checked(tmp_path, "train.py", module=True)
    assert "-m" in checked(tmp_path, "pkg/train", module=True)


@pytest.mark.parametrize("name", ["a..b", ".a", "a b", "../x", "a\nb", "1a"])
def test_what_is_no_modules_name(tmp_path: Path, name: str) -> None:
    message = checked(tmp_path, name, module=True)
    assert message
    assert message.isprintable()


def test_asking_for_a_module_of_torch_imports_nothing(tmp_path: Path) -> None:
    before = set(sys.modules)
    checked(tmp_path, "torch.distributed.run", module=True)
    assert "torch" not in set(sys.modules) - before
