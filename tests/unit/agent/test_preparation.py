"""A preparation that ends before it has found its addresses, and what it keeps of them."""

from __future__ import annotations

import os
import signal
import stat
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


def test_another_user_of_the_training_container_may_write_what_it_must(tmp_path: Path) -> None:
    """Whom a template can name: it adds the peers to the hosts file, and tells the probe of the start."""
    loop, events = EventLoop(), Events()
    known = spec(phase="prepare", state=str(tmp_path), loopback=True)
    one = Preparation(loop, known, StaticAddresses("static:lo=127.0.0.1/8", ()), events)
    loop.later(0, one.begin)
    before = os.umask(0o077)
    try:
        loop.run()
    finally:
        os.umask(before)
        loop.close()
    assert one.code == 0, events.kept
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("hosts", "started")}
    assert modes == {"hosts": 0o666, "started": 0o666}
    assert stat.S_ISFIFO((tmp_path / "started").stat().st_mode)


def test_an_attachment_without_an_address_gets_the_one_that_was_found() -> None:
    """The training container compares it with the kernel."""
    known = StatusEntry("default/backend-0", "net1", ("fd00::9",))
    seen = StatusEntry("default/backend-1", "net2")
    first, second = pinned((known, seen), rails(2))
    assert first == known
    assert (second.ips, second.origin) == (("fd00:1::1",), "the preparation")
