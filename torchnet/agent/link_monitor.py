"""Watch the rails while the job runs: report a lost one at once, and stop the job if it stays down."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.linux import rtnetlink
from torchnet.network.interface_selection import Interface, Rail

_RETRY_SECONDS = 1.0  # after the kernel gave no answer


@dataclass(frozen=True)
class LinkFlap:
    """A rail that was down for ``duration_s`` seconds, ``at_s`` seconds after the start."""

    interface: str
    at_s: float
    duration_s: float


class LinkMonitor:
    """Calls ``notice`` when a rail goes down or comes back, and ``lost`` when it is down longer than ``grace``."""

    def __init__(
        self,
        loop: EventLoop,
        rails: tuple[Rail, ...],
        grace: float,
        notice: Callable[[str], None],
        lost: Callable[[Rail, str], None],
    ) -> None:
        self._loop = loop
        self._rails = rails
        self._grace = grace
        self._notice = notice
        self._lost = lost
        self._began = time.monotonic()
        self._down: dict[str, tuple[float, Timer]] = {}
        self.flaps: list[LinkFlap] = []
        self._retry: Timer | None = None  # retry if the kernel gave no answer
        self._netlink = rtnetlink.watcher()
        loop.watch(self._netlink, self._changed)
        self._check()  # a rail may have gone down since the preflight

    def close(self) -> None:
        """Stop watching; a rail that is still down counts as a flap up to now."""
        if self._retry:
            self._retry.cancel()
        self._loop.watch(self._netlink)
        self._netlink.close()
        self._record_all()

    def follow(self, rails: tuple[Rail, ...]) -> None:
        """Watch the rails of a restart; record those that are down now as flaps."""
        self._record_all()
        self._rails = rails
        self._check()

    def _record_all(self) -> None:
        for interface, (since, timer) in self._down.items():
            timer.cancel()
            self._record(interface, since)
        self._down.clear()

    def _changed(self) -> None:
        try:
            if not rtnetlink.changes(self._netlink):
                return
        except OSError:
            pass  # the kernel dropped events; all rails are checked anyway
        self._check()

    def _check(self) -> None:
        retry, self._retry = self._retry, None
        if retry:
            retry.cancel()
        try:
            present = rtnetlink.interfaces() if self._rails else {}
        except OSError as error:  # out of descriptors or memory for a moment: do not stop the training
            self._retry = self._loop.later(_RETRY_SECONDS, self._check)
            if not retry:
                why = error.strerror or error
                self._notice(f"cannot check the rails, retrying every second: {why}")
            return
        for rail in self._rails:
            problem = _problem(rail, present.get(rail.interface))
            if problem and rail.interface not in self._down:
                reason = f"{rail.interface} ({rail.address}) {problem}"
                timer = self._loop.later(self._grace, functools.partial(self._report_lost, rail, reason))
                self._down[rail.interface] = time.monotonic(), timer
                self._notice(f"{reason}; the job stops unless it recovers within {self._grace:g} s")
            elif not problem and rail.interface in self._down:
                since, timer = self._down.pop(rail.interface)
                timer.cancel()
                self._record(rail.interface, since)
                self._notice(f"{rail.interface} recovered after {time.monotonic() - since:.1f} s")

    def _report_lost(self, rail: Rail, reason: str) -> None:
        self._lost(rail, f"{reason} for more than {self._grace:g} s")

    def _record(self, interface: str, since: float) -> None:
        now = time.monotonic()
        self.flaps.append(LinkFlap(interface, round(since - self._began, 3), round(now - since, 3)))


def _problem(rail: Rail, interface: Interface | None) -> str:
    if interface is None:
        return "was removed"
    if not interface.up:
        return "was set down"
    if not interface.carrier:
        return "lost its carrier"
    if all(address.ip != rail.address for address in interface.addresses):
        return "lost its address"
    return ""
