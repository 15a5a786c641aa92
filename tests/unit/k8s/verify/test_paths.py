"""Who is to blame for paths that do not work, and which nodes are slow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchnet.k8s.verify.check import Check
from torchnet.k8s.verify.cluster_report import ClusterReport
from torchnet.k8s.verify.paths import Path, blame, check_paths, faulty_nodes, slow_nodes
from torchnet.k8s.verify.schedule import rounds

FAST = 1.25e9  # bytes/s: 10 Gbit/s


def paths(
    count: int,
    bad: frozenset[int] = frozenset(),
    *,
    cut: frozenset[tuple[int, int]] = frozenset(),
    slow: dict[int, float] | None = None,
    rail: str = "net1",
) -> list[Path]:
    """All pairs of so many nodes: those with a ``bad`` node and the ``cut`` ones fail, ``slow`` ones have this rate."""
    found = []
    for one, other in (pair for pairs in rounds(count) for pair in pairs):
        if {one, other} & bad or (one, other) in cut:
            result = Path(f"n{one:03}", f"n{other:03}", rail, 9000, "no response to packets of 9000 bytes")
        else:
            rate = min((slow or {}).get(node, FAST) for node in (one, other))
            result = Path(f"n{one:03}", f"n{other:03}", rail, 9000, "", rate, rate)
        found.append(result)
    return found


def bad(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.evidence for check in checks if not check.good}


@given(st.integers(3, 64), st.data())
def test_a_node_that_fails_with_all_of_its_partners_is_blamed_and_they_are_not(
    count: int, data: st.DataObject
) -> None:
    one = data.draw(st.integers(0, count - 1))
    assert blame(paths(count, frozenset({one}))).nodes == (f"n{one:03}",)
    assert blame(paths(count, frozenset({one}))).paths == ()
    assert faulty_nodes(paths(count, frozenset({one}))) == [f"n{one:03}"]


@given(st.integers(4, 64), st.data())
def test_of_several_faulty_nodes_each_is_blamed(count: int, data: st.DataObject) -> None:
    """A good node whose partners are all faulty cannot be told from them, and is the only one beside them."""
    guilty = data.draw(st.frozensets(st.integers(0, count - 1), max_size=count - 2))
    found = paths(count, guilty)
    if not any(path.works for path in found):
        assert blame(found).everywhere
        return
    alone = {
        node
        for node in range(count)
        if all(path.problem for path in found if f"n{node:03}" in (path.one, path.other))
    }
    assert blame(found).nodes == tuple(sorted(f"n{node:03}" for node in alone))
    assert guilty <= alone
    assert all(path.works or {path.one, path.other} & set(blame(found).nodes) for path in found)


def test_a_path_between_two_nodes_that_reach_others_is_blamed_itself() -> None:
    (first, *_), *_ = rounds(8)
    found = paths(8, cut=frozenset({first}))
    assert blame(found).nodes == ()
    assert [(path.one, path.other) for path in blame(found).paths] == [(f"n{first[0]:03}", f"n{first[1]:03}")]
    assert list(bad(list(check_paths(found)))) == [f"path n{first[0]:03} to n{first[1]:03}"]


def test_if_nothing_works_no_node_is_blamed() -> None:
    found = paths(8, frozenset(range(8)))
    assert faulty_nodes(found) == []
    (evidence,) = bad(list(check_paths(found))).values()
    assert evidence.startswith("none of 12 pairs of 8 nodes works: no response")


def test_of_two_nodes_neither_is_blamed_and_both_are_named() -> None:
    found = paths(2, frozenset({0}))
    assert faulty_nodes(found) == []
    (evidence,) = bad(list(check_paths(found))).values()
    assert evidence == "n000 and n001: no response to packets of 9000 bytes"


def test_each_rail_is_judged_by_itself() -> None:
    found = paths(4, frozenset({1})) + paths(4, rail="net2")
    checks = list(check_paths(found))
    assert [check.evidence for check in checks if check.name == "full size, both ways, net2"] == [
        "9000 bytes in 4 pairs of 4 nodes"
    ]
    (first,) = (check.evidence for check in checks if check.name == "full size, both ways, net1")
    assert first == "9000 bytes in 2 of 4 pairs of 4 nodes"
    assert list(bad(checks)) == ["node n001"]
    assert faulty_nodes(found) == ["n001"]


@pytest.mark.parametrize("count", [3, 4, 5, 8, 33])
def test_a_slow_node_is_named_and_its_partners_are_not(count: int) -> None:
    found = paths(count, slow={1: FAST / 10})
    assert [one.node for one in slow_nodes(found)] == ["n001"]
    assert faulty_nodes(found) == ["n001"]
    (evidence,) = bad(list(check_paths(found))).values()
    assert "sends at most 1 Gbit/s and receives at most 1 Gbit/s" in evidence
    assert "the median of the nodes is 10 Gbit/s" in evidence


def test_one_slow_direction_is_enough() -> None:
    found = [
        Path(one.one, one.other, one.rail, 9000, "", FAST / (5 if one.one == "n000" else 1), FAST)
        for one in paths(4)
    ]
    (slow,) = slow_nodes(found)
    assert (slow.node, slow.sent, slow.received) == ("n000", FAST / 5, FAST)


def test_two_nodes_and_a_little_less_are_not_slow() -> None:
    assert slow_nodes(paths(2, slow={1: FAST / 10})) == []
    assert slow_nodes([Path("a", "b", "net1", 9000, "", FAST, FAST / 10)]) == [], "which of the two?"
    assert slow_nodes(paths(8, slow={1: FAST * 0.6})) == []


def test_the_result_of_each_node() -> None:
    cluster_report = ClusterReport(paths=paths(8, frozenset({3})))
    cluster_report.nodes["n003"] = ("fail", "its link has no carrier")
    cluster_report.judge_paths()
    assert cluster_report.nodes.pop("n003") == ("fail", "its link has no carrier"), "the first reason stays"
    assert set(cluster_report.nodes.values()) == {("ok", "")}
    nothing = ClusterReport(paths=paths(2, frozenset({0})))
    nothing.judge_paths()
    assert {result for result, _ in nothing.nodes.values()} == {"unknown"}
