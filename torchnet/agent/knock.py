"""Phase 2, a worker's side: to rank 0's door, again and again until it is let in."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from torchnet import names
from torchnet.agent.clock import Clock
from torchnet.agent.door import enter
from torchnet.agent.hello import Hello
from torchnet.agent.loop import Loop
from torchnet.agent.preflight import wrong_route
from torchnet.agent.report import Failure
from torchnet.agent.spec import AgentSpec
from torchnet.errors import ClusterError, NetworkError, NotYetError, RefusedError, TorchnetError
from torchnet.network.select import Rail
from torchnet.network.sources import AddressSource

_SAID_AFTER = 10  # tries, about 10 s
# A pod that was in the preparation and whose address does not even refuse a connection for so long is gone: where its
# agent has not started yet, the kernel refuses.
GONE_SECONDS = 30.0


class Knock:
    """Tries until ``start_timeout``: rank 0 may come later, or be another one meanwhile, so it is looked up each time.

    Ends with a call of ``entered(connection)`` or ``failed(failure)``; ``notice`` gets a sentence when it takes long.
    In phase work nobody can be asked where another rank 0 would be: it is given up when its address is gone.
    """

    def __init__(
        self,
        loop: Loop,
        spec: AgentSpec,
        source: AddressSource,
        rail: Rail,
        hello: Hello,
        entered: Callable[[socket.socket], None],
        failed: Callable[[Failure], None],
        notice: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._source = source
        self._rail = rail
        self._hello = hello.message()
        self._clock = clock
        self._entered = entered
        self._failed = failed
        self._notice = notice
        self._deadline = time.monotonic() + spec.start_timeout
        self._tries = 0
        self._there = time.monotonic()  # when somebody last answered at its address, if only by a refusal
        self._timer = loop.later(0, self._try)

    def cancel(self) -> None:
        self._timer.cancel()

    def cut(self) -> None:
        """It was let in, and the connection ended before a word came: that was one more try."""
        self._clock.waited()
        self._there = time.monotonic()
        self._again(ConnectionError("rank 0 ended the connection without a word"))

    def _try(self) -> None:
        self._tries += 1
        self._clock.waited()
        try:
            rank0 = self._source.rank0()[0]
            self._reachable(rank0)
            patience = min(2.0, 0.25 * self._tries)  # this thread serves nothing else meanwhile
            connection = enter(
                self._spec.token, self._rail.address, rank0, names.JOIN_PORT, self._hello, patience
            )
        except (RefusedError, ClusterError) as error:
            self._fail("network", str(error), error.exit_code)
        except NotYetError as error:
            self._again(error.error, error.seconds)
        except (ConnectionError, ValueError) as error:
            self._there = time.monotonic()
            self._again(error)
        except (OSError, NetworkError, IndexError) as error:
            self._again(error)
        else:
            self._clock.own()
            self._entered(connection)

    def _again(self, error: Exception, seconds: float = 0.0) -> None:
        self._clock.own()
        now, why = time.monotonic(), str(error)
        if self._spec.phase == "work" and now - self._there > GONE_SECONDS:
            text = (
                f"lost rank 0: nothing at the address that it had in the preparation answers {self._spec.name} for "
                f"{GONE_SECONDS:g} s ({why}): its pod was replaced, or its node is gone"
            )
            self._fail("lost", text, 70)
            return
        if now > self._deadline:
            limit = f"{self._spec.start_timeout:g} s"
            code = error.exit_code if isinstance(error, ClusterError) else 124
            self._fail("timeout", f"{self._spec.name} could not join rank 0 within {limit}: {why}", code)
            return
        if self._tries == _SAID_AFTER:
            said = error.text if isinstance(error, TorchnetError) else why
            self._notice(f"{self._spec.name} has not reached rank 0 yet: {said}; trying on")
        self._timer = self._loop.later(seconds or min(0.01 * 2 ** min(self._tries, 6), 0.5), self._try)

    def _reachable(self, rank0: str) -> None:
        """Refuse at once what no waiting mends."""
        own, rail = self._spec.name, self._rail
        if self._spec.loopback:
            return
        if rank0 == rail.address:
            raise RefusedError(
                f"address {rank0} belongs to rank 0 and to {own} ({rail.interface})",
                fix="recreate one of them; an ipam with one pool for all nodes keeps addresses apart",
            )
        if (":" in rank0) != (rail.family == 6):
            raise RefusedError(
                f"{own} has IPv{rail.family} {rail.address} on {rail.interface}, rank 0 has {rank0}: the families "
                "are mixed",
                fix="give all workers addresses of one family, or choose one with --family",
            )
        problem = wrong_route(own, "rank 0", rail, rank0)
        if problem:
            raise RefusedError(problem)

    def _fail(self, kind: str, text: str, code: int) -> None:
        self._failed(Failure(kind, text, code, node=self._spec.name, at=time.time()))  # type: ignore[arg-type]
