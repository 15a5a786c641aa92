"""Watch the rails while the job runs: report a lost one at once, and stop the job if it stays down."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from torchnet.agent.event_loop import EventLoop, Timer
from torchnet.linux import rtnetlink
from torchnet.network.interface_selection import Interface, Rail

# Seconds until a retry after the kernel gave no answer.
_LOOK_AGAIN = 1.0


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
        self._away: dict[str, tuple[float, Timer]] = {}
        self.flaps: list[LinkFlap] = []
        self._again: Timer | None = None  # retry if the kernel gave no answer
        self._netlink = rtnetlink.watcher()
        loop.watch(self._netlink, self._changed)
        self._look()  # a rail may have gone down since the preflight

    def close(self) -> None:
        """Stop watching; a rail that is still down counts as a flap up to now."""
        if self._again:
            self._again.cancel()
        self._loop.watch(self._netlink)
        self._netlink.close()
        self._settle()

    def follow(self, rails: tuple[Rail, ...]) -> None:
        """Watch the rails of a restart; record those that are down now as flaps."""
        self._settle()
        self._rails = rails
        self._look()

    def _settle(self) -> None:
        for interface, (since, timer) in self._away.items():
            timer.cancel()
            self._record(interface, since)
        self._away.clear()

    def _changed(self) -> None:
        try:
            if not rtnetlink.changes(self._netlink):
                return
        except OSError:
            pass  # the kernel dropped events; all rails are checked anyway
        self._look()

    def _look(self) -> None:
        again, self._again = self._again, None
        if again:
            again.cancel()
        try:
            present = rtnetlink.interfaces() if self._rails else {}
        except OSError as error:  # out of descriptors or memory for a moment: do not stop the training
            self._again = self._loop.later(_LOOK_AGAIN, self._look)
            if not again:
                why = error.strerror or error
                self._notice(f"the rails cannot be looked at: {why}; tried again each second")
            return
        for rail in self._rails:
            what = _wrong(rail, present.get(rail.interface))
            if what and rail.interface not in self._away:
                reason = f"{rail.interface} ({rail.address}) {what}"
                timer = self._loop.later(self._grace, functools.partial(self._gone, rail, reason))
                self._away[rail.interface] = time.monotonic(), timer
                self._notice(f"{reason}; the job stops if it is not back within {self._grace:g} s")
            elif not what and rail.interface in self._away:
                since, timer = self._away.pop(rail.interface)
                timer.cancel()
                self._record(rail.interface, since)
                self._notice(f"{rail.interface} is back after {time.monotonic() - since:.1f} s")

    def _gone(self, rail: Rail, reason: str) -> None:
        self._lost(rail, f"{reason} for more than {self._grace:g} s")

    def _record(self, interface: str, since: float) -> None:
        now = time.monotonic()
        self.flaps.append(LinkFlap(interface, round(since - self._began, 3), round(now - since, 3)))


def _wrong(rail: Rail, interface: Interface | None) -> str:
    if interface is None:
        return "was removed"
    if not interface.up:
        return "was set down"
    if not interface.carrier:
        return "lost its carrier"
    if all(address.ip != rail.address for address in interface.addresses):
        return "lost its address"
    return ""
