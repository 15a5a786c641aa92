"""Join a job: the worker's addresses, its preflight ports, and its connection to the coordinator.

The coordinator runs in node rank 0's own agent; the other workers connect to its address.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torchnet import constants
from torchnet.agent import failures
from torchnet.agent.admission import join_request
from torchnet.agent.discovery import Discovery, is_replaceable, own_row
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure, Reporter
from torchnet.agent.handshake import probe_key
from torchnet.agent.heartbeat import RENEW_SECONDS
from torchnet.agent.messages import encode_row
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.agent.preflight import Preflight
from torchnet.agent.rendezvous import Endpoint
from torchnet.agent.rendezvous_client import RendezvousClient
from torchnet.agent.spec import AgentSpec
from torchnet.errors import TorchnetError
from torchnet.network.address_sources import AddressSource
from torchnet.network.interface_selection import Rail
from torchnet.network.peer_table import PeerRow


class Join:
    """Ends with a call of ``connected(connection)``, ``failed(failure)`` or ``address_taken(failure)``.

    ``address_taken`` means that another machine has this pod's address; a replacement pod may get a free one.
    ``rails``, ``row`` and ``preflight`` are set before ``connected`` is called.

    Args:
        frontend: where the rendezvous listens; None: on rank 0's first rail.
    """

    row: PeerRow

    def __init__(
        self,
        loop: EventLoop,
        spec: AgentSpec,
        source: AddressSource,
        reporter: Reporter,
        phase_timer: PhaseTimer,
        frontend: Endpoint | None = None,
        *,
        connected: Callable[[socket.socket], None],
        failed: Callable[[Failure], None],
        address_taken: Callable[[Failure], None],
    ) -> None:
        self._loop, self._spec, self._source = loop, spec, source
        self._reporter, self._phase_timer, self._frontend = reporter, phase_timer, frontend
        self._connected, self._failed, self._address_taken = connected, failed, address_taken
        self.rails: tuple[Rail, ...] = ()
        self.preflight: Preflight | None = None
        self._search: Discovery | RendezvousClient | None = None

    def begin(self) -> None:
        """Discover and join."""
        self._discover(self._spec, self._discovered, self._not_discovered)

    def retry(self) -> None:
        """Retry the join: the connection ended before the first message."""
        assert isinstance(self._search, RendezvousClient)
        self._search.retry()

    def rejoin(self) -> None:
        """Join whichever worker is rank 0 now. Requires ``row``; not for rank 0."""
        self._search = RendezvousClient(
            self._loop,
            self._spec,
            self._source,
            self.rails[0],
            join_request(self._spec, self.row),
            frontend=self._frontend,
            connected=self._connected,
            failed=self._failed,
            notice=lambda text: self._notice("warning", text),
            phase_timer=self._phase_timer,
        )

    def renew(self, done: Callable[[PeerRow], None], failed: Callable[[Failure], None]) -> None:
        """Get the current row for a restart, and open the ports on its addresses; call ``done`` or ``failed``."""
        name = self._spec.name

        def found(rails: tuple[Rail, ...]) -> None:
            try:
                self._bind(rails)
                self.row = own_row(self._spec, rails)
            except TorchnetError as error:
                failed(failures.own_error(name, error))
            except OSError as error:
                failed(self._port_unavailable(constants.JOIN_PORT, error))
            else:
                done(self.row)

        spec = replace(self._spec, start_timeout=min(self._spec.start_timeout, RENEW_SECONDS))
        self._discover(spec, found, lambda error: failed(failures.own_error(name, error)))

    def cancel(self) -> None:
        """Cancel the discovery or the join."""
        if self._search is not None:
            self._search.cancel()

    def close(self) -> None:
        """Close the preflight's ports until a restart, so that another job of this host can open them."""
        if self.preflight is not None:
            self.preflight.close()
            self.preflight = None

    def _discover(
        self,
        spec: AgentSpec,
        found: Callable[[tuple[Rail, ...]], None],
        failed: Callable[[TorchnetError], None],
    ) -> None:
        self._search = Discovery(
            self._loop,
            spec,
            self._source,
            found=found,
            failed=failed,
            notice=lambda text: self._notice("warning", text),
            clock=self._phase_timer,
        )

    def _bind(self, rails: tuple[Rail, ...]) -> None:
        """Open the preflight's ports unless they are open on these rails.

        Raises:
            OSError: a port cannot be opened.
        """
        if self.preflight is None or rails != self.rails:
            self.close()
            key = probe_key(self._spec.token)
            tcp = self._frontend.tcp_check(self._loop, key, rails) if self._frontend else None
            self.preflight = Preflight(self._loop, key, rails, loopback=self._spec.loopback, tcp=tcp)
        self.rails = rails

    def _discovered(self, rails: tuple[Rail, ...]) -> None:
        self.rails = rails
        spec = self._spec
        try:
            self.row = own_row(spec, rails)
            self._reporter.send({"event": "row", "node": spec.node_rank, "row": encode_row(self.row)})
            for text in {note for rail in rails for note in rail.notes}:
                self._notice("info", text)
            self._bind(rails)
            if spec.node_rank == 0:
                # Loaded by this worker alone.
                from torchnet.agent.coordinator import Coordinator

                coordinator = Coordinator(
                    self._loop, spec, rails, self._reporter.send, _receipt, self._frontend
                )
                ours, theirs = socket.socketpair()
                coordinator.admit(theirs, join_request(spec, self.row))
                self._phase_timer.own()
                self._connected(ours)
            else:
                self.rejoin()
        except TorchnetError as error:
            self._failed(failures.own_error(spec.name, error))
        except OSError as error:
            # The preflight's ports are opened first.
            port = self._frontend if self._frontend and self.preflight else constants.JOIN_PORT
            self._failed(self._port_unavailable(port, error))

    def _port_unavailable(self, port: object, error: OSError) -> Failure:
        host = os.environ.get(constants.HOST_VARIABLE, "") if self._spec.network == "host" else ""
        fix = self._frontend.port_fix(port) if self._frontend else ""
        return failures.port_unavailable(self._spec.name, port, error, host=host, fix=fix)

    def _not_discovered(self, error: TorchnetError) -> None:
        if is_replaceable(self._spec, error):
            self._address_taken(failures.address_taken(self._spec.name, error.text))
        else:
            self._failed(failures.own_error(self._spec.name, error))

    def _notice(self, level: str, text: str) -> None:
        self._reporter.send({"event": "notice", "node": self._spec.node_rank, "level": level, "text": text})


def _receipt(**facts: Any) -> dict[str, Any]:
    from torchnet.agent import receipt

    return receipt.job(**facts)
