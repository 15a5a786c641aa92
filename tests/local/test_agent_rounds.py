"""Rank 0 while others come, go and come again: what it asks of whom, before anything has started."""

from __future__ import annotations

import pytest

from tests.namespaces import isolated
from tests.rounds import Job, Other
from torchnet.agent import coordinator
from torchnet.agent.messages import Over, PreflightResult, Rejection, Stop, Table
from torchnet.network.path_diagnosis import LinkType, PathView
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable, fingerprint


def uids(other: Other) -> list[str]:
    return [row.uid for row in other.last(Table).table.rows]


@isolated
def test_who_goes_while_paths_are_checked_is_waited_for() -> None:
    job = Job("prepare")
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
    assert one.types() == ["Table", "Table", "SaveState"]


@isolated
def test_a_problem_on_the_way_to_a_pod_that_went_is_none() -> None:
    job = Job("prepare")
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
def test_rank_0_hears_the_end_when_the_others_have_gone() -> None:
    job = Job("prepare")
    zero, one, two = (job.join(rank) for rank in range(3))
    job.say([zero, one, two], lambda other: other.checked())
    job.say([zero, one, two], lambda other: other.saved())
    assert one.last(Over).code == two.last(Over).code == 0
    assert zero.types() == ["Table", "SaveState"]
    one.connection.close()
    job.turn()
    assert zero.types() == ["Table", "SaveState"]
    two.connection.close()
    job.turn()
    assert zero.last(Over).code == 0


@isolated
def test_a_worker_that_keeps_its_connection_does_not_hold_the_end_for_long() -> None:
    job = Job("prepare")
    others = [job.join(rank) for rank in range(3)]
    job.say(others, lambda other: other.checked())
    job.say(others, lambda other: other.saved())
    job.turn(coordinator._LEAVE_SECONDS + 0.2)
    assert others[0].types()[-1] == "Over"


@isolated
def test_a_pod_that_goes_while_all_save_is_waited_for() -> None:
    job = Job("prepare")
    zero, one, two = (job.join(rank) for rank in range(3))
    job.say([zero, one, two], lambda other: other.checked())
    job.say([zero, one], lambda other: other.saved())
    two.connection.close()
    job.turn()
    assert one.types() == ["Table", "SaveState"]
    again = job.join(2, "another")
    job.say([zero, one, again], lambda other: other.checked())
    job.say([zero, one, again], lambda other: other.saved())
    assert [other.types()[-1] for other in (one, again)] == ["Over", "Over"]


@isolated
def test_what_all_have_verified_is_not_probed_again_and_anything_else_is() -> None:
    rows = tuple(
        PeerRow(n, f"run-{n}", f"u{n}", (PeerRail("lo", f"127.0.0.{n + 1}", 65536),)) for n in range(3)
    )
    known = fingerprint(PeerTable(rows))
    job = Job("work", known)
    others = [job.join(rank) for rank in range(3)]
    assert [other.last(Table).probe for other in others] == [False] * 3
    job.say(others, lambda other: other.checked(paths=0))
    assert others[1].types() == ["Table", "Start"]
    told = [event["phase"] for event in job.events if event.get("text") == "unchanged since the preparation"]
    assert told == ["paths"]
    for other in ("", "another fingerprint"):
        job.close()
        job = Job("work", known)
        job.join(0)
        job.join(1, verified=other)
        assert job.join(2).last(Table).probe is True


@isolated
def test_a_pod_that_prepares_meets_those_that_work() -> None:
    job = Job("work", "verified before")
    zero, one = (job.join(rank) for rank in range(2))
    new = job.join(2, "new", phase="prepare", verified="")
    everybody = [zero, one, new]
    assert [other.last(Table).probe for other in everybody] == [True] * 3
    job.say(everybody, lambda other: other.checked())
    assert [other.types()[-1] for other in everybody] == ["SaveState"] * 3
    job.say(everybody, lambda other: other.saved())
    # It goes to its other container; the others stay where they are.
    assert new.last(Over).code == 0
    assert zero.types() == one.types() == ["Table", "SaveState"]
    rows = new.last(Table).table
    back = job.join(2, "new", verified=fingerprint(rows))
    assert [other.last(Table).probe for other in (zero, one, back)] == [False] * 3
    job.say([zero, one, back], lambda other: other.checked(paths=0))
    assert [other.types()[-1] for other in (zero, one, back)] == ["Start"] * 3


@isolated
def test_those_that_work_come_again_to_a_rank_0_that_prepares() -> None:
    job = Job("prepare")
    zero = job.join(0)
    one, two = (job.join(rank, phase="work", verified="verified before") for rank in (1, 2))
    everybody = [zero, one, two]
    job.say(everybody, lambda other: other.checked())
    job.say(everybody, lambda other: other.saved())
    job.turn()
    # Not told that it is over: their work is to come, with the other container of rank 0.
    assert one.types() == two.types() == ["Table", "SaveState"]
    assert one.gone
    assert two.gone
    assert zero.last(Over).code == 0


@isolated
def test_a_rank_whose_pod_died_without_a_word_is_given_to_another() -> None:
    job = Job("prepare")
    job.join(0)
    job.join(1, "old")
    refused = job.join(1, "new")
    assert "node rank 1 is taken by run-1" in refused.last(Rejection).failure.text
    job.coordinator._members[1].last_message_at -= 10  # nothing for so long
    job.join(1, "new")
    two = job.join(2)
    assert uids(two) == ["u0", "new", "u2"]


@isolated
@pytest.mark.parametrize(("phase", "code"), [("prepare", 124), ("work", 70), ("all", 124)])
def test_the_time_for_all_to_come_begins_again_with_each_gathering(phase: str, code: int) -> None:
    job = Job(phase, start_timeout=1.0)
    zero, one = (job.join(rank) for rank in range(2))
    job.turn(1.2)
    assert zero.last(Stop).failure.code == code
    assert "missing: node rank 2" in zero.last(Stop).failure.text
    assert one.types() == ["Stop"]
