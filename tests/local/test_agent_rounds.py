"""Rank 0 while others come, go and come again: what it asks of whom, before anything has started."""

from __future__ import annotations

import pytest

from tests.namespaces import isolated
from tests.rounds import Job, Other
from tests.unit.agents import made
from torchnet.agent.messages import (
    Over,
    PreflightResult,
    ProcessesStopped,
    Rejection,
    Stop,
    Table,
    WorkerReceipt,
)
from torchnet.network.path_diagnosis import LinkType, PathView

pytestmark = pytest.mark.waits


def uids(other: Other) -> list[str]:
    return [row.uid for row in other.last(Table).table.rows]


@isolated
def test_who_goes_while_paths_are_checked_is_waited_for() -> None:
    job = Job("work")
    zero, one, two = (job.join(rank) for rank in range(3))
    assert zero.types() == one.types() == two.types() == ["Table"]
    zero.checked()
    two.connection.close()
    job.turn()
    one.checked()  # of the table that does not count any more
    job.turn()
    assert one.types() == ["Table"]
    assert job.texts("failure") == []
    again = job.join(2, "another")
    assert [uids(other) for other in (zero, one, again)] == [["u0", "u1", "another"]] * 3
    job.say([zero, one, again], lambda other: other.checked(number=1))
    assert one.types() == ["Table", "Table"]
    job.say([zero, one, again], lambda other: other.checked())
    assert one.types() == ["Table", "Table", "Start"]


@isolated
def test_a_problem_on_the_way_to_a_pod_that_went_is_none() -> None:
    job = Job("work")
    zero, one, two = (job.join(rank) for rank in range(3))
    two.connection.close()
    job.turn()
    one.checked(("run-1 to run-2: not reached",))
    zero.checked()
    job.turn()
    assert job.texts("failure") == []
    assert one.types() == ["Table"]


L3 = LinkType("ipvlan", "l3", 32)


def unreached(other: Other, *silent: int, link: LinkType = L3) -> None:
    """The worker reports that these ranks have not answered."""
    view = PathView(f"node{other.rank}", (link,), tuple((rank, 0) for rank in silent), ())
    problems = tuple(f"run-{other.rank} to run-{rank}: not reached" for rank in silent)
    other.send(PreflightResult(other.last(Table).round, problems, 0, view))


@isolated
def test_a_path_that_does_not_work_is_judged_by_both_ends() -> None:
    job = Job("all")
    zero, one, two = (job.join(rank) for rank in range(3))
    unreached(zero, 1)
    two.checked()
    job.turn(0.2)
    assert zero.types() == ["Table"]  # until the other end has its say, or has had the time to
    unreached(one, 0)
    job.turn(0.2)
    assert zero.types() == ["Table", "Stop"]
    (text,) = job.texts("failure")
    assert "on node0 run:\n    ip route replace 127.0.0.2/32 via ADDRESS_OF_NODE1" in text
    assert "on node1 run:\n    ip route replace 127.0.0.1/32 via ADDRESS_OF_NODE0" in text
    assert text.endswith("run-0 to run-1: not reached")


@isolated
def test_a_worker_whose_paths_work_shows_that_its_node_is_reached() -> None:
    """Run-2 is a pod of node1, too: that run-1 does not answer run-0 is no filter between the nodes."""
    for host, causes in (("node1", 0), ("node2", 1)):
        job = Job("all")
        zero, one, two = (job.join(rank) for rank in range(3))
        two.send(PreflightResult(two.last(Table).round, (), 2, PathView(host)))
        unreached(zero, 1, link=LinkType("macvlan", "", 32))
        unreached(one, 0, link=LinkType("macvlan", "", 32))
        job.turn(0.2)
        (text,) = job.texts("failure")
        assert text.count("most likely") == causes
        job.close()


@isolated
def test_an_end_that_says_nothing_does_not_hold_up_the_refusal() -> None:
    job = Job("all")
    zero, _, _ = (job.join(rank) for rank in range(3))
    unreached(zero, 1)
    job.turn(2.5)
    assert zero.types() == ["Table", "Stop"]
    assert job.texts("failure") == ["preflight: run-0 to run-1: not reached"]


@isolated
def test_a_problem_of_one_end_alone_is_reported_at_once() -> None:
    job = Job("all")
    zero, _, _ = (job.join(rank) for rank in range(3))
    zero.checked(("run-0 to run-1: no route",))
    job.turn(0.2)
    assert zero.types() == ["Table", "Stop"]


@isolated
def test_nobody_is_waited_for_where_pods_are_not_replaced() -> None:
    job = Job("all")
    zero, one, two = (job.join(rank) for rank in range(3))
    two.connection.close()
    job.turn(0.5)
    assert zero.types() == one.types() == ["Table", "Stop"]
    assert [event["node"] for event in job.events if event["event"] == "failure"] == ["run-2"]


@isolated
def test_a_rank_whose_pod_died_without_a_word_is_given_to_another() -> None:
    job = Job("work")
    job.join(0)
    job.join(1, "old")
    refused = job.join(1, "new")
    assert "node rank 1 is taken by run-1" in refused.last(Rejection).failure.text
    job.coordinator._members[1].last_message_at -= 10  # nothing for so long
    job.join(1, "new")
    two = job.join(2)
    assert uids(two) == ["u0", "new", "u2"]


@isolated
@pytest.mark.parametrize("phase", ["work", "all"])
def test_not_all_come_in_time(phase: str) -> None:
    job = Job(phase, start_timeout=1.0)
    zero, one = (job.join(rank) for rank in range(2))
    job.turn(1.2)
    assert zero.last(Stop).failure.code == 124
    assert "missing: node rank 2" in zero.last(Stop).failure.text
    assert one.types() == ["Stop"]


@isolated
def test_a_worker_that_goes_after_the_start_is_lost() -> None:
    job = Job("work")
    zero, one, two = (job.join(rank) for rank in range(3))
    job.say([zero, one, two], lambda other: other.checked())
    assert [other.types() for other in (zero, one, two)] == [["Table", "Start"]] * 3
    two.connection.close()
    job.turn(0.5)
    assert one.types() == ["Table", "Start", "Stop"]
    (text,) = job.texts("failure")
    assert text.startswith("lost run-2 (node rank 2)")


@isolated
def test_the_others_hear_the_end_first_and_rank_0_once_they_have_gone() -> None:
    job = Job("all", start_timeout=0.5)
    zero, one = (job.join(rank) for rank in range(2))
    job.turn(0.7)
    job.say([zero, one], lambda other: other.send(ProcessesStopped()))
    job.say([zero, one], lambda other: other.send(WorkerReceipt(made(other.rank, {}))))
    assert one.types()[-1] == "Over"
    assert zero.types()[-1] == "ReceiptRequest"
    one.connection.close()
    job.turn()
    assert zero.last(Over).code == one.last(Over).code == 124
