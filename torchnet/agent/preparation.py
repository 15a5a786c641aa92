"""What a pod's init container does: this worker's own discovery, and the files for the training container.

It opens no port and knows no peer, so it waits for no other pod, and a pod without its network fails here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torchnet.agent import etc_hosts, failures
from torchnet.agent.discovery import Discovery, is_replaceable, own_uid
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure, Reporter
from torchnet.agent.handover import HOSTS_COPY, SHARED, Handover
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stop_signals import handled, interrupted
from torchnet.constants import REPLACE_CODE, STARTED_FILE
from torchnet.errors import TorchnetError
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Rail
from torchnet.network.network_status import StatusEntry


def run(spec: AgentSpec, source: AddressSource, reporter: Callable[[EventLoop], Reporter]) -> int:
    """Prepare a worker and return the exit code."""
    loop = EventLoop()
    events = reporter(loop)
    preparation = Preparation(loop, spec, source, events)
    for number in handled(spec.signals):
        loop.on_signal(number, lambda number=number: preparation.interrupt(interrupted(number)))  # type: ignore[misc]
    loop.later(0, preparation.begin)
    try:
        loop.run()
    finally:
        events.flush()
    return preparation.code


class Preparation:
    """Discovers this worker's rails and writes the files. ``code`` is the exit code once the loop has ended.

    For the discovery, this is the address source; it keeps the real one's result, since a later call may need the API
    or return less.
    """

    def __init__(self, loop: EventLoop, spec: AgentSpec, source: AddressSource, reporter: Reporter) -> None:
        self.code = 70
        self._loop, self._spec, self._source, self._reporter = loop, spec, source, reporter
        self._phase_timer = PhaseTimer(reporter.send)
        self._entries: tuple[StatusEntry, ...] = ()
        self.rank0 = source.rank0

    def begin(self) -> None:
        self._phase_timer.own()
        self._phase_timer.done("start")
        Discovery(
            self._loop,
            self._spec,
            self,
            found=self._save,
            failed=self._not_discovered,
            notice=lambda text: self._notice("warning", text),
            clock=self._phase_timer,
        )

    def attachments(self) -> tuple[StatusEntry, ...]:
        """Query the address source; exceptions pass through."""
        self._entries = self._source.attachments()
        return self._entries

    def interrupt(self, failure: Failure) -> None:
        """End because of a signal."""
        self._fail(failure, replaced=self._spec.replaced is not None)

    def _save(self, rails: tuple[Rail, ...]) -> None:
        spec, folder = self._spec, Path(self._spec.state)
        for text in {note for rail in rails for note in rail.notes}:
            self._notice("info", text)
        entries = pinned(self._entries, rails)
        try:
            etc_hosts.write_copy(folder / HOSTS_COPY)
            with suppress(FileExistsError):  # the kubelet may start an init container again
                os.mkfifo(folder / STARTED_FILE)
            os.chmod(folder / STARTED_FILE, SHARED)
            state = Handover(spec.run_id, spec.node_rank, spec.nnodes, own_uid(spec), spec.start, entries)
            state.write(spec.state)
        except OSError as error:
            self._fail(failures.state_not_saved(spec.name, spec.state, error))
            return
        self._phase_timer.own()
        self._phase_timer.done("save")
        self._phase_timer.total()
        self._end(0)

    def _not_discovered(self, error: TorchnetError) -> None:
        if is_replaceable(self._spec, error):
            self._fail(failures.address_taken(self._spec.name, error.text), replaced=True)
        else:
            self._fail(failures.own_error(self._spec.name, error))

    def _fail(self, failure: Failure, *, replaced: bool = False) -> None:
        self._reporter.send({**failure.event(), "event": "replaced"} if replaced else failure.event())
        self._end(REPLACE_CODE if replaced else failure.code)

    def _end(self, code: int) -> None:
        self.code = code
        self._reporter.send({"event": "end", "node": self._spec.node_rank, "code": code})
        self._loop.stop()

    def _notice(self, level: str, text: str) -> None:
        self._reporter.send({"event": "notice", "node": self._spec.node_rank, "level": level, "text": text})


def pinned(entries: tuple[StatusEntry, ...], rails: tuple[Rail, ...]) -> tuple[StatusEntry, ...]:
    """Return the rails' attachments; those without an address get the selected one."""
    return tuple(
        entry
        if entry.ips or rail.interface == "lo"  # a named loopback address is rejected
        else replace(entry, ips=(rail.address,), origin="the preparation")
        for entry, rail in zip(entries, rails, strict=True)
    )
