"""Join a job: the worker's addresses, its preflight ports, and its connection to the coordinator.

The coordinator runs in node rank 0's own agent; the other workers connect to its address.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace

from torchnet import constants
from torchnet.agent import receipt
from torchnet.agent.coordinator import Coordinator
from torchnet.agent.discovery import Discovery, own_row
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure, Reporter
from torchnet.agent.handshake import probe_key
from torchnet.agent.heartbeat import RENEW_SECONDS
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.preflight import Preflight
from torchnet.agent.rendezvous import JoinRequest, RendezvousClient, pack_row
from torchnet.agent.spec import AgentSpec
from torchnet.errors import TorchnetError
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Rail, TakenError
from torchnet.network.network_status import StatusEntry
from torchnet.network.peer_table import PeerRow

_REPLACED_AT_MOST = 3  # pods per worker: a Job waits 10, 20 and 40 s before it creates them


class Join:
    """Ends with a call of ``entered(connection)``, ``failed(failure)`` or ``taken(failure)``.

    ``taken`` means that another machine has this pod's address; a replacement pod may get a free one.
    ``rails``, ``row`` and ``preflight`` are set before ``entered`` is called. For the discovery, this is the address
    source; it keeps the real one's result, since a later call may need the API or return less.
    """

    row: PeerRow

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        source: AddressSource,
        reporter: Reporter,
        clock: PhaseTimer,
        *,
        entered: Callable[[socket.socket], None],
        failed: Callable[[Failure], None],
        taken: Callable[[Failure], None],
    ) -> None:
        self._loop, self._spec, self._source = loop, spec, source
        self._reporter, self._clock = reporter, clock
        self._entered, self._failed, self._taken = entered, failed, taken
        self.rails: tuple[Rail, ...] = ()
        self.preflight: Preflight | None = None
        self._search: Discovery | RendezvousClient | None = None
        self._known = ""
        self._entries: tuple[StatusEntry, ...] = ()

    def attachments(self) -> tuple[StatusEntry, ...]:
        """Query the address source; exceptions pass through."""
        self._entries = self._source.attachments()
        return self._entries

    def rank0(self) -> tuple[str, ...]:
        return self._source.rank0()

    def verified(self) -> tuple[StatusEntry, ...]:
        """Return the rails' attachments; those without an address get the selected one."""
        return tuple(
            entry
            if entry.ips or rail.interface == "lo"  # a named loopback address is rejected
            else replace(entry, ips=(rail.address,), origin="the preparation")
            for entry, rail in zip(self._entries, self.rails, strict=True)
        )

    def begin(self, known: str) -> None:
        """Discover and join. ``known`` is the fingerprint of a table with verified paths, or ""."""
        self._known = known
        self._discover(self._spec, self._discovered, self._undiscovered)

    def cut(self) -> None:
        """Retry the join: the connection ended before the first message."""
        assert isinstance(self._search, RendezvousClient)
        self._search.cut()

    def again(self, known: str) -> None:
        """Join again, whichever worker is rank 0 now. Requires ``row``; not for rank 0."""
        self._known = known
        self._search = RendezvousClient(
            self._loop,
            self._spec,
            self._source,
            self.rails[0],
            JoinRequest.of(self._spec, self.row, known),
            entered=self._entered,
            failed=self._failed,
            notice=lambda text: self._notice("warning", text),
            clock=self._clock,
        )

    def renew(self, done: Callable[[PeerRow], None], failed: Callable[[str, int], None]) -> None:
        """Get the current row for a restart, and open the ports on its addresses.

        Ends with a call of ``done(row)`` or ``failed(error, exit code)``.
        """

        def found(rails: tuple[Rail, ...]) -> None:
            try:
                self._bind(rails)
                self.row = own_row(self._spec, rails)
            except TorchnetError as error:
                failed(str(error), error.exit_code)
            except OSError as error:
                failed(self._closed(error), 4)
            else:
                done(self.row)

        spec = replace(self._spec, start_timeout=min(self._spec.start_timeout, RENEW_SECONDS))
        self._discover(spec, found, lambda error: failed(str(error), error.exit_code))

    def cancel(self) -> None:
        """Cancel the discovery or the join."""
        if self._search is not None:
            self._search.cancel()

    def close(self) -> None:
        """Close the preflight's ports."""
        if self.preflight is not None:
            self.preflight.close()

    def _discover(
        self,
        spec: AgentSpec,
        found: Callable[[tuple[Rail, ...]], None],
        failed: Callable[[TorchnetError], None],
    ) -> None:
        self._search = Discovery(
            self._loop,
            spec,
            self,
            found=found,
            failed=failed,
            notice=lambda text: self._notice("warning", text),
            clock=self._clock,
        )

    def _bind(self, rails: tuple[Rail, ...]) -> None:
        """Open the preflight's ports unless they are open on these rails.

        Raises:
            OSError: a port cannot be opened.
        """
        if self.preflight is None or rails != self.rails:
            self.close()
            self.preflight = None
            self.preflight = Preflight(
                self._loop, probe_key(self._spec.token), rails, loopback=self._spec.loopback
            )
        self.rails = rails

    def _closed(self, error: OSError) -> str:
        return f"{self._spec.name}: the join's port {constants.JOIN_PORT} cannot be opened: {error.strerror}"

    def _discovered(self, rails: tuple[Rail, ...]) -> None:
        self.rails = rails
        spec = self._spec
        try:
            self.row = own_row(spec, rails)
            self._reporter.send({"event": "row", "node": spec.node_rank, "row": pack_row(self.row)})
            for text in {note for rail in rails for note in rail.notes}:
                self._notice("info", text)
            self._bind(rails)
            if spec.node_rank == 0:
                coordinator = Coordinator(self._loop, spec, rails, self._reporter.send, receipt.job)
                ours, theirs = socket.socketpair()
                coordinator.add(theirs, JoinRequest.of(spec, self.row, self._known))
                self._clock.own()
                self._entered(ours)
            else:
                self.again(self._known)
        except TorchnetError as error:
            self._refused(str(error), error.exit_code)
        except OSError as error:
            self._refused(self._closed(error), 4)

    def _undiscovered(self, error: TorchnetError) -> None:
        spec = self._spec
        others = spec.phase == "prepare" and spec.replaced is not None and spec.replaced < _REPLACED_AT_MOST
        if others and isinstance(error, TakenError):
            text = f"{error.text}; another pod is made in this one's place"
            self._taken(Failure("network", text, constants.REPLACE_CODE, node=spec.name, at=time.time()))
        else:
            self._refused(str(error), error.exit_code)

    def _refused(self, text: str, code: int) -> None:
        self._failed(Failure("network", text, code, node=self._spec.name, at=time.time()))

    def _notice(self, level: str, text: str) -> None:
        self._reporter.send({"event": "notice", "node": self._spec.node_rank, "level": level, "text": text})
