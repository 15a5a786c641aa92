"""What travels of the script's folder, and what stays."""

from __future__ import annotations

import io
import os
import random
import socket
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.rendered import job
from torchnet.errors import UsageError
from torchnet.render import code as code_module
from torchnet.render.code import Code, gather
from torchnet.render.identity import user_key


@pytest.fixture(autouse=True)
def _agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own zip has tests of its own."""
    monkeypatch.setattr(code_module, "agent_zip", lambda: b"agent" * 1000)


def write(root: Path, *files: str, text: str = "x") -> None:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files(code: Code) -> list[str]:
    assert code.code_zip is not None
    return zipfile.ZipFile(io.BytesIO(code.code_zip)).namelist()


def read(root: Path, script: str = "train.py", **more: Any) -> Code:
    return gather(job(job_script=script, **more), root)


def test_the_scripts_folder_travels_with_what_is_below(tmp_path: Path) -> None:
    write(tmp_path, "src/train.py", "src/lib/__init__.py", "src/lib/data/a.json", "src/.hidden", "other.py")
    code = read(tmp_path, "src/train.py")
    assert files(code) == [".hidden", "lib/__init__.py", "lib/data/a.json", "train.py"]
    assert (code.script, code.left_out) == ("train.py", ())


@pytest.mark.parametrize(
    ("more", "script", "called"),
    [
        ({"job_module": True}, "pkg.train", "pkg.train"),
        ({"job_no_python": True}, "./run.sh", "./run.sh"),
        ({"job_no_python": True}, "bin/run.sh", "./bin/run.sh"),
        ({"job_no_python": True}, "accelerate", "accelerate"),
        ({"job_no_python": True}, "/usr/bin/env", "/usr/bin/env"),
    ],
)
def test_modules_and_programs_bring_the_working_directory(
    tmp_path: Path, more: dict[str, object], script: str, called: str
) -> None:
    write(tmp_path, "pkg/train.py", "run.sh", "bin/run.sh")
    code = read(tmp_path, script, **more)
    assert code.script == called
    assert files(code) == ["bin/run.sh", "pkg/train.py", "run.sh"]


def test_a_folder_with_a_main_is_a_script_too(tmp_path: Path) -> None:
    write(tmp_path, "app/__main__.py", "app/lib.py", "x.py")
    code = read(tmp_path, "app")
    assert (code.script, files(code)) == (".", ["__main__.py", "lib.py"])


@pytest.mark.parametrize("place", ["image", "pvc:claim/path"])
def test_what_is_there_already_is_not_read(tmp_path: Path, place: str) -> None:
    code = read(tmp_path, "missing.py", code=place)
    assert (code.code_zip, code.script) == (None, "missing.py")


def test_the_same_bytes_whenever_and_however_it_was_written(tmp_path: Path) -> None:
    names = ["train.py", "b/x.py", "a.py", "b/y.py"]
    for number, folder in enumerate(("one", "two")):
        random.Random(number).shuffle(names)
        for name in names:
            write(tmp_path / folder, name, text=name)
            os.utime(tmp_path / folder / name, (1e9 * (number + 1), 1e9))
            (tmp_path / folder / name).chmod(0o600 if number else 0o644)
    assert read(tmp_path / "one") == read(tmp_path / "two")
    archive = zipfile.ZipFile(io.BytesIO(read(tmp_path / "one").code_zip or b""))
    assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_programs_stay_programs(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "run.sh")
    (tmp_path / "run.sh").chmod(0o700)
    archive = zipfile.ZipFile(io.BytesIO(read(tmp_path).code_zip or b""))
    assert {info.filename: info.external_attr >> 16 & 0o777 for info in archive.infolist()} == {
        "run.sh": 0o755,
        "train.py": 0o644,
    }


# -- what stays


def test_what_never_travels(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.py",
        ".git/config",
        "a/__pycache__/x.pyc",
        "env/pyvenv.cfg",
        "env/lib/x.py",
        ".venv/x",
        "a/b.py",
    )
    assert files(read(tmp_path)) == ["a/b.py", "train.py"]


def test_the_key_of_runs_secrets_never_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    user_key(os.environ)
    write(tmp_path, "train.py", ".config/torchnet/other")
    (tmp_path / "link").symlink_to(".config/torchnet/key")
    assert files(read(tmp_path)) == [".config/torchnet/other", "train.py"]


def test_what_cannot_travel_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "folder/a.py", "data.txt")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    write(outside, "secret.txt")
    (tmp_path / "out").symlink_to(outside / "secret.txt")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "round").symlink_to(".")
    (tmp_path / "folder" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "inside").symlink_to("data.txt")
    (tmp_path / "again").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe")
    with open(os.fsencode(tmp_path) + b"/\xff.txt", "w"):
        pass
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    try:
        os.chdir(tmp_path)  # a socket's path has 107 bytes
        server.bind("socket")
    finally:
        os.chdir(here)
        server.close()
    code = read(tmp_path)
    assert files(code) == ["again/a.py", "data.txt", "folder/a.py", "inside", "train.py"]
    told = dict(line.rsplit(": ", 1) for line in code.left_out)
    assert told["out"] == told["up"] == "leads out of the folder"
    assert told["round"] == told["folder/loop"] == "leads to a folder that it is in"
    assert told["gone"] == told["self"] == "leads nowhere"
    assert told["pipe"] == told["socket"] == "is no regular file"
    assert "UTF-8" in told["\\udcff.txt"]
    assert all(line.isprintable() for line in code.left_out)


def test_hostile_names_arrive_as_they_are(tmp_path: Path) -> None:
    names = ["a b", "a\nb", "..a", "a\\b", "-rf", "é", "\x1b[31m", "'\"", "$(x)", "a:b", "CON"]
    write(tmp_path, "train.py", *names)
    assert files(read(tmp_path)) == sorted([*names, "train.py"])
    assert not [name for name in files(read(tmp_path)) if name.startswith("/") or ".." in name.split("/")]


# -- what is to stay


def test_ignore_files_as_git_reads_them(tmp_path: Path) -> None:
    write(
        tmp_path,
        "train.py",
        "a.pt",
        "keep.pt",
        "data/x.bin",
        "sub/a.log",
        "sub/keep.log",
        "sub/deep/b.log",
        "build",
        "sub/build",
    )
    (tmp_path / ".gitignore").write_text("*.pt\n!keep.pt\ndata/\n/build\n*.log\n")
    (tmp_path / "sub" / ".gitignore").write_text("!keep.log\n")
    (tmp_path / "sub" / "deep" / ".gitignore").write_text("!*.log\n")
    expected = [
        ".gitignore",
        "keep.pt",
        "sub/.gitignore",
        "sub/build",
        "sub/deep/.gitignore",
        "sub/deep/b.log",
        "sub/keep.log",
        "train.py",
    ]
    assert files(read(tmp_path)) == expected


def test_torchnetignore_goes_before_gitignore(tmp_path: Path) -> None:
    write(tmp_path, "train.py", "weights.pt", "big.bin", "notes.md")
    (tmp_path / ".gitignore").write_text("*.pt\nnotes.md\n")
    (tmp_path / ".torchnetignore").write_text("!weights.pt\n*.bin\n.*\n")
    assert files(read(tmp_path)) == ["train.py", "weights.pt"]


def test_the_checkouts_own_rules_count_below_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        "repo/.git/config",
        "repo/src/train.py",
        "repo/src/a.tmp",
        "repo/src/b.local",
        "repo/src/out/x",
    )
    (tmp_path / ".gitignore").write_text("*.py\n")  # outside of the checkout
    (tmp_path / "repo/.gitignore").write_text("*.tmp\nsrc/out\n")
    write(tmp_path, "repo/.git/info/exclude", text="*.local\n")
    assert files(read(tmp_path / "repo", "src/train.py")) == ["train.py"]
    (tmp_path / "repo/.gitignore").write_text("")
    assert files(read(tmp_path / "repo/src")) == ["a.tmp", "out/x", "train.py"]


def test_without_a_checkout_only_the_folders_own_files_count(tmp_path: Path) -> None:
    write(tmp_path, "src/train.py", "src/a.tmp")
    (tmp_path / ".gitignore").write_text("*.tmp\n")
    assert files(read(tmp_path / "src")) == ["a.tmp", "train.py"]


PATTERNS = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "*",
            "!a",
            "a/",
            "/a",
            "b/*",
            "!b/a",
            "**/a",
            "a/**",
            "!*/",
            "#x",
            "",
            "[ab]",
            "!/b",
            "a/b",
            "d/**",
            "!d/b/a",
            "**/b/*",
            "\\!a",
            "*b",
        ]
    ),
    max_size=5,
)
PATHS = ["a", "b", "c/a", "c/b", "d/a/b", "d/b/a", "!a", "e/ab"]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(top=PATTERNS, inner=PATTERNS)
def test_the_same_files_as_git_would_take(tmp_path: Path, top: list[str], inner: list[str]) -> None:
    root = tmp_path / "repo"
    if not root.exists():
        write(root, *PATHS)
        subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / ".gitignore").write_text("\n".join(top))
    (root / "d" / ".gitignore").write_text("\n".join(inner))
    listed = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    ours = read(root, "x", job_module=True)
    assert sorted(files(ours)) == sorted(filter(None, listed.stdout.split("\0")))


# -- what is too large


def test_a_folder_that_is_too_large_is_refused_with_sizes_and_ways_out(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    noise = random.Random(1).randbytes
    (tmp_path / "weights.bin").write_bytes(noise(900 << 10))
    (tmp_path / "more\n.bin").write_bytes(noise(300 << 10))
    with pytest.raises(UsageError) as caught:
        read(tmp_path)
    said = str(caught.value)
    for part in ("1.2 MiB", "1.0 MiB", "900.0 KiB  weights.bin", "300.0 KiB  more\\x0a.bin"):
        assert part in said
    for way in (".torchnetignore", "--code image", "--code pvc:"):
        assert way in said
    (tmp_path / ".torchnetignore").write_text("weights.bin\n")
    assert "weights.bin" not in files(read(tmp_path))


def test_the_agents_part_of_the_configmap_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "train.py")
    (tmp_path / "x.bin").write_bytes(random.Random(1).randbytes(600 << 10))
    read(tmp_path)
    monkeypatch.setattr(code_module, "agent_zip", lambda: bytes(500 << 10))
    with pytest.raises(UsageError, match="ConfigMap"):
        read(tmp_path)


def test_a_data_set_is_not_read_to_find_that_it_is_too_large(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    with open(tmp_path / "data.bin", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match=r"1024\.0 GiB"):
        read(tmp_path)


def test_a_folder_of_very_many_files_is_not_walked_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_module, "FILES_LIMIT", 50)
    write(tmp_path, "train.py", *(f"d{number // 40}/{number}" for number in range(200)))
    with pytest.raises(UsageError, match="51 files"):
        read(tmp_path)
