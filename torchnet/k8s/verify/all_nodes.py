"""``torchnet verify --all-nodes``: one pod on each node, and a schedule of pairs that connects all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from torchnet.constants import RUN_LABEL
from torchnet.errors import NetworkError, TorchnetError
from torchnet.k8s.client.api_client import MERGE_PATCH, ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.k8s.client.kinds import POD, selector
from torchnet.k8s.client.parallel import parallel
from torchnet.k8s.client.pod_watch import PodWatch
from torchnet.k8s.run.creation import create
from torchnet.k8s.run.event_texts import latest_event_texts
from torchnet.k8s.run.worker_set import worker
from torchnet.k8s.verify.check import Check, Result, unknown
from torchnet.k8s.verify.cluster_report import ClusterReport
from torchnet.k8s.verify.live_pods import START_SECONDS, LivePods
from torchnet.k8s.verify.paths import Path, check_paths
from torchnet.k8s.verify.pod_events import PodEvents
from torchnet.k8s.verify.pod_report import PodReport, address_of, check_pod, read_report
from torchnet.k8s.verify.pod_start import (
    find_rejected_token,
    has_clock_stopped,
    not_started_error,
    rejected_token_error,
)
from torchnet.k8s.verify.pods import (
    SKEW_SECONDS,
    STEP_SECONDS,
    PodOptions,
    on_node,
    plan,
    plan_annotation,
    pod,
    scripts,
)
from torchnet.k8s.verify.schedule import partners, rounds
from torchnet.units import counted

Object = dict[str, Any]
LOOK_SECONDS = 10.0  # between two looks at the Events of the pods that have not started
_LATE_SECONDS = 30.0  # for the end of a pod after its plan


class AllNodes:
    """The test pods on all nodes, one for each.

    Args:
        nodes: Names of the nodes.
        pods: Waits for single pods and reads their logs.
        cluster_report: Receives the results of nodes and paths.
    """

    def __init__(
        self,
        client: ApiClient,
        run: str,
        options: PodOptions,
        nodes: Sequence[str],
        pods: LivePods,
        cluster_report: ClusterReport,
    ) -> None:
        self._client, self._run, self._options = client, run, options
        self._nodes = {f"{run}-{index}": node for index, node in enumerate(nodes)}
        self._pods, self._cluster_report = pods, cluster_report
        self._failed: dict[str, Check] = {}  # by pod, why it takes no part

    def checks(self) -> Iterator[Check]:
        """Create the pods, let them test the paths, and yield the checks.

        Raises:
            ClusterError: The API server cannot be reached, or refuses a request.
            Stopped: The caller no longer waits.
        """
        create(self._client, [scripts(self._run, self._pods.namespace)], lambda _: None)
        parallel(self._create, range(len(self._nodes)))
        namespace = self._pods.namespace
        with PodWatch(self._client, namespace, selector(self._run)) as states:
            with PodEvents(self._client, namespace, f"{self._run}-") as events:
                self._wait_for_start(states, events)
            addresses = self._addresses(states)
            yield from self._check_started(len(addresses))
            yield from self._failed.values()
            if len(addresses) < 2:
                self._judge_nodes([])
                yield unknown("paths", "fewer than two nodes can be paired", "kubectl get pods -o wide")
                return
            shown = set(self._failed)
            names = list(addresses)
            schedule = rounds(len(names))
            self._give_plans(names, addresses, len(schedule))
            self._wait_for_end(states, names, len(schedule))
            bodies = states.bodies()
        for name in names:
            if name not in bodies:
                self._disappear(name)
        there = [name for name in names if name not in self._failed]
        results = parallel(lambda name: read_report(self._pods.result(bodies[name])), there)
        reports = dict(zip(there, results, strict=True))
        paths = [
            path
            for pairs in schedule
            for one, other in pairs
            if reports.keys() >= {names[one], names[other]}
            for path in self._paths(names[one], names[other], reports[names[one]])
        ]
        yield from (check for name, check in self._failed.items() if name not in shown)
        if not paths:
            yield unknown("paths", "fewer than two nodes can be paired", "kubectl get pods -o wide")
        yield from check_paths(paths)
        self._judge_nodes(paths)

    def _create(self, index: int) -> None:
        self._pods.check_caller()
        node = self._nodes[f"{self._run}-{index}"]
        affinity = on_node(node)
        body = pod(self._run, self._pods.namespace, index, self._options, affinity=affinity, bandwidth=True)
        create(self._client, [body], lambda _: None)

    # -- the start ----------------------------------------------------------------------------------------------

    def _wait_for_start(self, states: PodWatch, events: PodEvents) -> None:
        """Wait until each pod runs or has failed; a pod that has not started in time has failed."""
        looked = time.monotonic()
        until = dict.fromkeys(self._nodes, looked + START_SECONDS)
        texts: dict[str, str] = {}
        shown = 0
        while True:
            bodies, now = states.bodies(), time.monotonic()
            waiting = {
                name: worker(bodies[name])
                for name in self._nodes
                if name not in self._failed
                and name in bodies
                and worker(bodies[name]).stage not in ("running", "ended")
            }
            absent = [name for name in self._nodes if name not in bodies and name not in self._failed]
            if not waiting and not absent:
                return
            if waiting and now > looked + LOOK_SECONDS:
                looked, stopped = now, 0
                for name, one in waiting.items():
                    own = events.of(one.uid)
                    texts |= latest_event_texts(own, {name: one.uid})
                    if find_rejected_token(own):
                        self._fail(name, rejected_token_error(self._nodes[name], self._pods.multus))
                    elif has_clock_stopped(one, own):
                        until[name] = now + START_SECONDS
                        stopped += 1
                if stopped and stopped != shown:
                    self._pods.progress(f"{counted(stopped, 'pod')} waiting for an image or a queue")
                shown = stopped
            for name, limit in until.items():
                if now <= limit or name in self._failed:
                    continue
                if name in absent:
                    self._disappear(name)
                elif name in waiting:
                    one = waiting[name]
                    why = texts.get(name) or one.why or one.stage
                    error = not_started_error(name, "running", START_SECONDS, why, self._pods.namespace)
                    # A full node, or a taint that came meanwhile, says nothing about the network.
                    self._fail(name, error, known=one.stage != "unscheduled")
            self._pods.pause()

    def _addresses(self, states: PodWatch) -> dict[str, dict[str, str]]:
        """Read what each running pod says of itself; return the addresses of those that can test paths, by rail."""
        bodies = states.bodies()
        names = [name for name in self._nodes if name not in self._failed]
        answers = parallel(self._report, names)
        found = {}
        for name, answer in zip(names, answers, strict=True):
            if answer is None or name not in bodies:
                self._disappear(name)
                continue
            if isinstance(answer, NetworkError):
                self._fail(name, answer)
                continue
            try:
                bad = [one for one in check_pod(bodies[name], answer, self._options.networks) if not one.good]
                own = {one.interface: address_of(bodies[name], one) for one in self._options.networks}
            except NetworkError as error:
                self._fail(name, error)
                continue
            if bad:
                self._fail(name, NetworkError(bad[0].evidence, fix=bad[0].fix))
            else:
                found[name] = own
        return found

    def _report(self, name: str) -> PodReport | NetworkError | None:
        """Read what a pod says of itself; None if it does not exist any more."""
        try:
            return read_report(self._pods.log(name))
        except NetworkError as error:
            return error
        except ApiRefusal as error:
            if error.status != 404:
                raise
            return None

    def _fail(self, name: str, error: TorchnetError, *, known: bool = True) -> None:
        node = self._nodes[name]
        self._failed[name] = Check(f"node {node}", not known, error.text, error.fix, known)

    def _disappear(self, name: str) -> None:
        """Note that a pod was deleted, with its node or for another pod: that says nothing about the network."""
        self._fail(name, NetworkError(f"{name} does not exist any more"), known=False)

    def _check_started(self, count: int) -> Iterator[Check]:
        evidence = f"usable on {count} of {counted(len(self._nodes), 'node')}"
        if count == 0:
            yield Check("test pods", False, evidence, f"kubectl get pods -l {RUN_LABEL}={self._run}")
        else:
            yield Check("test pods", True, evidence)

    # -- the paths ----------------------------------------------------------------------------------------------

    def _give_plans(self, names: list[str], addresses: dict[str, dict[str, str]], count: int) -> None:
        """Give each pod its plan: the pod with the lower number asks."""
        steps: dict[str, list[Object]] = {name: [] for name in names}
        for pairs in rounds(len(names)):
            for one, other in pairs:
                asks, serves = names[one], names[other]
                steps[asks].append({"partner": serves, "addresses": addresses[serves]})
                steps[serves].append({"partner": asks})
        each = f"each with {partners(len(names))} or more others" if len(names) > 2 else "one pair"
        self._pods.progress(f"testing {len(names)} nodes in {counted(count, 'round')}, {each}")
        rails = len(self._options.networks)

        def give(name: str) -> None:
            namespace = self._pods.namespace
            metadata = {"annotations": plan_annotation(plan(steps[name], rails, bandwidth=True))}
            try:
                self._client.call(
                    "PATCH",
                    POD.path(namespace, name),
                    POD.call("patch", namespace, name),
                    query={"fieldManager": "torchnet"},
                    body={"metadata": metadata},
                    content=MERGE_PATCH,
                )
            except ApiRefusal as error:
                if error.status != 404:
                    raise
                self._disappear(name)

        parallel(give, names)

    def _wait_for_end(self, states: PodWatch, names: list[str], count: int) -> None:
        limit = SKEW_SECONDS + count * len(self._options.networks) * STEP_SECONDS + _LATE_SECONDS
        until = time.monotonic() + limit
        while time.monotonic() < until:
            bodies = states.bodies()
            if all(name not in bodies or worker(bodies[name]).stage == "ended" for name in names):
                return
            self._pods.pause()

    def _paths(self, one: str, other: str, report: PodReport) -> Iterator[Path]:
        """Yield the results of a pair, from the report of the pod that asked."""
        found = {result.rail: result for result in report.results if result.partner == other}
        for rail in self._options.rails:
            path = Path(self._nodes[one], self._nodes[other], rail)
            result = found.get(rail)
            if result is None:
                problem = f"no result from {one} on {self._nodes[one]}: {report.problem or 'it did not test the path'}"
                yield Path(path.one, path.other, rail, problem=problem)
                continue
            problem = result.problem
            if not problem and (result.there is None or result.back is None):
                problem = f"no TCP bandwidth: {result.bandwidth_problem or 'not measured'}"
            yield Path(path.one, path.other, rail, result.size, problem, result.there, result.back)

    def _judge_nodes(self, paths: list[Path]) -> None:
        for name, check in self._failed.items():
            self._cluster_report.nodes[self._nodes[name]] = (check.result, check.evidence)
        self._cluster_report.paths += paths
        self._cluster_report.judge_paths()
        for node in self._nodes.values():
            self._cluster_report.nodes.setdefault(node, _NOT_TESTED)


_NOT_TESTED: tuple[Result, str] = ("unknown", "no partner")
