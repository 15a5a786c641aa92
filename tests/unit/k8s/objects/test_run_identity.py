"""Runs' names and secrets."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.errors import UsageError
from torchnet.k8s.objects.run_identity import key_path, new_run_name, run_name, token, user_key


@given(st.text(max_size=80), st.text("0123456789abcdef", min_size=6, max_size=6))
def test_every_script_gives_a_name_that_any_workload_can_have(script: str, random: str) -> None:
    name = run_name(script, random)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 40
    assert name.endswith(f"-{random}")


def test_no_two_runs_are_called_the_same() -> None:
    names = {new_run_name("src/train.py") for _ in range(50)}
    assert len(names) == 50
    assert {name.rpartition("-")[0] for name in names} == {"train"}


def test_a_secret_is_the_runs_own_and_the_same_each_time() -> None:
    key = bytes(range(32))
    assert token(key, "a", "b") == token(key, "a", "b")
    others = {token(key, "a", "c"), token(key, "c", "b"), token(bytes(32), "a", "b"), token(key, "b", "a")}
    assert len(others | {token(key, "a", "b")}) == 5
    assert re.fullmatch("[0-9a-f]{64}", token(key, "a", "b"))


def test_the_key_is_made_once_and_for_the_user_alone(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    key = user_key(environ)
    path = Path(key_path(environ))
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert user_key(environ) == key
    assert os.listdir(path.parent) == ["key"]
    assert user_key({"XDG_CONFIG_HOME": str(tmp_path / "other")}) != key


def test_without_a_choice_it_is_where_configuration_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for environ in ({}, {"XDG_CONFIG_HOME": ""}, {"XDG_CONFIG_HOME": "relative"}):
        assert key_path(environ) == f"{tmp_path}/.config/torchnet/key"


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    user_key(environ)
    path = Path(key_path(environ))
    path.chmod(0o640)
    with pytest.raises(UsageError, match="accessible to other users") as caught:
        user_key(environ)
    assert f"rm {path}" in str(caught.value)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(UsageError, match="32 bytes"):
        user_key(environ)


def test_where_no_key_can_be_kept_the_way_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "torchnet").write_text("")
    with pytest.raises(UsageError, match="--token-secret"):
        user_key({"XDG_CONFIG_HOME": str(tmp_path)})


def test_launches_at_once_end_up_with_one_key(tmp_path: Path) -> None:
    code = (
        "import os; from torchnet.k8s.objects.run_identity import user_key; print(user_key(os.environ).hex())"
    )
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    root = Path(__file__).resolve().parents[4]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environ, cwd=root, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1
    assert os.listdir(tmp_path / "torchnet") == ["key"]
