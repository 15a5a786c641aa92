"""Results on disk: whole or not at all, and never lost."""

from __future__ import annotations

import io
import json
import os
import select
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from torchnet.console.files import problem, write_json

RESULT = {"exit_code": 0, "reason": "döne \x1b[2J"}


def save(path: str | Path, receipt: dict[str, Any] = RESULT) -> tuple[str | None, str, str]:
    out, err = io.StringIO(), io.StringIO()
    reason = write_json(str(path), receipt, stdout=out, stderr=err)
    return reason, out.getvalue(), err.getvalue()


def test_a_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    assert save(path) == (None, "", "")
    assert json.loads(path.read_text()) == RESULT
    assert path.read_text().isascii()
    assert os.listdir(tmp_path) == ["receipt.json"]


def test_the_umask_counts_and_an_old_files_mode_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    mask = os.umask(0o027)
    try:
        save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(mask)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("there/receipt.json")
    assert save(link)[0] is None
    assert link.is_symlink()
    assert json.loads((tmp_path / "there/receipt.json").read_text()) == RESULT


@pytest.mark.parametrize("name", ["with space", "new\nline", "ünï", "-rf", "x" * 255])
def test_hostile_names(tmp_path: Path, name: str) -> None:
    assert save(tmp_path / name)[0] is None
    assert json.loads((tmp_path / name).read_text()) == RESULT


def test_a_dash_is_standard_output() -> None:
    reason, out, err = save("-")
    assert (reason, err) == (None, "")
    assert json.loads(out) == RESULT


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("missing/receipt.json", "No such file or directory"),
        (".", "Is a directory"),
        ("nul\0", "embedded null"),
    ],
)
def test_what_cannot_be_written_is_on_standard_output(tmp_path: Path, path: str, why: str) -> None:
    reason, out, err = save(f"{tmp_path}/{path}")
    assert reason
    assert json.loads(out) == RESULT
    assert reason in err
    assert why in err
    assert err.startswith("torchnet: error: ")
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_a_full_device_is_on_standard_output() -> None:
    reason, out, err = save("/dev/full")
    assert reason
    assert json.loads(out) == RESULT
    assert "No space left on device" in err
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_device_is_written_to_and_stays_one() -> None:
    assert save("/dev/null") == (None, "", "")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reason, out, _ = save(tmp_path / "pipe")
    assert reason
    assert json.loads(out) == RESULT


def test_a_pipe_with_a_reader_is_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    big, got = {"text": "x" * 1_000_000}, bytearray()
    writer = threading.Thread(target=save, args=(fifo, big))
    writer.start()
    assert select.select([reading], [], [], 10)[0]
    os.set_blocking(reading, True)
    while data := os.read(reading, 65536):
        got.extend(data)
    writer.join(10)
    os.close(reading)
    assert json.loads(got) == big


def test_nothing_raises_where_standard_output_is_gone_too() -> None:
    closed = io.StringIO()
    closed.close()
    assert write_json("/dev/full", RESULT, stdout=closed, stderr=closed)


def test_what_is_no_json_goes_to_standard_output_and_nothing_is_raised(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    huge = 10**5000
    things: list[Any] = [float("nan"), float("inf"), object(), {1, 2}, deep, huge]
    for path in (str(tmp_path / "receipt.json"), "-"):
        for thing in things:
            reason, out, err = save(path, {"exit_code": 0, "thing": thing})
            assert reason
            shown = thing is not deep and thing is not huge
            assert ("'exit_code': 0" in out) == shown
            assert err.startswith("torchnet: error: ")
    assert os.listdir(tmp_path) == []


def test_problems_are_told_beforehand(tmp_path: Path) -> None:
    assert problem("-") is None
    assert problem(str(tmp_path / "new.json")) is None
    assert problem("/dev/null") is None
    assert "is a directory" in str(problem(str(tmp_path)))
    assert "mkdir -p" in str(problem(str(tmp_path / "missing" / "x.json")))
    assert "NUL" in str(problem("x\0y"))
