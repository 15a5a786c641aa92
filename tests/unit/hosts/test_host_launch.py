"""A host's token and name, and what only the launcher adds to the receipt."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.unit.screens import Screen
from torchnet.agent.event_loop import EventLoop
from torchnet.constants import ONE_NETWORK
from torchnet.errors import UsageError
from torchnet.hosts import host_launch
from torchnet.hosts.console_reporter import ConsoleReporter
from torchnet.hosts.host_launch import take_token


def test_the_token_is_not_left_for_the_ranks(tmp_path: Path) -> None:
    environ = {"TORCHNET_TOKEN": "secret", "A": "1"}
    assert take_token(environ) == ("secret", False)
    assert environ == {"A": "1"}
    file = tmp_path / "token"
    file.write_text("of a file\n")
    environ = {"TORCHNET_TOKEN_FILE": str(file), "A": "1"}
    assert (take_token(environ), environ) == (("of a file", False), {"A": "1"})
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


@pytest.mark.parametrize(
    ("share", "proof", "one_network", "said"),
    [
        (1.0, "measured", True, True),
        (0.6, "measured", True, False),  # some bytes went elsewhere, so there is another network
        (1.0, "inferred", True, False),
        (1.0, "measured", False, False),
    ],
)
def test_the_receipt_says_that_there_is_one_network(
    share: float, proof: str, one_network: bool, said: bool
) -> None:
    receipt = {"backend_share": share, "backend_share_high": share, "proof": proof, "proof_reason": "counted"}
    found = host_launch.completed({**receipt, "findings": ["a"]}, is_open=said, one_network=one_network)
    assert found["proof_reason"] == (ONE_NETWORK if said else "counted")
    assert found["findings"] == (["a", host_launch.OPEN] if said else ["a"])


def test_rank_0_hears_whether_the_other_hosts_have_one_network() -> None:
    loop = EventLoop()
    for sent in (True, False):
        reporter = ConsoleReporter(loop, Screen().console, first=True)
        reporter.send({"event": "receipt", "receipt": {}, **({"one_network": True} if sent else {})})
        assert reporter.others_have_one_network == sent
    loop.close()
