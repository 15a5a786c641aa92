"""Phase 1: discover this worker's rails; the address source and the kernel must agree."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from torchnet.agent.event_loop import EventLoop
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.spec import AgentSpec
from torchnet.errors import NetworkError, NotYetError, TorchnetError
from torchnet.linux import rtnetlink
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Interface, Rail, TakenError, TentativeError, select_rail
from torchnet.network.network_status import StatusEntry
from torchnet.network.peer_table import PeerRail, PeerRow

# Duplicate address detection takes 1.8 s on a new macvlan, and longer if the kernel sends more probes.
DETECTION_SECONDS = 6.0
_POLL_SECONDS = 0.05
_NOTICE_SECONDS = 4.0  # until a notice about missing addresses
_MAX_REPLACEMENTS = 3  # pods per worker: a Job waits 10, 20 and 40 s before it creates them
_OTHER_ADDRESSES = 32  # including link-local ones; a limit for hosts with very many


def discover(spec: AgentSpec, source: AddressSource) -> tuple[Rail, ...]:
    """Return this worker's rails, in order, after duplicate address detection where the kernel runs it.

    Raises:
        NetworkError: a rail is missing or unusable; lists every such rail with its fix.
    """
    deadline = time.monotonic() + DETECTION_SECONDS
    while True:
        try:
            return look(spec, source)
        except TentativeError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def look(spec: AgentSpec, source: AddressSource) -> tuple[Rail, ...]:
    """Do what :func:`discover` does, without waiting.

    Raises:
        TentativeError: only duplicate address detection is unfinished.
    """
    if spec.loopback:
        return _on_loopback(spec, source)
    try:
        entries = source.attachments()
    except NotYetError:
        raise
    except NetworkError as error:  # the cluster's message does not name the worker
        raise NetworkError(f"{spec.name}: {error.text}", fix=error.fix) from None
    present = _present(spec)
    rails: list[Rail] = []
    errors: list[NetworkError] = []
    for number, entry in enumerate(entries):
        interface = present.get(entry.interface or "")
        try:
            rails.append(select_rail(spec.name, number, entry.name, entry, interface, spec.family))
        except NetworkError as error:
            errors.append(error)
    if not errors:
        return tuple(rails)
    final = [error for error in errors if not isinstance(error, TentativeError)] or errors
    text, fix = "\n".join(error.text for error in final), "\n".join(e.fix for e in final if e.fix)
    first = final[0]
    if isinstance(first, TentativeError):
        raise TentativeError(text, fix=fix, interface=first.interface, address=first.address)
    raise (TakenError if all(isinstance(e, TakenError) for e in final) else NetworkError)(text, fix=fix)


def is_replaceable(spec: AgentSpec, error: TorchnetError) -> bool:
    """Return whether another machine has this pod's address, so that a Job may replace it by a pod with a free one."""
    taken = isinstance(error, TakenError)
    return taken and spec.replaced is not None and spec.replaced < _MAX_REPLACEMENTS


def sure_attachments(spec: AgentSpec) -> tuple[StatusEntry, ...] | None:
    """Return the specification's attachments if the kernel determines every address, else None.

    Like those of ``host:``, they have no addresses. An address with a lifetime may come from a router instead of the
    attachment, and a deprecated one is about to expire: only network-status shows which address is meant.
    """
    try:
        present = _present(spec)
    except NetworkError:
        return None  # look() reports it
    entries = []
    for number, wanted in enumerate(spec.attachments):
        entry = StatusEntry(wanted.path, wanted.interface or None)
        found = present.get(wanted.interface)
        if found and any(a.scope == "global" and (a.deprecated or not a.permanent) for a in found.addresses):
            return None
        try:
            select_rail(spec.name, number, entry.name, entry, found, spec.family)
        except TentativeError:
            pass  # discovery waits for it anyway
        except NetworkError:
            return None
        entries.append(entry)
    return tuple(entries) or None


class Discovery:
    """:func:`discover` in an event loop, also for a source that is not ready at once (the API).

    Ends with a call of ``found(rails)`` or ``failed(error)``; ``notice`` gets a sentence if it takes long.
    """

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        source: AddressSource,
        *,
        found: Callable[[tuple[Rail, ...]], None],
        failed: Callable[[TorchnetError], None],
        notice: Callable[[str], None],
        clock: PhaseTimer,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._source = source
        self._found = found
        self._failed = failed
        self._notice = notice
        self._clock = clock
        self._notice_after = time.monotonic() + _NOTICE_SECONDS
        self._deadline = time.monotonic() + spec.start_timeout
        self._detection = 0.0
        self._timer = loop.later(0, self._try)

    def cancel(self) -> None:
        self._timer.cancel()

    def _try(self) -> None:
        self._clock.waited()
        try:
            rails = look(self._spec, self._source)
        except TentativeError as error:
            self._detection = self._detection or time.monotonic() + DETECTION_SECONDS
            self._again(error, _POLL_SECONDS, self._detection)
        except NotYetError as error:
            self._again(error.error, error.seconds, self._deadline)
        except TorchnetError as error:
            self._failed(error)
        else:
            self._clock.own()
            self._clock.done("discover")
            self._found(rails)

    def _again(self, error: TorchnetError, seconds: float, deadline: float) -> None:
        self._clock.own()
        if time.monotonic() > deadline:
            self._failed(error)
            return
        if time.monotonic() > self._notice_after:
            self._notice_after = deadline
            self._notice(f"{self._spec.name} is waiting for its addresses: {error.text}")
        self._timer = self._loop.later(seconds, self._try)


def _on_loopback(spec: AgentSpec, source: AddressSource) -> tuple[Rail, ...]:
    """Return lo, as the user requested. All of 127.0.0.0/8 works without being listed."""
    (entry,) = source.attachments()
    lo = _present(spec)["lo"]
    return (Rail(0, None, lo.name, entry.ips[0], 4, 8, lo.mtu),)


def _present(spec: AgentSpec) -> dict[str, Interface]:
    try:
        return rtnetlink.interfaces()
    except OSError as error:
        text = f"{spec.name}: cannot list the network interfaces: {error.strerror or error}"
        raise NetworkError(text) from None


def own_uid(spec: AgentSpec) -> str:
    """Return the pod's UID, or an ID of this process."""
    return spec.uid or f"{spec.name}/{os.getpid()}/{socket.gethostname()}"


def own_row(spec: AgentSpec, rails: tuple[Rail, ...]) -> PeerRow:
    """Return what the peers must know: this worker's rails, and other addresses that bytes could go to.

    Raises:
        NetworkError: the interfaces cannot be read.
    """
    own = {rail.address for rail in rails}
    found = [
        (not interface.up, address.scope == "link", address.ip)
        for name, interface in _present(spec).items()
        if name != "lo" and not spec.loopback
        for address in interface.addresses
        if address.ip not in own
    ]
    # The limit must not cut what peers use: kube-proxy's dummy interface, which is down, has the address of each
    # Service, and Calico gives each pod's interface the same link-local one.
    others = tuple(dict.fromkeys(ip for _, _, ip in sorted(found, key=lambda one: one[:2])))
    return PeerRow(
        node_rank=spec.node_rank,
        name=spec.name,
        uid=own_uid(spec),
        rails=tuple(PeerRail(rail.interface, rail.address, rail.mtu) for rail in rails),
        eth0=others[:_OTHER_ADDRESSES],
    )
