"""Which runs there are, and what is said of those that may not be looked at."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import Result
from tests.unit.api_answers import client, kubeconfig
from tests.unit.api_store import Store, refusal, storing
from tests.unit.kubernetes_objects import LABELS, NAMESPACE, RUN, ended, message, pod, running, terminated
from torchnet.errors import ClusterError, UsageError
from torchnet.k8s.run.listing import find, survey, table
from torchnet.k8s.run.worker_set import rank_of

NO_RIGHTS = refusal(
    403, "Forbidden", 'jobsets.jobset.x-k8s.io is forbidden: User "eve" cannot list resource "jobsets"'
)
KINDS = "/apis/jobset.x-k8s.io/v1alpha2$"
CAN_I = f"kubectl auth can-i list jobsets.jobset.x-k8s.io -n {NAMESPACE}"

SPEC = {"nnodes": 2, "nproc_per_node": 1, "network": "multus-status"}

store = pytest.fixture(storing)


def made_by(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(body)
    made["metadata"]["ownerReferences"] = [{"kind": kind, "name": RUN, "controller": True}]
    return made


def workload(kind: str = "Job", api: str = "batch/v1", name: str = RUN) -> dict[str, Any]:
    meta = {
        "name": name,
        "namespace": NAMESPACE,
        "labels": dict(LABELS),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"torchnet.alt/spec": json.dumps(SPEC)},
    }
    return {"apiVersion": api, "kind": kind, "metadata": meta, "spec": {}, "status": {}}


@pytest.fixture
def jobset(store: Store) -> None:
    """A JobSet's run, as it looks to somebody without rights on JobSets."""
    store.faults = [("GET", "/jobsets", NO_RIGHTS), ("GET", KINDS, (200, {}, {"kind": "APIResourceList"}))]
    store.put(made_by("JobSet", workload(name=f"{RUN}-workers-0")))
    store.put(made_by("Job", pod(0, worker=running(), phase="Running") | {"kind": "Pod", "apiVersion": "v1"}))


@pytest.mark.usefixtures("jobset")
def test_a_jobset_that_may_not_be_looked_at_is_no_missing_run(store: Store, tmp_path: Path) -> None:
    one = client(store, tmp_path)
    for run in (None, RUN):
        found = table(one, NAMESPACE, run)
        (row,) = found.rows
        assert (row.run, row.workload, row.total, row.state) == (RUN, "JobSet", 1, "unknown")
        assert row.reason == "its JobSet cannot be read"
        assert "JobSets cannot be read: not allowed to list jobsets" in found.remark
        assert CAN_I in found.remark
        with pytest.raises(ClusterError, match="JobSet") as caught:
            find(one, NAMESPACE, run)
        assert caught.value.fix == CAN_I
    assert survey(one, NAMESPACE).only_run() == RUN


@pytest.mark.usefixtures("jobset")
def test_nothing_found_is_not_called_nothing_there(store: Store, tmp_path: Path) -> None:
    store.objects.clear()
    one = client(store, tmp_path)
    assert table(one, NAMESPACE).rows == []
    assert "JobSets cannot be read" in table(one, NAMESPACE).remark
    for run in (None, RUN):
        with pytest.raises(UsageError, match="JobSets cannot be read") as caught:
            find(one, NAMESPACE, run)
        assert caught.value.fix == CAN_I


@pytest.mark.usefixtures("jobset")
def test_status_says_so(store: Store, tmp_path: Path, torchnet: Callable[..., Result]) -> None:
    env = {"KUBECONFIG": str(kubeconfig(tmp_path / "config", store.address)), "COLUMNS": "100"}
    shown = torchnet("status", "-n", NAMESPACE, env=env)
    assert (shown.code, "its JobSet cannot be read" in shown.stdout) == (0, True), shown.stderr
    assert "torchnet: warning: JobSets cannot be read" in shown.stderr
    store.objects.clear()
    shown = torchnet("status", "-n", NAMESPACE, env=env)
    assert shown.stdout == "no readable runs found\n"
    shown = torchnet("status", "-n", NAMESPACE, "-o", "json", env=env)
    assert json.loads(shown.stdout) == []
    assert CAN_I in shown.stderr


@pytest.mark.parametrize("kinds", [refusal(404, "NotFound", "no such kind")])
def test_a_cluster_without_jobsets_needs_no_remark(store: Store, tmp_path: Path, kinds: Any) -> None:
    """Whoever has no rights gets 403 there, too."""
    store.faults = [("GET", "/jobsets", NO_RIGHTS), ("GET", KINDS, kinds)]
    store.put(workload())
    found = table(client(store, tmp_path), NAMESPACE)
    assert ([row.workload for row in found.rows], found.remark) == (["Job"], "")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "[" * 9, '{"nnodes": 1e999, "nproc_per_node": 1, "network": "static"}'),
        *(json.dumps(SPEC | {name: 0}) for name in SPEC),
        json.dumps(SPEC | {"network": "no such"}),
    ],
)
def test_a_run_whose_size_cannot_be_read_hides_no_other(store: Store, tmp_path: Path, text: str) -> None:
    damaged = workload(name="damaged")
    damaged["metadata"]["labels"] = LABELS | {"torchnet.alt/run": "damaged"}
    damaged["metadata"]["annotations"] = {"torchnet.alt/spec": text}
    store.put(damaged)
    store.put(workload())
    found = {row.run: row for row in table(client(store, tmp_path), NAMESPACE).rows}
    assert (found["damaged"].state, found[RUN].total) == ("unknown", 2)
    assert "invalid annotation" in found["damaged"].reason


def test_jobs_or_pods_that_may_not_be_listed_are_an_error(store: Store, tmp_path: Path) -> None:
    for kind in ("jobs", "pods"):
        said = f'{kind} is forbidden: User "eve" cannot list resource "{kind}"'
        store.faults = [("GET", f"/{kind}", refusal(403, "Forbidden", said))]
        with pytest.raises(ClusterError, match=f"not allowed to list {kind}"):
            survey(client(store, tmp_path), NAMESPACE)


def old(body: dict[str, Any]) -> dict[str, Any]:
    """The same object as version 0.1 has labelled it."""
    found: dict[str, Any] = json.loads(json.dumps(body).replace("torchnet.alt/", "torchnet/"))
    return found


@pytest.mark.parametrize("run", [None, RUN])
def test_a_run_of_version_0_1_is_found_by_its_label(store: Store, tmp_path: Path, run: str | None) -> None:
    store.put(old(workload()))
    store.put(old(pod(0, phase="Running", prepare=terminated(0), worker=running())))
    one = client(store, tmp_path)
    (row,) = table(one, NAMESPACE, run).rows
    assert (row.run, row.workload, row.total, row.ready) == (RUN, "Job", 2, 1)
    info = find(one, NAMESPACE, run)
    assert (info.run, info.nnodes, info.selector) == (RUN, 2, f"torchnet/run={RUN}")


def test_runs_of_both_versions_are_listed_side_by_side(store: Store, tmp_path: Path) -> None:
    store.put(workload())
    other = json.loads(json.dumps(old(workload())).replace(RUN, "other"))
    store.put(other)
    found = survey(client(store, tmp_path), NAMESPACE)
    assert found.names == ["other", RUN]
    assert [find(client(store, tmp_path), NAMESPACE, name).label for name in found.names] == [
        *("torchnet/run", "torchnet.alt/run"),
    ]


def asked(store: Store) -> list[dict[str, str]]:
    """The queries of all lists, in order."""
    found = [parse_qs(urlsplit(path).query) for _, _, path, _ in store.asked if "abelSelector" in path]
    return [{key: values[0] for key, values in one.items()} for one in found]


def test_status_asks_once_for_each_kind_and_takes_it_from_the_cache(store: Store, tmp_path: Path) -> None:
    store.put(workload())
    table(client(store, tmp_path), NAMESPACE)
    assert len(asked(store)) == 3
    assert {one["resourceVersion"] for one in asked(store)} == {"0"}
    assert {one["labelSelector"] for one in asked(store)} == {"app.kubernetes.io/managed-by=torchnet"}


def test_what_the_cache_does_not_have_yet_is_not_denied(store: Store, tmp_path: Path) -> None:
    store.put(workload())
    store.faults = [("GET", "resourceVersion=0", (200, {}, {"items": []}))]
    (row,) = table(client(store, tmp_path), NAMESPACE, RUN).rows
    assert row.run == RUN


def test_a_command_for_one_run_does_not_read_its_thousand_pods(store: Store, tmp_path: Path) -> None:
    store.put(workload())
    for rank in range(20):
        body = pod(rank)
        body["metadata"]["labels"]["batch.kubernetes.io/job-name"] = RUN
        store.put(body)
    assert find(client(store, tmp_path), NAMESPACE, RUN).nnodes == 2
    pods = next(one for one in asked(store) if "job-name" in one["labelSelector"])
    assert pods["labelSelector"] == f"torchnet.alt/run={RUN},!batch.kubernetes.io/job-name"
    accepts = {headers["Accept"].partition(";g=")[0] for _, _, path, headers in store.asked if "?" in path}
    assert accepts == {"application/json;as=PartialObjectMetadataList"}


def test_objects_of_torchnet_that_belong_to_no_run_are_none(store: Store, tmp_path: Path) -> None:
    other = workload(name="other")
    del other["metadata"]["labels"]["torchnet.alt/run"]
    store.put(other)
    assert table(client(store, tmp_path), NAMESPACE).rows == []


def test_a_plain_pod_of_version_0_1_has_its_rank() -> None:
    labels = {"torchnet/run": RUN, "torchnet/node-rank": "3"}
    assert rank_of({"metadata": {"labels": labels}}) == 3
    assert rank_of({"metadata": {"labels": {"torchnet.alt/node-rank": "2"}}}) == 2
    assert rank_of({"metadata": {"labels": {"torchnet.alt/run": RUN}}}) is None


WORKLOADS = r"/workloads(\?|$)"


def kueues(store: Store, status: dict[str, Any], uid: str = "job-uid") -> None:
    """Kueue's API with the Workload of the Job of this UID."""
    meta = {"name": "job-x", "namespace": NAMESPACE, "labels": {"kueue.x-k8s.io/job-uid": uid}}
    one = {"metadata": meta, "status": status}
    store.faults = [
        ("GET", "/apis/kueue.x-k8s.io$", (200, {}, {"preferredVersion": {"version": "v1beta2"}})),
        ("GET", WORKLOADS, (200, {}, {"items": [one]})),
    ]


def queued(store: Store, *, suspended: bool) -> None:
    body = workload()
    body["metadata"] |= {"uid": "job-uid"}
    body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "team-a"
    body["spec"] = {"suspend": suspended}
    store.put(body)


def test_a_queued_runs_state_and_attempt_are_kueues(
    store: Store, tmp_path: Path, torchnet: Callable[..., Result]
) -> None:
    pending = {
        "type": "QuotaReserved",
        "status": "False",
        "reason": "Pending",
        "message": "1 more cpu needed",
    }
    stats = {"evictions": [{"reason": "Preempted", "underlyingCause": "", "count": 1}]}
    queued(store, suspended=True)
    kueues(store, {"conditions": [pending]})
    (row,) = table(client(store, tmp_path), NAMESPACE).rows
    assert (row.state, row.attempt) == ("queued", 1)
    kueues(store, {"conditions": [pending], "schedulingStats": stats})
    (row,) = table(client(store, tmp_path), NAMESPACE).rows
    assert (row.state, row.attempt) == ("preempted", 2)
    assert row.reason == "Kueue: not QuotaReserved (Pending): 1 more cpu needed"
    env = {"KUBECONFIG": str(kubeconfig(tmp_path / "config", store.address)), "COLUMNS": "160"}
    shown = torchnet("status", "-n", NAMESPACE, env=env)
    assert "preempted (attempt 2): Kueue: not QuotaReserved" in shown.stdout


def test_few_queued_runs_read_their_own_workloads_alone(store: Store, tmp_path: Path) -> None:
    """A list has everybody's pod templates, in every namespace with -A. Plain pods need none."""
    queued(store, suspended=True)
    stats = {"evictions": [{"reason": "Preempted", "underlyingCause": "", "count": 1}]}
    kueues(store, {"schedulingStats": stats})
    group = pod(0)
    group["metadata"]["labels"] |= {"kueue.x-k8s.io/queue-name": "team-a", "torchnet.alt/run": "plain"}
    group["metadata"] |= {"name": "plain-0", "annotations": workload()["metadata"]["annotations"]}
    store.put(group)
    for namespace in (NAMESPACE, ""):
        rows = {row.run: row.attempt for row in table(client(store, tmp_path), namespace).rows}
        assert rows == {RUN: 2, "plain": 1}
    asked = {path for _, _, path, _ in store.asked if "/workloads" in path}
    place = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/workloads"
    assert asked == {f"{place}?labelSelector=kueue.x-k8s.io%2Fjob-uid%3Djob-uid"}


def test_the_workloads_of_many_runs_are_listed_in_pages(store: Store, tmp_path: Path) -> None:
    for number in range(9):
        body = workload(name=f"run-{number}")
        body["metadata"] |= {"uid": str(number)}
        body["metadata"]["labels"] |= {"torchnet.alt/run": f"run-{number}"}
        body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "team-a"
        store.put(body)
    kueues(store, {})
    stats = {"evictions": [{"reason": "Preempted", "underlyingCause": "", "count": 1}]}
    meta = {"name": "last", "namespace": NAMESPACE, "labels": {"kueue.x-k8s.io/job-uid": "8"}}
    last = {"metadata": meta, "status": {"schedulingStats": stats}}
    store.faults[1:] = [
        ("GET", r"/workloads\?.*continue=more", (200, {}, {"items": [last]})),
        ("GET", r"/workloads\?limit=500$", (200, {}, {"items": [], "metadata": {"continue": "more"}})),
    ]
    rows = {row.run: row.attempt for row in table(client(store, tmp_path), NAMESPACE).rows}
    assert rows == dict.fromkeys([f"run-{number}" for number in range(8)]) | {"run-8": 2}
    assert store.wanted("GET", "/workloads") == 2


def test_without_rights_on_kueues_workloads_the_attempt_is_unknown(store: Store, tmp_path: Path) -> None:
    queued(store, suspended=True)
    kueues(store, {})
    store.faults[1] = ("GET", WORKLOADS, refusal(403, "Forbidden", "workloads is forbidden: User cannot"))
    (row,) = table(client(store, tmp_path), NAMESPACE).rows
    assert (row.state, row.attempt) == ("queued", None)


def test_a_run_without_a_queue_asks_for_no_workloads(store: Store, tmp_path: Path) -> None:
    store.put(workload())
    (row,) = table(client(store, tmp_path), NAMESPACE).rows
    assert row.attempt == 1
    assert not store.wanted("GET", "kueue")


def test_workers_that_were_stopped_before_the_start_of_a_run_that_has_ended_are_shown(
    store: Store, tmp_path: Path
) -> None:
    body = workload()
    body["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}
    store.put(body)
    for rank in range(2):
        store.put(ended(rank, 75, message(rank, 75, started=False)))
    (row,) = table(client(store, tmp_path), NAMESPACE).rows
    assert row.state == "failed"
    assert "no longer exist" not in row.reason
