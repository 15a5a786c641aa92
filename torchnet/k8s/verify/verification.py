"""``torchnet verify``: whether a cluster has a backend network that carries full-size packets between its nodes.

Checks what is installed, then tests it with two pods, or with one on each node. They are deleted in every case.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torchnet.constants import RUN_LABEL
from torchnet.errors import ClusterError, NetworkError
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.kinds import NODE
from torchnet.k8s.run.creation import check_pod as check_by_dry_run
from torchnet.k8s.run.creation import create
from torchnet.k8s.run.deletion import remove
from torchnet.k8s.verify.all_nodes import AllNodes
from torchnet.k8s.verify.check import Check, unknown
from torchnet.k8s.verify.cluster_report import ClusterReport
from torchnet.k8s.verify.installation import Installation
from torchnet.k8s.verify.live_pods import ANSWER_SECONDS, START_SECONDS, LivePods, Stopped
from torchnet.k8s.verify.paths import Path
from torchnet.k8s.verify.pod_report import PathResult, PodReport, address_of, check_pod, node_of, read_report
from torchnet.k8s.verify.pods import PodOptions, apart, plan, pod, scripts
from torchnet.text import listed

Object = dict[str, Any]
CLEANED = "cleaned up"
_REMOVAL_SECONDS = 40.0


def verify(
    client: ApiClient,
    namespace: str,
    options: PodOptions,
    alive: Callable[[], bool],
    *,
    all_nodes: bool = False,
    cluster_report: ClusterReport | None = None,
    on_start: Callable[[str], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Check]:
    """Yield the checks in order, each as soon as it is done; the test pods run only if no other check failed.

    With ``all_nodes``, a failed check that concerns single nodes alone only leaves these nodes without a test pod.

    Args:
        options: What the test pods are like; each network has its namespace.
        alive: Once it returns False, no more objects are created, and those that exist are deleted.
        all_nodes: Test with a pod on each node, instead of with two pods.
        cluster_report: Receives the results of nodes and paths.
        on_start: Called with the value of the objects' run label before the first object is created.
        progress: Receives a line while something takes its time.

    Raises:
        UsageError: Kueue would put the pods into a queue that was not asked for.
        ClusterError: The cluster cannot be reached, or does not allow this user to create what is needed, or with
            ``all_nodes`` to list the nodes. The text also names the objects that could not be deleted.
    """
    cluster_report = ClusterReport() if cluster_report is None else cluster_report
    cluster_report.networks = options.networks
    installation = Installation(client, options)
    good = True
    for check in installation.checks():
        good = good and (check.good or (all_nodes and check in installation.faulty.values()))
        yield check
        if all_nodes and installation.choice is None:
            raise _no_nodes_error()
    choice = installation.choice
    if choice is not None and all_nodes:
        cluster_report.nodes |= {node: ("unknown", why) for node, why in choice.left_out.items()}
        faulty = {node: f"{check.name}: {check.evidence}" for node, check in installation.faulty.items()}
        cluster_report.nodes |= {node: ("fail", why) for node, why in faulty.items()}
        good = good and faulty.keys() < set(choice.usable)
    if not good or not alive():
        return
    run = f"verify-{secrets.token_hex(3)}"
    check_by_dry_run(client, pod(run, namespace, 0, options))
    pods = LivePods(client, namespace, alive, multus=installation.multus, progress=progress)
    if all_nodes and choice is not None:
        usable = [node for node in choice.usable if node not in installation.faulty]
        checks = AllNodes(client, run, options, usable, pods, cluster_report).checks()
    else:
        nodes = None if choice is None else choice.usable
        checks = _two_pods(client, run, options, nodes, pods, cluster_report)
    on_start(run)
    if alive():  # a signal before on_start was reported as "no pods were created": keep that true
        yield from _cleaned(client, namespace, run, checks, alive)


def _no_nodes_error() -> ClusterError:
    call = NODE.call("list", "")
    fix = f"without --all-nodes, two pods are tested; {call.question}"
    return ClusterError(f"--all-nodes: not allowed to {call}", fix=fix)


def _cleaned(
    client: ApiClient, namespace: str, run: str, checks: Iterator[Check], alive: Callable[[], bool]
) -> Iterator[Check]:
    """Yield the checks of test pods, and delete all of their objects afterwards."""
    failed: ClusterError | None = None
    try:
        yield from checks
    except Stopped:
        pass
    except NetworkError as error:
        yield Check("test pods", False, error.text, error.fix)
    except ClusterError as error:
        failed = error
    finally:
        left = _removed(client, namespace, run)
    fix = f"torchnet down {run} -n {namespace}"
    if failed is not None and alive():
        if left:
            raise ClusterError(f"{failed.text}\n  {left}", fix=f"{fix}; {failed.fix}" if failed.fix else fix)
        raise failed
    if left:
        yield Check(CLEANED, False, left, fix)


def _removed(client: ApiClient, namespace: str, run: str) -> str:
    """Delete all objects of the test; return what could not be deleted, or ""."""
    other = ApiClient(client.access)  # a new client: the stop event of ``client`` may be set
    try:
        removal = remove(other, namespace, run, patience=_REMOVAL_SECONDS, force=True)
    except ClusterError as error:
        return f"cannot delete the objects with the label {RUN_LABEL}={run}: {error.text}"
    return "; ".join([f"not deleted: {listed(removal.left)}", *removal.problems]) if removal.left else ""


# -- two pods ---------------------------------------------------------------------------------------------------


def _two_pods(
    client: ApiClient,
    run: str,
    options: PodOptions,
    nodes: Sequence[str] | None,
    pods: LivePods,
    cluster_report: ClusterReport,
) -> Iterator[Check]:
    """Test with two pods, on two nodes if there are two.

    Args:
        nodes: The usable nodes; None if this user may not list them.
    """
    affinity = None
    if nodes is None or len(nodes) > 1:
        affinity = apart(run, required=nodes is not None)
    namespace = pods.namespace
    server, asker = f"{run}-0", f"{run}-1"
    create(
        client,
        [scripts(run, namespace), pod(run, namespace, 0, options, affinity=affinity)],
        lambda _: None,
    )
    first = pods.wait(server, "running", START_SECONDS)
    addresses = {one.interface: address_of(first, one) for one in options.networks}
    report = read_report(pods.log(server))
    if report.blocked or not report.interfaces:
        yield from check_pod(first, report, options.networks)
        cluster_report.nodes[node_of(first)] = ("fail", report.blocked or report.problem)
        return
    steps = plan([{"partner": server, "addresses": addresses}], len(addresses), bandwidth=False)
    create(client, [pod(run, namespace, 1, options, affinity=affinity, steps=steps)], lambda _: None)
    limit = START_SECONDS + len(addresses) * ANSWER_SECONDS
    second = pods.wait(asker, "ended", limit)
    results = ((first, report), (second, read_report(pods.result(second))))
    if results[1][1].blocked:
        cluster_report.nodes[node_of(second)] = ("fail", results[1][1].blocked)
    cluster_report.paths += paths_of_two(results, options)
    cluster_report.judge_paths()
    yield from judge_two(results, options, nodes)


Reports = Sequence[tuple[Object, PodReport]]


def judge_two(results: Reports, options: PodOptions, nodes: Sequence[str] | None) -> Iterator[Check]:
    """Yield the checks of two pods.

    Args:
        results: For each pod, the object from the API and what it reported. The second has tested the path to the
            first.
        nodes: The usable nodes; None if they are unknown.

    Raises:
        NetworkError: A pod's network-status is missing, is invalid, or has no address on a rail.
    """
    yield _check_placement([node_of(body) for body, _ in results], nodes)
    for body, report in results:
        yield from check_pod(body, report, options.networks)
    if not any(report.blocked for _, report in results):
        for path in paths_of_two(results, options):
            yield _check_path(path, [report.mtus.get(path.rail) for _, report in results])


def _check_placement(on: Sequence[str], nodes: Sequence[str] | None) -> Check:
    one, other = on
    if one != other:
        return Check("test pods", True, f"on {one} and {other}")
    if nodes is not None and len(nodes) > 1:
        return Check("test pods", False, f"on {one} and {other}", "kubectl get nodes")
    only = ", the only node" if nodes is not None else ""
    evidence = f"both on {one}{only}: the network between nodes is not tested"
    return unknown("test pods", evidence, "kubectl get nodes")


def _check_path(path: Path, mtus: Sequence[int | None]) -> Check:
    title = f"full size, both ways, {path.rail}"
    evidence = f"{path.size} bytes in both directions between {path.one} and {path.other}"
    if not path.works:
        first, second = ("unknown" if mtu is None else str(mtu) for mtu in mtus)
        evidence = f"{path.problem} (MTU {first} and {second})"
    fix = "set the same MTU on every node's network card and on the switches between them"
    return Check(title, path.works, evidence, fix)


def paths_of_two(results: Reports, options: PodOptions) -> list[Path]:
    """Return the path between the two pods on each rail, as the second pod reports it."""
    (first, _), (second, report) = results
    found = {one.rail: one for one in report.results}
    paths = []
    for rail in options.rails:
        missing = PathResult("", rail, None, False, report.problem or report.blocked or "no result")
        result = found.get(rail, missing)
        paths.append(Path(node_of(first), node_of(second), rail, result.size, result.problem))
    return paths
