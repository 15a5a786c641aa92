"""A node is lost under three jobs at once: a Job, and gangs with and without a restart left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.faults import cordoned, in_network, no_kubelet, out_of_service, within
from tests.cluster.launched import Launched, pods, rank_of
from tests.cluster.launcher import Launcher
from tests.cluster.test_faults_workers import WAIT as STAYS
from tests.cluster.test_faults_workers import ready
from tests.cluster.test_gang import gang
from tests.jobs import SLOW, Ended, until


@dataclass(frozen=True)
class Lost:
    """Which node it was, when (monotonic) its kubelet was killed and when it was declared out of service; and how the
    jobs ended, each with rank 1 there.
    """

    node: str
    at: float
    out: float
    jobs: dict[str, Launched]
    ended: dict[str, Ended]


@pytest.fixture(scope="module")
def lost(
    cluster: Cluster, module_namespace: str, jobset: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lost]:
    launcher = Launcher(cluster, module_namespace, tmp_path_factory.mktemp("lost"))
    with contextlib.ExitStack() as stack:
        jobs = {}
        # It must find room on the node that is left: with a soft spread alone it may have both workers on one.
        again = ("--max-infra-restarts", "1", "--spread", "soft", "--grace", "2")
        jobs["gangnode"] = stack.enter_context(gang(launcher, "gangnode", *again))
        ready(jobs["gangnode"])
        where = jobs["gangnode"].where()
        node = where[1]
        assert where[0] != node
        # Of the others, too, rank 1 is to be there: rank 0 is placed while that node takes none.
        hard = ("--spread", "hard")
        with cordoned(cluster, node):
            jobs["lastnode"] = stack.enter_context(gang(launcher, "lastnode", *hard, "--grace", "2"))
            stays = Launched(launcher, "lostnode", STAYS, *hard, arguments=(0,))
            jobs["lostnode"] = stack.enter_context(stays)
            for name in ("lastnode", "lostnode"):
                until(partial(placed, launcher, name), f"the place of rank 0 of {name}", pause=SLOW)
        for name in ("lastnode", "lostnode"):
            ready(jobs[name])
            assert jobs[name].where() == where
        for name in jobs:  # the kubelet tells it a second or two after the scripts
            until(partial(started, launcher, name), f"the API knows that {name} has started", pause=SLOW)
        with no_kubelet(cluster, node) as killed:
            # Its processes run on, as the machine does; its card is silent.
            in_network(jobs["gangnode"].script_of(1), "ip", "link", "set", "net1", "down")
            ended = {name: jobs[name].finish(180) for name in ("lostnode", "lastnode")}
            jobs["gangnode"].wait_for(f"gangnode-1 on node {node}")
            assert [rank_of(pod) for pod in pods(launcher, "gangnode")] == [0, 1], "nothing is deleted"
            with out_of_service(cluster, node) as out:
                ended["gangnode"] = jobs["gangnode"].finish(180)
        until(lambda: launcher.left() == [], "the lost node's pods are gone", 60, SLOW)
        yield Lost(node, killed, out, jobs, ended)


def started(launcher: Launcher, name: str) -> bool:
    found = [pod["status"].get("containerStatuses", [{}])[0].get("started") for pod in pods(launcher, name)]
    return found == [True, True]


def placed(launcher: Launcher, name: str) -> bool:
    return any(rank_of(pod) == 0 and "nodeName" in pod["spec"] for pod in pods(launcher, name))


def test_the_gang_restarts_on_the_others_once_the_node_is_out_of_service(lost: Lost) -> None:
    """Until then the worker that holds it up is named, once, with the commands."""
    job, done = lost.jobs["gangnode"], lost.ended["gangnode"]
    print(done.stderr)
    named = job.wait_for(f"^torchnet: warning: gangnode-1 on node {lost.node} ")
    within(45, "the worker that holds up the restart is named", lost.at, named)
    assert f"kubectl taint nodes {lost.node} node.kubernetes.io/out-of-service=" in done.stderr
    assert f"torchnet down gangnode -n {job.launcher.namespace}" in done.stderr
    assert done.stderr.count("out-of-service=nodeshutdown") == 1
    again = max(job.wait_for(rf"\[rank {rank}\] ready 1 ", on="stdout") for rank in (0, 1))
    within(60, "the restart", lost.out, again)
    assert done.code == 0, done.stderr
    assert job.receipt()["restarts"] == 1


def test_a_gang_without_a_start_left_ends(lost: Lost) -> None:
    done = lost.ended["lastnode"]
    print(done.stderr)
    within(90, "the end", lost.at, done.at)
    assert done.code == 70, done.stderr
    assert f"lost lastnode-1 (node rank 1 on {lost.node})" in done.stderr


def test_the_job_ends(lost: Lost) -> None:
    """The worker there is named, exit 70."""
    job, done = lost.jobs["lostnode"], lost.ended["lostnode"]
    named = job.wait_for(f"^torchnet: warning: lostnode-1 on {lost.node}: its pod was disrupted")
    within(30, "the lost node is named", lost.at, named)
    within(90, "the job without a node has ended", lost.at, done.at)
    assert done.code == 70, done.stderr
    assert f"lost lostnode-1 (node rank 1 on {lost.node})" in done.stderr
    assert "not deleted" not in done.stderr, "its pod is deleted by force: the node is lost"
