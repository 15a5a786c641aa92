"""How the run went: wrong results, a slow collective, a refused or lost node, and the next command for each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.bench_faults import made, only, typed
from tests.unit.bench_results import changed
from torchnet.bench.findings import find

# -- the run


def test_wrong_results_come_first() -> None:
    results = made(3, path=lambda a, b: 0.1 if 1 in (a, b) else 1.0)
    rows = (results.collectives[0].model_copy(update={"wrong": 7}), *results.collectives[1:])
    found = find(changed(results, collectives=rows))
    assert [one.kind for one in found] == ["wrong-results", "slow-node"]
    assert "7 elements" in found[0].text


@pytest.mark.parametrize("nodes", [2, 4])
def test_a_slow_collective_on_a_fast_path_is_told(nodes: int) -> None:
    found = only(made(nodes, achieved=0.6))
    assert found.kind == "slow-collective"
    assert found.fix.endswith(" --tune gloo_devices=2")


def test_a_slow_collective_and_noise_that_a_slow_node_explains_are_not_told() -> None:
    assert only(made(3, achieved=0.5, path=lambda a, b: 0.3 if 1 in (a, b) else 1.0)).kind == "slow-node"


def test_noise_is_told() -> None:
    results = made(2, noise=0.01)
    rows = [
        row.model_copy(update={"time": row.time.model_copy(update={"high": row.time.median * 1.6})})
        for row in results.collectives
    ]
    assert only(changed(results, collectives=tuple(rows))).kind == "noise"


@pytest.mark.parametrize("ended", ["interrupted", "timeout", "usage", "cluster", "network"])
def test_an_end_that_says_all_itself_is_no_loss(ended: str) -> None:
    assert not find(changed(made(2), complete=False, exit_code=4, reason="x", ended=ended))


def test_a_network_that_failed_amid_the_run_is_told_once_in_its_own_words() -> None:
    """Beside that, slow paths are no news."""
    slow = made(3, path=lambda a, b: 0.1 if 1 in (a, b) else 1.0)
    assert not find(changed(slow, complete=False, exit_code=4, reason="x", ended="network"))


@pytest.mark.parametrize("code", [0, 4, 124, 143])
@pytest.mark.parametrize("ended", ["script", "lost", ""])
def test_a_ranks_own_code_may_be_any(code: int, ended: str) -> None:
    found = only(
        changed(made(2), complete=False, exit_code=code, reason="rank 1 was killed by SIGTERM", ended=ended)
    )
    assert (found.kind, found.fix) == ("lost", "dmesg --ctime | tail")


def test_an_own_error_is_done_again_with_all_that_is_known_of_it() -> None:
    found = only(changed(made(2), complete=False, exit_code=70, reason="ValueError: x", ended="internal"))
    assert found.fix.startswith("TORCHNET_TRACEBACK=1 torchnet bench ")


def test_a_lost_node_is_named_and_what_follows_is_not() -> None:
    results = changed(made(3, achieved=0.5), complete=False, exit_code=70, reason="node-2 was lost")
    found = only(results)
    assert (found.kind, found.where) == ("lost", ("node-2",))


SLOW: dict[str, Any] = {"on": "kubernetes", "path": lambda a, b: 0.1 if 1 in (a, b) else 1.0}


def test_on_kubernetes_two_new_pods_are_tried_where_the_run_was() -> None:
    """Its own are gone."""
    look = ("torchnet", "verify", "-n", "m l")
    assert only(changed(made(3, **SLOW), look=look)).fix == "torchnet verify -n 'm l'"
    mtu = only(changed(made(3, on="kubernetes", mtus={1: 1500}), look=look))
    assert (mtu.kind, mtu.fix) == ("mtu", "torchnet verify -n 'm l'")


def test_on_kubernetes_what_only_the_host_can_do_says_so() -> None:
    world: dict[str, Any] = {"rate": 10e9, "round_trip": 0.02, "one_stream": 0.2, "window_limited": 0.9}
    found = only(made(2, on="kubernetes", **world))
    assert found.kind == "buffers"
    assert found.fix.startswith("sysctl -w ")
    assert found.fix.endswith("  # on gpu-0 and gpu-1")
    local = only(made(2, **world)).fix
    assert local.startswith("sysctl -w ")
    assert "#" not in local, "it is this machine"
    bound = only(made(2, on="kubernetes", path=lambda _a, _b: 0.6, busy=0.97))
    assert bound.fix == "top -H -b -n 1  # on the host of each pod"
    one_way = made(3, on="kubernetes", path=lambda a, b: 0.6 if (a, b) == (1, 2) else 0.7, busy=0.97)
    assert only(changed(one_way, collectives=())).fix == "top -H -b -n 1  # on gpu-1 and gpu-2"
    held = only(made(2, on="kubernetes", path=lambda _a, _b: 0.6, throttled=0.3))
    assert held.fix.endswith(" --cpus 4")


def test_the_machine_of_a_pod_is_named_since_the_pod_is_gone() -> None:
    assert only(made(3, **SLOW)).text.endswith(". node-1 ran on gpu-1.")
    assert "ran on" not in only(made(3, path=SLOW["path"])).text


def test_a_local_finding_shows_the_networks_as_they_were_asked_for() -> None:
    """They are gone, too."""
    assert only(made(3, path=SLOW["path"])).fix == "torchnet bench --dry-run"
    assert only(made(3, mtus={1: 1500})).fix == "torchnet bench --dry-run"


def test_a_lost_run_on_kubernetes_is_done_again_and_kept() -> None:
    results = typed(made(3, on="kubernetes"), "-n", "ml", "--env", "A=b")
    found = only(changed(results, complete=False, exit_code=70, reason="node-2 was lost"))
    assert found.fix == "torchnet bench -n ml --env A=b --keep"


def test_nothing_asks_for_a_pod_that_is_gone() -> None:
    results = made(2, on="kubernetes")
    rows = [
        row.model_copy(update={"wrong": 1, "interface_bytes": {"net1": 1 << 40}})
        for row in results.collectives
    ]
    found = find(changed(results, collectives=tuple(rows)))
    assert [one.kind for one in found] == ["wrong-results", "bytes"]
    for one in found:
        assert "on the host of each pod" in one.fix
        assert "net1" not in one.fix


@pytest.mark.parametrize("words", [("--env", "SECRET=…"), ("--env=SECRET=…",)])
def test_a_benchmark_that_is_done_again_has_no_values_that_were_masked_and_keeps_the_files(
    words: tuple[str, ...],
) -> None:
    results = made(2, on="kubernetes", backend="nccl", environment={"NCCL_SOCKET_IFNAME": "net1"})
    rows = [row.model_copy(update={"formula_bytes": row.formula_bytes * 2}) for row in results.collectives]
    files = ("--json", "old.json", "--html=old.html")
    found = only(
        typed(changed(results, collectives=tuple(rows)), *words, "-n", "ml", "--env", "EMPTY=", *files)
    )
    assert found.kind == "bytes"
    assert found.fix == "torchnet bench -n ml --env EMPTY= --env NCCL_DEBUG=INFO"
