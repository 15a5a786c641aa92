"""Rank 0's address by name: past what caches hold, in time, and by the API where there is no DNS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from torchnet.agent.dns_client import NameServers, NoResponseError
from torchnet.agent.rank0_lookup import PodEndpoint, ServiceLookup
from torchnet.errors import ClusterError, NetworkError, NotYetError
from torchnet.network.dns_message import NAME_ERROR, SRV, A, Question, Response

OWN = ("train", "train-0.train", "_join._tcp.train")
JOBSET = ("train-w-0-0.train",)
CACHE = 30.0


@dataclass
class World:
    """A cluster whose name server caches each answer for 30 s, also that there is none."""

    now: float = 1000.0
    address: str = ""
    asked: list[Question] = field(default_factory=list)
    cache: dict[Question, tuple[float, Response]] = field(default_factory=dict)
    broken: str = ""
    code: int = 0
    lacks: Callable[[Question], bool] = lambda _: False
    rejects: Callable[[Question], bool] = lambda _: False
    silent: bool = False  # instead of a rejection

    def ask(self, question: Question) -> Response:
        self.asked.append(question)
        if self.broken:
            raise NoResponseError(self.broken)
        if self.rejects(question):
            if self.silent:
                raise NoResponseError("no response")
            return Response(1, ())
        if self.lacks(question):
            return Response(0, ())
        until, known = self.cache.get(question, (0.0, Response(0, ())))
        if self.now < until:
            return known
        fresh = Response(0, (self.address,)) if self.address else Response(self.code or NAME_ERROR, ())
        self.cache[question] = self.now + CACHE, fresh
        return fresh

    def lookup(self, names: tuple[str, ...] = OWN, api: Api | None = None) -> ServiceLookup:
        servers = Servers(("10.96.0.10",), ("ml.svc.x.org",))
        object.__setattr__(servers, "world", self)
        clock = lambda: self.now  # noqa: E731
        return ServiceLookup(names, "ml", 4, servers, api, clock=clock, wall_clock=clock, chance=lambda: 0.5)


class Servers(NameServers):
    world: World

    def ask(self, question: Question) -> Response:
        return self.world.ask(question)


@dataclass
class Api:
    """Another source, with an address or an error."""

    found: tuple[str, ...] = ()
    error: Exception | None = None
    calls: int = 0

    def rank0(self) -> tuple[str, ...]:
        self.calls += 1
        if self.error:
            raise self.error
        return self.found

    @property
    def known_rank0(self) -> tuple[str, ...]:
        return self.found


def told(lookup: ServiceLookup) -> str:
    try:
        return lookup.rank0()[0]
    except NotYetError:
        return ""


def late(world: World, lookup: ServiceLookup, expected: str, step: float = 0.1) -> float:
    """How long it takes until the lookup tells ``expected``, asked every ``step`` seconds."""
    began = world.now
    while told(lookup) != expected:
        world.now += step
        assert world.now < began + 60, "never"
    return world.now - began


@pytest.mark.parametrize("names", [OWN, JOBSET])
def test_a_rank_0_that_comes_late_is_found_within_a_turn(names: tuple[str, ...]) -> None:
    """Whatever a cache has been told before, and for however long."""
    worst = 0.0
    for wait in (0.3, 1.0, 2.0, 5.0, 17.0, 29.0, 44.0, 100.0):
        world = World(now=1000.0 + wait / 7)
        lookup = world.lookup(names)
        until = world.now + wait
        while world.now < until:
            assert told(lookup) == ""
            world.now += 0.1
        world.address = "10.0.0.7"
        worst = max(worst, late(world, lookup, "10.0.0.7"))
    print(f"{len(names)} names: {worst:.1f} s, a turn is {lookup.turn_seconds:.2f} s")
    assert worst < lookup.turn_seconds + 2.5
    assert worst < 10


def test_a_rank_0_that_starts_with_the_others_is_found_at_once() -> None:
    for wait in (0.3, 0.6, 0.9, 1.2):
        for phase in (0.0, 0.4, 0.7, 1.1):
            world = World(now=1000.0 + phase)
            lookup = world.lookup()
            until = world.now + wait
            while world.now < until:
                told(lookup)
                world.now += 0.05
            world.address = "10.0.0.7"
            assert late(world, lookup, "10.0.0.7", 0.05) < 0.7


@pytest.mark.parametrize("names", [OWN, JOBSET])
def test_a_replaced_rank_0_is_found_within_10_seconds(names: tuple[str, ...]) -> None:
    worst = 0.0
    for wait in (0.5, 3.0, 11.0, 31.0, 62.0):
        world = World(address="10.0.0.7")
        lookup, other = world.lookup(names), world.lookup(names)
        until = world.now + wait
        while world.now < until:
            assert told(lookup) == told(other) == "10.0.0.7"
            world.now += 0.1
        world.address = "10.0.0.9"
        worst = max(worst, late(world, lookup, "10.0.0.9"))
    assert worst < 10


def test_a_cache_answers_most_workers() -> None:
    """All workers ask the same question at the same time."""
    world = World()
    lookups = [world.lookup() for _ in range(50)]
    for _ in range(100):
        for lookup in lookups:
            told(lookup)
        world.now += 0.1
    assert len(set(world.asked)) < 20
    assert len(world.asked) > 300


def test_a_waiting_worker_asks_every_2_seconds_at_most() -> None:
    world = World()
    lookup = world.lookup()
    for _ in range(1000):
        told(lookup)
        world.now += 0.1
    assert len(world.asked) < 100 / 2 + 30


OWN_KINDS = {
    ("train.ml.svc.x.org", A),
    ("train-0.train.ml.svc.x.org", A),
    ("_join._tcp.train.ml.svc.x.org", SRV),
}
OWN_MORE = {("train.ml.svc.x.org", SRV), ("train-0.train.ml.svc.x.org", SRV)}
# The Service that JobSet creates has no port, and so no SRV name.
JOBSET_KINDS = {("train-w-0-0.train.ml.svc.x.org", A), ("train-w-0-0.train.ml.svc.x.org", SRV)}


@pytest.mark.parametrize(
    ("names", "kinds", "more"), [(OWN, OWN_KINDS, OWN_MORE), (JOBSET, JOBSET_KINDS, set())]
)
def test_names_and_types_are_what_dns_servers_know(
    names: tuple[str, ...], kinds: set[tuple[str, int]], more: set[tuple[str, int]]
) -> None:
    """After the start, those of Kubernetes' DNS specification alone, where there are enough of them."""
    world = World()
    lookup = world.lookup(names)
    asked = []
    for seconds in (4, 60):
        for _ in range(seconds * 10):
            told(lookup)
            world.now += 0.1
        asked.append({(question.name, question.kind) for question in world.asked})
        world.asked.clear()
    assert asked == [kinds | more, kinds]
    assert lookup.turn_seconds == 6.0


def test_a_server_without_srv_records_of_hosts_tells_of_a_late_rank_0_within_a_turn() -> None:
    host = "train.ml.svc.x.org", "train-0.train.ml.svc.x.org"
    for wait in (5.0, 17.0, 29.0):
        world = World(lacks=lambda question: question.kind == SRV and question.name in host)
        lookup = world.lookup()
        until = world.now + wait
        while world.now < until:
            told(lookup)
            world.now += 0.1
        world.address = "10.0.0.7"
        assert late(world, lookup, "10.0.0.7") < lookup.turn_seconds + 2.5


def test_records_that_a_server_does_not_have_hide_no_address() -> None:
    """Rank 0's pod has its address a while before it listens."""
    world = World(address="10.0.0.7", lacks=lambda question: question.kind == SRV)
    lookup = world.lookup(JOBSET)
    assert late(world, lookup, "10.0.0.7") <= 6
    for _ in range(400):
        world.now += 0.1
        assert told(lookup) == "10.0.0.7"
    world.address, world.cache = "", {}
    world.now += 7
    told(lookup)
    world.now += 7
    assert told(lookup) == "", "a host without an address is gone"


@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_rejects_or_drops_a_variant_still_tells(silent: bool) -> None:
    world = World(address="10.0.0.7", rejects=lambda question: question.dnssec, silent=silent)
    lookup = world.lookup()
    for _ in range(600):
        assert told(lookup) == "10.0.0.7"
        world.now += 0.1
    assert any(question.dnssec for question in world.asked)


def test_an_endpoint_has_all_addresses_that_the_name_has() -> None:
    api = Api(("10.0.0.7", "fd00::7"))
    endpoint = PodEndpoint("10.0.0.1", lookup=api)
    assert [host for _, (host, _) in endpoint.resolve()] == ["10.0.0.7", "fd00::7"]
    assert (endpoint.known_host, str(endpoint)) == ("10.0.0.7", "rank 0's pod")
    own = PodEndpoint("10.0.0.1")
    assert [at for _, at in own.resolve()] == [("10.0.0.1", 29499)]


def failure(lookup: ServiceLookup) -> str:
    with pytest.raises(NotYetError) as caught:
        lookup.rank0()
    assert isinstance(caught.value.error, NetworkError)
    return str(caught.value.error)


def test_without_dns_the_error_says_who_is_not_asked() -> None:
    world = World(broken="no response from the name server 10.96.0.10")
    said = failure(world.lookup())
    assert "cannot resolve train" in said
    assert "no response from the name server 10.96.0.10; the API server is not asked" in said
    assert "UDP port 53" in said
    assert "--service-account" in said
    refusing = World(code=5)
    said = failure(refusing.lookup())
    assert "10.96.0.10 responds REFUSED; the API server is not asked" in said
    assert "egress" not in said


def test_a_pod_that_is_not_there_is_no_failure_of_dns() -> None:
    said = failure(World().lookup())
    assert "has no address: rank 0's pod has not started" in said
    assert "API" not in said


def test_without_dns_the_api_is_asked_if_it_may_be() -> None:
    world = World(broken="no response")
    api = Api(("10.0.0.7",))
    lookup = world.lookup(api=api)
    assert lookup.rank0() == lookup.known_rank0 == ("10.0.0.7",)
    denied = Api(error=ClusterError("the API server refused to list pods: 403", fix="grant it"))
    said = failure(world.lookup(api=denied))
    assert "no response; the API server refused to list pods: 403" in said
    assert "fix: grant it" in said


def test_with_dns_the_api_is_left_alone() -> None:
    world, api = World(address="10.0.0.7"), Api(("10.0.0.9",))
    assert world.lookup(api=api).rank0() == ("10.0.0.7",)
    assert api.calls == 0
