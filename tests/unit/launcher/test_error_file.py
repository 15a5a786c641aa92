"""The caller's error file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torchnet.launcher.error_file import VARIABLE, write


@pytest.mark.parametrize(
    ("error", "written"),
    [
        ('{"message": {"message": "a"}}', {"message": {"message": "a", "errorCode": 3}}),
        ('{"message": "a"}', {"message": "a"}),
        ("[1]", [1]),
    ],
)
def test_it_holds_the_error_and_its_code(tmp_path: Path, error: str, written: object) -> None:
    path = tmp_path / "reply.json"
    assert write({VARIABLE: str(path)}, error, 3) == ""
    assert json.loads(path.read_text()) == written


def test_text_of_any_form_is_kept_and_a_path_that_fails_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "reply"
    assert write({VARIABLE: str(path)}, "not JSON", 3) == ""
    assert path.read_text() == "not JSON"
    assert write({}, "x", 1) == write({VARIABLE: ""}, "x", 1) == ""
    assert "No such file or directory" in write({VARIABLE: str(tmp_path / "none" / "reply")}, "x", 1)
