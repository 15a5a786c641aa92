"""A preparation that ends before it has found its addresses, and what it keeps of them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agents import rails, spec
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.preparation import Preparation, pinned
from torchnet.agent.stop_signals import interrupted
from torchnet.errors import NetworkError, NotYetError
from torchnet.network.address_sources import StaticAddresses
from torchnet.network.network_status import StatusEntry


class Events:
    pending = 0

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def send(self, event: dict[str, Any]) -> None:
        self.kept.append(event)

    def flush(self) -> None:
        pass


class Late(StaticAddresses):
    """A source that never has an address."""

    def __init__(self) -> None:
        super().__init__("static:net1=fd00::1/64", ())

    def attachments(self) -> tuple[StatusEntry, ...]:
        raise NotYetError(NetworkError("no address yet"), 0.05)


@pytest.mark.parametrize(("replaced", "kind", "code"), [(0, "replaced", 75), (None, "failure", 143)])
def test_a_preparation_that_is_stopped_is_replaced_where_a_job_does_that(
    tmp_path: Path, replaced: int | None, kind: str, code: int
) -> None:
    loop, events = EventLoop(), Events()
    one = Preparation(loop, spec(phase="prepare", state=str(tmp_path), replaced=replaced), Late(), events)
    loop.later(0, one.begin)
    loop.later(0.1, lambda: one.interrupt(interrupted(signal.SIGTERM)))
    loop.run()
    loop.close()
    assert one.code == code
    assert [(event["event"], event["text"]) for event in events.kept if "text" in event] == [
        (kind, "stopped by SIGTERM")
    ]
    assert events.kept[-1] == {"event": "end", "node": 0, "code": code}
    assert list(tmp_path.iterdir()) == []


def test_an_attachment_without_an_address_gets_the_one_that_was_found() -> None:
    """The training container compares it with the kernel."""
    known = StatusEntry("default/backend-0", "net1", ("fd00::9",))
    seen = StatusEntry("default/backend-1", "net2")
    first, second = pinned((known, seen), rails(2))
    assert first == known
    assert (second.ips, second.origin) == (("fd00:1::1",), "the preparation")
