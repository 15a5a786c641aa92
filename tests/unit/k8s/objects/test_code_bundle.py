"""What travels of the script's folder, and how much may."""

from __future__ import annotations

import io
import os
import random
import zipfile
from pathlib import Path

import pytest

from tests.unit.code_folder import files, read, small_agent, write
from torchnet.errors import UsageError
from torchnet.k8s.objects import code_bundle as code_module

_agent = pytest.fixture(autouse=True)(small_agent)


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


def test_hostile_names_arrive_as_they_are(tmp_path: Path) -> None:
    names = ["a b", "a\nb", "..a", "a\\b", "-rf", "é", "\x1b[31m", "'\"", "$(x)", "a:b", "CON"]
    write(tmp_path, "train.py", *names)
    assert files(read(tmp_path)) == sorted([*names, "train.py"])
    assert not [name for name in files(read(tmp_path)) if name.startswith("/") or ".." in name.split("/")]


# -- what is too large


def test_a_folder_that_is_too_large_is_refused_with_sizes_and_ways_out(tmp_path: Path) -> None:
    write(tmp_path, "train.py")
    noise = random.Random(1).randbytes
    (tmp_path / "weights.bin").write_bytes(noise(2900 << 10))
    (tmp_path / "more\n.bin").write_bytes(noise(300 << 10))
    with pytest.raises(UsageError) as caught:
        read(tmp_path)
    said = str(caught.value)
    for part in ("3.1 MiB", "3.0 MiB", "2.8 MiB  weights.bin", "300.0 KiB  more\\x0a.bin"):
        assert part in said
    for way in (".torchnetignore", "--code image", "--code pvc:"):
        assert way in said
    (tmp_path / ".torchnetignore").write_text("weights.bin\n")
    assert "weights.bin" not in files(read(tmp_path))


def test_the_limit_is_of_the_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "train.py")
    (tmp_path / "x.bin").write_bytes(random.Random(1).randbytes(3 << 20))
    with pytest.raises(UsageError, match="ConfigMaps"):
        read(tmp_path)
    (tmp_path / "x.bin").write_bytes(random.Random(1).randbytes((3 << 20) - 2000))
    monkeypatch.setattr(code_module, "agent_zip", lambda: bytes(500 << 10))
    assert len(read(tmp_path).code_zip or b"") > (3 << 20) - 2000


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
