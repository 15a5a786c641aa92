"""Several rails: each is looked at, and named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.bench_faults import made, only
from tests.unit.bench_results import changed
from torchnet.bench.findings import find
from torchnet.bench.results import Results


def railed(results: Results, other: Results, name: str = "net2") -> Results:
    """``results`` with the raw TCP of ``other``'s backend as one more rail."""
    moved = {"network": name}
    nodes = [
        one.model_copy(update={"mtus": {**one.mtus, name: also.mtus["net1"]}})
        for one, also in zip(results.nodes, other.nodes, strict=True)
    ]
    return changed(
        results,
        nodes=tuple(nodes),
        lines=(*results.lines, *(line.model_copy(update=moved) for line in other.lines)),
        tcp=(*results.tcp, *(row.model_copy(update=moved) for row in other.tcp)),
        latency=(*results.latency, *(row.model_copy(update=moved) for row in other.latency)),
    )


TWO: dict[str, Any] = {"environment": {"GLOO_SOCKET_IFNAME": "net1,net2"}}


def test_healthy_rails_have_no_findings() -> None:
    assert not find(railed(made(2, **TWO), made(2, seed=1)))


def test_what_is_wrong_with_a_rail_is_told_with_its_name_and_once() -> None:
    slow = made(3, path=lambda a, b: 0.1 if 1 in (a, b) else 1.0)
    found = only(railed(made(3, achieved=0.5, **TWO), slow))
    assert (found.kind, found.where) == ("slow-node", ("node-1",))
    assert found.text.startswith("net2: node-1 ")
    odd = only(railed(made(2, **TWO), made(2, mtus={1: 1500})))
    assert (odd.kind, odd.text.startswith("net2: ")) == ("mtu", True)


def test_what_is_wrong_with_the_first_rail_does_not_hide_the_other() -> None:
    both = railed(made(2, path=lambda _a, _b: 0.1, **TWO), made(2, path=lambda _a, _b: 0.1))
    assert [(one.kind, one.text.startswith("net2: ")) for one in find(both)] == [
        ("slow-pair", False),
        ("slow-pair", True),
    ]


@pytest.mark.parametrize("compare", ["net2", "eth0"])
def test_beside_another_network_each_group_is_on_its_own(compare: str) -> None:
    assert not find(made(2, compare=compare, **TWO))
    strays = [
        row.model_copy(update={"sockets_bytes": {compare: row.sockets_bytes["net1"]}})
        for row in made(2, compare=compare).collectives
        if row.network == "net1" and row.sockets_bytes
    ]
    found = find(changed(made(2, compare=compare, **TWO), collectives=tuple(strays)))
    assert [one.kind for one in found] == ["wrong-interface"]


def test_ranks_that_were_told_the_compared_network_are_told_though_there_is_nothing_to_compare() -> None:
    results = made(2, compare="eth0", environment={"GLOO_SOCKET_IFNAME": "eth0"})
    assert results.setup
    rows = [row.model_copy(update={"network": "eth0", "sockets_bytes": {"eth0": 9_000_000}}) for row in
            results.collectives if row.network == "net1"]  # fmt: skip
    setup = results.setup.model_copy(update={"interface": "eth0"})
    found = only(changed(results, setup=setup, collectives=tuple(rows), tcp=(), latency=()))
    assert (found.kind, found.where) == ("wrong-interface", ("eth0",))


def test_nccl_on_two_rails_is_held_against_both() -> None:
    environment = {"NCCL_SOCKET_IFNAME": "=net1,net2"}
    nccl: dict[str, Any] = {"backend": "nccl", "environment": environment, "core": 0.1, "thread": 0.1}

    def result(achieved: float) -> Results:
        return railed(made(2, achieved=achieved, **nccl), made(2, seed=1))

    assert not find(result(1.9))
    found = only(result(0.9))
    assert found.kind == "slow-collective"
    assert " 2 lines " in found.text
