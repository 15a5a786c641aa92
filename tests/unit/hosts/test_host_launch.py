"""A host's token and name, and what only the launcher adds to the receipt."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from torchnet.errors import UsageError
from torchnet.hosts import host_launch, name_lookup
from torchnet.hosts.host_launch import take_token


def test_the_token_is_not_left_for_the_ranks(tmp_path: Path) -> None:
    environ = {"TORCHNET_TOKEN": "secret", "A": "1"}
    assert take_token(environ) == ("secret", False)
    assert environ == {"A": "1"}
    file = tmp_path / "token"
    file.write_text("of a file\n")
    assert take_token({"TORCHNET_TOKEN_FILE": str(file)}) == ("of a file", False)
    with pytest.raises(UsageError, match="TORCHNET_TOKEN_FILE"):
        take_token({"TORCHNET_TOKEN_FILE": str(tmp_path / "missing")})


def test_without_a_token_all_hosts_have_the_same() -> None:
    token, is_open = take_token({})
    assert is_open
    assert take_token({"TORCHNET_TOKEN": ""}) == (token, True)


@pytest.mark.parametrize(
    ("own", "name"),
    [("host-a", "host-a"), ("host a!", "host-a"), ("", "host"), ("..", "host"), ("x" * 300, "x" * 200)],
)
def test_a_name_that_hosts_files_can_hold(own: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: own)
    assert host_launch.own_name() == name


def test_a_look_up_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(socket, "getnameinfo", lambda *_: time.sleep(30))
    began = time.monotonic()
    assert not name_lookup.is_fast("10.7.0.0/24", 0.1)
    assert time.monotonic() - began < 10
    monkeypatch.setattr(socket, "getnameinfo", lambda *_: ("10.7.0.0", "0"))
    assert name_lookup.is_fast("10.7.0.0/24", 30.0)
