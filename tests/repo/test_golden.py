"""The golden files themselves: a changed word fails, and each file is used."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import golden


def test_a_changed_word_fails_and_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "FILES", tmp_path)
    monkeypatch.setenv(golden.UPDATE, "1")
    golden.check("one.txt", "2 of 3 workers started")
    monkeypatch.delenv(golden.UPDATE)
    golden.check("one.txt", "2 of 3 workers started")
    for text, name in (("1 of 3 workers started", "one.txt"), ("2 of 3 workers started", "missing.txt")):
        with pytest.raises(AssertionError, match=golden.UPDATE):
            golden.check(name, text)


def test_each_golden_file_is_used_by_a_test() -> None:
    sources = subprocess.run(
        ["git", "grep", "-hE", r"golden\.check\(|\.(txt|yaml|json)\"", "--", "tests/**.py"],
        cwd=golden.FILES.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    unused = [path.name for path in golden.FILES.glob("*") if f'"{path.name}"' not in sources]
    assert unused == []
