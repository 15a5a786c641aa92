"""Where rank 0's rendezvous listens in a pod: at its address on the primary network, which a name or the API tells.

The join proves the job's token, and hands out the backend's addresses in the peer table, so this address need not be
trusted: at a wrong one nobody has the token.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torchnet.agent.dns_client import NameServers, NoResponseError
from torchnet.agent.rendezvous import Endpoint
from torchnet.errors import ClusterError, NetworkError, NotYetError, TorchnetError
from torchnet.linux.rtnetlink import family_of
from torchnet.network.dns_message import AAAA, NAME_ERROR, NO_ERROR, SRV, A, Question, Response
from torchnet.text import printable

# How long a cache keeps an answer: CoreDNS's `cache 30`, as kubeadm and most providers configure it.
_CACHE_SECONDS = 30.0
_FIRST_SECONDS, _LAST_SECONDS = 0.25, 2.0  # between two questions
_LEAST_QUESTIONS = 6  # which take turns, so that a turn has 6 s at most
# Most pods of a job start within these seconds: questions that were not used before follow each other faster then.
_START_SECONDS, _START_TURN_SECONDS = 3.0, 0.25
_FRESH_SECONDS = 2.0  # until an address that does not respond is asked for again


class Lookup(Protocol):
    """A source of rank 0's addresses."""

    def rank0(self) -> tuple[str, ...]:
        """Return rank 0's addresses on the primary network; may be called repeatedly.

        Raises:
            NotYetError: a later call can succeed.
            ClusterError: the API server refuses.
        """

    @property
    def known_rank0(self) -> tuple[str, ...]:
        """Rank 0's addresses by the last request; () if they are not known."""


@dataclass(frozen=True)
class PodEndpoint(Endpoint):
    """Where rank 0's rendezvous listens: at its pod's address, requested for each connection.

    Attributes:
        host: this pod's own address on rank 0; elsewhere it is not used.
        lookup: None on rank 0.
    """

    lookup: Lookup | None = None

    def resolve(self) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
        hosts = (self.host,) if self.lookup is None else self.lookup.rank0()
        return [(socket.AddressFamily(family_of(host)), (host, self.port)) for host in hosts]

    @property
    def known_host(self) -> str:
        return self.host if self.lookup is None else next(iter(self.lookup.known_rank0), "")

    def __str__(self) -> str:
        return "rank 0's pod" if self.lookup else super().__str__()


class ServiceLookup:
    """Rank 0's addresses by DNS. Where that has no answer, the API server is asked, if this pod may do so.

    Name servers cache answers, also that a name does not exist yet. Questions that differ in name, type or header bits
    are cached separately, so the questions take turns, within the time for which a cache keeps an answer: an answer is
    never older than one turn. All workers ask the same question at the same time, so a cache can answer most of them.

    Args:
        names: names of rank 0, relative to the domain of the namespace's Services, each for rank 0 alone; those that
            begin with ``_`` are SRV names (RFC 2782).
        family: of rank 0's address, 4 or 6: that of this pod's own.
        api: another source for when DNS has no answer.
    """

    def __init__(
        self,
        names: Sequence[str],
        namespace: str,
        family: int,
        servers: NameServers,
        api: Lookup | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._namespace = namespace
        self._servers = servers
        self._api = api
        self._clock, self._wall_clock, self._chance = clock, wall_clock, chance
        domain = servers.services_domain(namespace)
        self._questions, self._start_questions = _questions(names, domain, family)
        self._name = self._questions[0].name
        self._began: float | None = None
        self._known: tuple[str, ...] = ()
        self._error: TorchnetError | None = None
        self._pause = _FIRST_SECONDS
        self._next = float("-inf")

    @property
    def known_rank0(self) -> tuple[str, ...]:
        return self._known

    @property
    def turn_seconds(self) -> float:
        """The greatest age of an answer, in seconds. A question's turn comes after its answer has left the caches."""
        return _CACHE_SECONDS / (len(self._questions) - 1)

    def rank0(self) -> tuple[str, ...]:
        now = self._clock()
        if now >= self._next:
            self._look(now)
        if self._known:
            return self._known
        assert self._error is not None
        raise NotYetError(self._error, max(self._next - now, 0.0))

    def _look(self, now: float) -> None:
        before, self._known, self._error = self._known, (), None
        try:
            self._known = self._by_name(before)
        except NetworkError as error:
            self._error = error
            if self._api is not None:
                self._by_api(self._api, error)
        pause = _FRESH_SECONDS
        if not self._known:
            pause = self._pause
            if now > (self._began or now) + _START_SECONDS:
                self._pause = min(self._pause * 1.4, _LAST_SECONDS)
        self._next = now + pause * (0.75 + 0.5 * self._chance())

    def _by_name(self, before: tuple[str, ...]) -> tuple[str, ...]:
        question, plain = self._in_turn(self._questions, self.turn_seconds), self._questions[0]
        try:
            addresses = self._ask(question)
        except NetworkError:  # some servers reject, and some firewalls drop, what is out of the ordinary
            if question == plain:
                raise
            addresses = self._ask(plain)
        self._began = self._clock() if self._began is None else self._began
        if self._clock() < self._began + _START_SECONDS:
            with contextlib.suppress(NetworkError):
                more = self._ask(self._in_turn(self._start_questions, _START_TURN_SECONDS))
                addresses = tuple(dict.fromkeys((*more, *addresses)))
        if not addresses and question.kind == SRV:
            addresses = before  # the server may have no such records
        if not addresses:
            raise NetworkError(
                f"{self._name} has no address: rank 0's pod has not started",
                fix=f"kubectl get pods,endpointslices -n {self._namespace}",
            )
        return addresses

    def _in_turn(self, questions: tuple[Question, ...], seconds: float) -> Question:
        return questions[int(self._wall_clock() / seconds) % len(questions)]

    def _ask(self, question: Question) -> tuple[str, ...]:
        try:
            response = self._servers.ask(question)
        except NoResponseError as error:
            fix = "allow egress from the pods to the cluster's DNS (UDP port 53)"
            raise self._without_dns(f"cannot resolve {self._name}: {error}", fix) from None
        if response.code not in (NO_ERROR, NAME_ERROR):
            fix = "kubectl logs -n kube-system -l k8s-app=kube-dns"
            raise self._without_dns(f"cannot resolve {self._name}: {_refusal(response, self._servers)}", fix)
        return response.addresses

    def _without_dns(self, text: str, fix: str) -> NetworkError:
        if self._api is None:
            text += "; the API server is not asked, because this pod has no service account's token"
            fix += ", or launch with --service-account NAME, an account that may get and list pods"
        return NetworkError(text, fix=fix)

    def _by_api(self, api: Lookup, dns: NetworkError) -> None:
        try:
            self._known = api.rank0()
        except (NotYetError, ClusterError) as error:
            reason = error.error if isinstance(error, NotYetError) else error
            self._error = NetworkError(f"{dns.text}; {reason.text}", fix=reason.fix or dns.fix)


def _questions(
    names: Sequence[str], domain: str, family: int
) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
    """Return the questions for rank 0's address that take turns, and those for the start alone.

    Kubernetes' DNS specification has SRV records for ``_port._protocol.service`` only. CoreDNS has those of hosts, too.
    """
    hosts = [f"{name}.{domain}" for name in names if not name.startswith("_")]
    services = [f"{name}.{domain}" for name in names if name.startswith("_")]
    own = [(host, AAAA if family == 6 else A) for host in hosts]
    own += [(name, SRV) for name in services or hosts]
    questions = _variants(own)
    count = max(_LEAST_QUESTIONS, len(questions) // 2)
    more = _variants([(host, SRV) for host in hosts]) if services else ()
    return questions[:count], questions[count:] + more


def _variants(kinds: Sequence[tuple[str, int]]) -> tuple[Question, ...]:
    bits = ((False, False), (False, True), (True, False), (True, True))
    return tuple(
        Question(name, kind, dnssec, unchecked) for dnssec, unchecked in bits for name, kind in kinds
    )


def _refusal(response: Response, servers: NameServers) -> str:
    return f"the name server {printable(', '.join(servers.servers), 120)} responds {response.code_name}"
