"""Code that travels as a zip: unpacked within its folder, whatever the archive says."""

from __future__ import annotations

import random
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.agent.code_extraction import unpack
from torchnet.errors import UsageError


def archive(path: Path, **files: tuple[bytes, int]) -> str:
    with zipfile.ZipFile(path, "w") as file:
        for name, (data, mode) in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, data)
    return str(path)


def test_code_is_unpacked_with_its_modes_and_replaces_what_was_there(tmp_path: Path) -> None:
    made = {"a/run.sh": (b"#!/bin/sh\n", 0o100755), "train.py": (b"1", 0o100640), "plain": (b"", 0o100000)}
    source = archive(tmp_path / "code.zip", **made)
    target = tmp_path / "work"
    assert unpack(source, str(target)) == 3
    (target / "train.py").write_text("half of it")
    (target / "data").mkdir()  # what is mounted there stays
    (target / "data" / "kept").write_text("kept")
    assert unpack(source, str(target)) == 3
    assert (target / "train.py").read_bytes() == b"1"
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in target.rglob("*") if p.is_file()}
    assert modes == {"run.sh": 0o755, "train.py": 0o640, "plain": 0o644, "kept": modes["kept"]}
    assert not list(target.rglob(".*"))


def test_parts_are_one_archive(tmp_path: Path) -> None:
    """Of code that one ConfigMap cannot hold."""
    content = random.Random(1).randbytes(5000)
    whole = Path(archive(tmp_path / "whole.zip", **{"train.py": (content, 0)})).read_bytes()
    for number in range(12):  # .10 comes after .9
        (tmp_path / f"code.zip.{number + 1}").write_bytes(whole[number * 500 : (number + 1) * 500])
    assert unpack(str(tmp_path / "code.zip"), str(tmp_path / "work")) == 1
    assert (tmp_path / "work/train.py").read_bytes() == content
    (tmp_path / "code.zip.11").unlink()
    with pytest.raises(UsageError, match=r"code\.zip cannot be read as a zip file"):
        unpack(str(tmp_path / "code.zip"), str(tmp_path / "work"))
    archive(tmp_path / "code.zip", **{"other.py": (b"1", 0)})
    assert unpack(str(tmp_path / "code.zip"), str(tmp_path / "other")) == 1, "the file itself comes first"
    with pytest.raises(UsageError, match="No such file"):
        unpack(str(tmp_path / "missing.zip"), str(tmp_path / "work"))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "a/..", ".."])
def test_no_path_leads_outside(tmp_path: Path, name: str) -> None:
    source = archive(tmp_path / "code.zip", **{"good": (b"1", 0), name: (b"x", 0o100644)})
    with pytest.raises(UsageError, match="outside of its folder"):
        unpack(source, str(tmp_path / "work"))
    assert not (tmp_path / "work").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.large
def test_links_devices_and_bombs_are_refused(tmp_path: Path) -> None:
    for mode in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO):
        source = archive(tmp_path / "code.zip", link=(b"/etc", mode | 0o777))
        with pytest.raises(UsageError, match="plain file"):
            unpack(source, str(tmp_path / "work"))
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "sub").symlink_to(tmp_path)  # from before
    with pytest.raises(UsageError, match="leads outside"):
        unpack(archive(tmp_path / "code.zip", **{"sub/x": (b"x", 0)}), str(tmp_path / "work"))
    assert not (tmp_path / "x").exists()
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(11):
            file.writestr(str(number), bytes(100 << 20))
    with pytest.raises(UsageError, match="unpacks to"):
        unpack(str(bomb), str(tmp_path / "work"))
    for data in (b"", b"PK\x03\x04 nonsense", bomb.read_bytes()[:-100]):
        (tmp_path / "bad.zip").write_bytes(data)
        with pytest.raises(UsageError, match="zip file"):
            unpack(str(tmp_path / "bad.zip"), str(tmp_path / "work"))
    with pytest.raises(UsageError, match="No such file"):
        unpack(str(tmp_path / "none.zip"), str(tmp_path / "work"))


# Where a field stands in the file's own header and in the directory's entry (APPNOTE.TXT 4.3.7 and 4.3.12).
BEYOND = {"encrypted": (6, 8, 1), "of an unknown compression": (8, 10, 77), "of a newer format": (4, 6, 99)}


@pytest.mark.parametrize("what", BEYOND)
def test_an_archive_that_python_cannot_read_is_refused(tmp_path: Path, what: str) -> None:
    source = Path(archive(tmp_path / "code.zip", x=(b"x", 0)))
    data = bytearray(source.read_bytes())
    own, entry, value = BEYOND[what]
    for start in (own, data.index(b"PK\1\2") + entry):
        data[start : start + 2] = value.to_bytes(2, "little")
    source.write_bytes(data)
    with pytest.raises(
        UsageError, match="cannot be read as a zip file: .*(password|compression|version 9.9)"
    ):
        unpack(str(source), str(tmp_path / "work"))


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.text(st.sampled_from("ab./\\ é\u202e"), min_size=1, max_size=8), max_size=5))
def test_whatever_an_archive_is_called_it_stays_inside(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    with zipfile.ZipFile(folder / "code.zip", "w") as file:
        for name in dict.fromkeys(names):
            file.writestr(zipfile.ZipInfo(name), b"x")
    inside = folder / "deep" / "work"
    try:
        unpack(str(folder / "code.zip"), str(inside))
    except UsageError:
        pass
    assert {path.name for path in folder.iterdir()} <= {"code.zip", "deep"}
    assert {path.name for path in (folder / "deep").glob("*")} <= {"work"}
