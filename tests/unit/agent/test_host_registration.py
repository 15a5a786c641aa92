"""Node ranks for hosts that were started one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from torchnet.agent.host_registration import HostRegister, HostRequest, Registration
from torchnet.agent.spec import AgentSpec
from torchnet.network.interface_selection import Rail

SPEC = AgentSpec("job", 4, 2, ("true",), name="host-a", token="x")
B = HostRequest("uid-b", "host-b", 4, 2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def register(clock: Clock) -> HostRegister:
    return HostRegister(SPEC, clock)


def named(number: int, **more: Any) -> HostRequest:
    return replace(B, uid=f"uid-{number}", name=f"host-{number}", **more)


def test_ranks_in_the_order_of_arrival(register: HostRegister) -> None:
    answers = [register.answer(named(number), {0}, late=False) for number in (1, 2, 3)]
    assert [(one.node_rank, one.name, one.run_id) for one in answers] == [
        (1, "host-1", "job"),
        (2, "host-2", "job"),
        (3, "host-3", "job"),
    ]
    assert register.answer(named(2), {0}, late=False).node_rank == 2  # it asks again
    assert "one too many" in register.answer(named(4), {0, 1, 2, 3}, late=False).refused
    joined = {0: "host-a", 1: "host-1", 3: "host-3"}
    assert register.missing(joined) == ({2: "host-2, which came but did not join"}, ())


def test_a_rank_that_the_line_gives_is_kept(register: HostRegister) -> None:
    assert register.answer(named(1, node_rank=3), {0}, late=False).node_rank == 3
    assert register.answer(named(2), {0}, late=False).node_rank == 1
    for rank, why in ((0, "node 0's own"), (4, "not below the job's 4 nodes"), (3, "is taken")):
        assert why in register.answer(named(5, node_rank=rank), {0, 3}, late=False).refused


def test_the_schedulers_number_is_a_wish(register: HostRegister) -> None:
    """The endpoint's host is rank 0, whatever Slurm's number of it."""
    assert register.answer(named(1, wished=2), {0}, late=False).node_rank == 2
    assert register.answer(named(2, wished=0), {0}, late=False).node_rank == 1
    assert register.answer(named(3, wished=2), {0}, late=False).node_rank == 3


def test_a_host_that_has_left_makes_room(register: HostRegister, clock: Clock) -> None:
    for number in (1, 2, 3):
        register.answer(named(number), {0}, late=False)
    assert register.answer(named(4), {0}, late=False).refused
    register.release(2)
    assert register.answer(named(4), {0, 1, 3}, late=False).node_rank == 2
    clock.now = 100.0  # host-1 got a node rank long ago and never joined
    assert register.answer(named(5), {0, 2, 3}, late=False).node_rank == 1


def test_who_is_restarted_is_told_to_ask_again(register: HostRegister, clock: Clock) -> None:
    for number in (1, 2, 3):
        register.answer(named(number), {0}, late=False)
    answer = register.answer(named(4), {0, 1, 2}, late=False)
    assert ("one too many" in answer.refused, answer.later) == (True, True)
    clock.now = 100.0
    assert register.answer(named(4), {0, 1, 2}, late=False).node_rank == 3
    assert not register.answer(named(5), {0, 1, 2, 3}, late=False).later


def test_clones_with_one_name_get_different_names(register: HostRegister) -> None:
    names = [
        register.answer(replace(B, uid=uid, name="host-a"), {0}, late=False).name for uid in ("x", "y", "x")
    ]
    assert names == ["host-a-1", "host-a-2", "host-a-1"]


@pytest.mark.parametrize(
    ("request_", "late", "why"),
    [
        (replace(B, nnodes=3), False, "host-b was started with --nnodes 3, node 0 with --nnodes 4"),
        (replace(B, nproc_per_node=8), False, "host-b starts 8 processes, node 0 starts 2: "),
        (replace(B, nproc_per_node=1), False, "; fix: --nproc-per-node 2 on host-b, or 1 on the others"),
        (replace(B, nproc_per_node=1), False, "host-b starts 1 process, node 0"),
        (replace(B, run_id="other"), False, "host-b belongs to run other, this is run job"),
        (B, True, "has already started"),
    ],
)
def test_a_host_that_does_not_fit_is_refused(
    register: HostRegister, request_: HostRequest, late: bool, why: str
) -> None:
    assert why in register.answer(request_, {0}, late=late).refused


def test_the_answer_has_the_networks_of_rank_0(clock: Clock) -> None:
    rails = (Rail(0, None, "ens5", "10.7.0.5", 4, 24, 1500), Rail(1, None, "ens6", "fd00::5", 6, 64, 1500))
    answer = HostRegister(SPEC, clock, rails).answer(B, {0}, late=False)
    assert (answer.networks, answer.interfaces) == (("10.7.0.0/24", "fd00::/64"), ("ens5", "ens6"))
    looped = HostRegister(replace(SPEC, loopback=True), clock, rails)
    assert looped.answer(B, {0}, late=False).networks == ()


def test_whether_all_hosts_have_one_network(register: HostRegister) -> None:
    for number in (1, 2, 3):
        assert not register.all_have_one_network
        register.answer(named(number, one_network=True), {0}, late=False)
    assert register.all_have_one_network
    register.release(3)
    register.answer(named(4), {0, 1, 2}, late=False)
    assert not register.all_have_one_network


@pytest.mark.parametrize(
    ("joined", "texts", "hosts"),
    [
        ({0: "host-a", 2: "host-c.cluster"}, {1: "host-b", 3: "host-d"}, ()),
        # The endpoint's host is rank 0, whatever its place in the list.
        ({0: "host-b", 1: "host-a", 2: "host-c"}, {}, ("host-d",)),
        ({0: "host-b"}, {}, ("host-a", "host-c", "host-d")),
        ({0: "host-a", 1: "host-b", 2: "host-c"}, {3: "host-d"}, ()),
        ({0: "ip-10-0-0-1"}, {}, ()),  # no name of the list
    ],
)
def test_who_is_missing(
    clock: Clock, joined: dict[int, str], texts: dict[int, str], hosts: tuple[str, ...]
) -> None:
    names = ("host-a", "host-b", "host-c", "host-d")
    assert HostRegister(replace(SPEC, host_names=names), clock).missing(joined) == (texts, hosts)


def test_a_host_that_was_refused_is_missing_for_that_reason(register: HostRegister) -> None:
    register.answer(named(1, node_rank=3, nnodes=3), {0}, late=False)
    register.answer(named(2, nproc_per_node=1), {0, 1}, late=False)
    texts = {
        2: "refused: host-2 starts 1 process, node 0 starts 2: torchnet runs the same number on each host",
        3: "refused: host-1 was started with --nnodes 3, node 0 with --nnodes 4",
    }
    assert register.missing({0: "host-a", 1: "host-b"}) == (texts, ())
    register.answer(named(2), {0, 1}, late=False)  # started again, as it should be
    assert register.missing({0: "host-a", 1: "host-b"})[0][2] == "host-2, which came but did not join"


def test_requests_and_answers_arrive_as_they_were_sent() -> None:
    request = replace(B, node_rank=1, wished=2, run_id="job")
    assert HostRequest.read(request.message()) == request
    assert HostRequest.read({"row": {}}) is None
    assert HostRequest.read(replace(B, one_network=True).message()) == replace(B, one_network=True)
    assert HostRequest.read(replace(B, problem="no\nport").message()) == replace(B, problem="no\\x0aport")
    answer = Registration(3, "host-b", "job", ("10.7.0.0/24",), ("eth1",))
    assert Registration.read(json.loads(json.dumps(answer.message()))) == answer
    refused = Registration(refused="no")
    assert Registration.read(json.loads(json.dumps(refused.message()))) == refused


def test_a_strangers_text_cannot_control_the_terminal(register: HostRegister) -> None:
    answer = Registration.read(
        Registration(refused="\x1b]0;title\x07").message() | {"networks": [], "interfaces": []}
    )
    assert answer.refused.isprintable()
    asked = register.answer(replace(B, run_id="\x1b[2J"), (), late=False)
    assert "belongs to run" in asked.refused
    assert asked.refused.isprintable()


@pytest.mark.parametrize(
    "changed",
    [
        {"uid": 1},
        {"name": "a b"},
        {"nnodes": 0},
        {"nnodes": True},
        {"node_rank": -1},
        {"name": "x" * 300},
        {"problem": None},
    ],
)
def test_malformed_requests(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        HostRequest.read({"host": {**vars(B), **changed}})


@pytest.mark.parametrize(
    "changed",
    [
        {"node_rank": "1"},
        {"name": "a\nb"},
        {"run_id": None},
        {"networks": None},
        {"networks": [7]},
        {"networks": ["10.7.0.0/24"]},
        {"interfaces": None},
        {"refused": "x" * 1001},
        {"later": 1},
        {"networks": ["10.7.0.5/24"]},
    ],
)
def test_malformed_answers(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Registration.read({**vars(Registration(1, "b", "job")), "networks": [], "interfaces": [], **changed})
