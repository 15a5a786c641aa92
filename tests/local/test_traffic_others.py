"""Jobs whose traffic no plan can express (tests/traffic/others): no receipt claims what is false."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests import needs
from tests.traffic.others.__main__ import LAUNCHED, WITNESSED, judge
from tests.training import needs_torch

PROTOCOLS = {"mptcp": (socket.SOCK_STREAM, 262), "udplite": (socket.SOCK_DGRAM, 136)}
TORCH = ("gloo", "store")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs_torch if name in TORCH else ()) for name in (*LAUNCHED, *WITNESSED)],
)
def test_the_receipt_of_an_unusual_job_claims_nothing_false(name: str, tmp_path: Path) -> None:
    needs.networks()
    if name in PROTOCOLS:
        try:
            socket.socket(socket.AF_INET6, *PROTOCOLS[name]).close()
        except OSError as error:
            pytest.skip(f"the kernel has no {name}: {error.strerror}")
    try:
        assert judge(name, tmp_path / "job", verbose=True)
    except AssertionError as error:
        if "Unknown device type" in str(error):
            pytest.skip(f"the kernel lacks a kind of link: {error}")
        raise
