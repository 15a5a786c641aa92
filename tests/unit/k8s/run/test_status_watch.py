"""``torchnet status -w``: each change once, from watches; and the runs of all namespaces, or with some labels."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import until
from tests.unit.api_answers import client, kubeconfig
from tests.unit.api_store import Store, forbidden, refusal, storing
from tests.unit.aside import aside, interrupt
from tests.unit.aside import until as then
from tests.unit.kubernetes_objects import NAMESPACE, RUN, ended, job, pod, running, terminated
from torchnet.cli import entry_point, main
from torchnet.constants import STATUS_ANNOTATION
from torchnet.errors import ClusterError, UsageError
from torchnet.k8s.run import status_watch
from torchnet.k8s.run.listing import RunRow, find, table
from torchnet.k8s.run.status_watch import StatusWatch
from torchnet.network.network_status import StatusEntry, render

KINDS = "/apis/jobset.x-k8s.io/v1alpha2$"
OTHER = "other-4d5e6f"
NO_JOBSETS = ("GET", "/jobsets", refusal(404, "NotFound", "the server could not find the requested resource"))

store = pytest.fixture(storing)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(status_watch, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def trains(rank: int, **more: Any) -> dict[str, Any]:
    return pod(rank, phase="Running", prepare=terminated(0), worker=running(), **more)


def moved(body: dict[str, Any], namespace: str = NAMESPACE, run: str = RUN, **labels: str) -> dict[str, Any]:
    """The object of another run."""
    made: dict[str, Any] = json.loads(json.dumps(body).replace(RUN, run))
    made["metadata"]["namespace"] = namespace
    made["metadata"]["labels"] |= labels
    if body["kind"] == "Pod":
        made["metadata"]["uid"] = f"{namespace}-{run}-{body['metadata']['uid']}"
        made["metadata"]["ownerReferences"] = [{"kind": "Job", "name": run, "controller": True}]
    return made


def put(store: Store, namespace: str = NAMESPACE, run: str = RUN, **labels: str) -> None:
    """A run of two workers, both training, whose Job alone has the further labels."""
    store.put(moved(job(2), namespace, run, **labels))
    for rank in range(2):
        store.put(moved(trains(rank), namespace, run))


def end(store: Store, namespace: str = NAMESPACE, run: str = RUN) -> None:
    for rank in range(2):
        store.put(moved(ended(rank, 3), namespace, run))


def shown(rows: list[RunRow]) -> list[tuple[str, str, str]]:
    return sorted((row.namespace, row.run, row.state) for row in rows)


class Watched:
    """A watch on the store, and the rows that it has given, by call."""

    def __init__(
        self, store: Store, folder: Path, namespace: str = NAMESPACE, run: str | None = None, labels: str = ""
    ) -> None:
        self.client = client(store, folder)
        self.watch = StatusWatch(self.client, namespace, run, labels)
        self.rows: list[list[RunRow]] = []
        self.remark = ""
        self.watch.start()

    def next(self) -> list[RunRow]:
        """The next rows that have changed."""
        until(self._taken, "a change")
        return self.rows[-1]

    def quiet(self, seconds: float = 0.5) -> bool:
        """Whether nothing changes for a while."""
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            if self._taken():
                return False
            time.sleep(0.02)
        return True

    def _taken(self) -> bool:
        found = self.watch.take()
        if found is not None:
            self.rows.append(found.rows)
            self.remark = found.remark
        return found is not None

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop.set()


def test_all_rows_first_then_each_that_changes(store: Store, tmp_path: Path) -> None:
    put(store)
    put(store, run=OTHER)
    with Watched(store, tmp_path) as seen:
        assert shown(seen.next()) == [(NAMESPACE, OTHER, "running"), (NAMESPACE, RUN, "running")]
        assert seen.quiet()
        store.put(moved(ended(0, 3)))
        assert shown(seen.next()) == [(NAMESPACE, RUN, "failing")]
        store.put(moved(ended(1, 3)))
        (row,) = seen.next()
        assert (row.run, row.state, row.exit_code) == (RUN, "failed", 3)
        for path in [path for path in store.objects if RUN in path]:
            store.delete(path)
        rows = seen.next()
        while rows[-1].state != status_watch.DELETED:
            rows = seen.next()
        assert shown(rows) == [(NAMESPACE, RUN, "deleted")]
        put(store, run="new")
        while ("new", "running") not in [(row.run, row.state) for row in rows]:
            rows = seen.next()
    assert all(row.run != OTHER for rows in seen.rows[1:] for row in rows), "it did not change"


def test_changes_come_by_watches_not_by_lists(store: Store, tmp_path: Path) -> None:
    put(store)
    with Watched(store, tmp_path) as seen:
        seen.next()
        before = len(store.asked)
        end(store)
        seen.next()
        lists = [path for _, _, path, _ in store.asked[before:] if "watch=true" not in path]
    assert lists == []


def test_none_at_first_is_a_table_too(store: Store, tmp_path: Path) -> None:
    with Watched(store, tmp_path) as seen:
        assert seen.next() == []
        assert seen.quiet(0.3)
        put(store)
        assert {row.run for row in seen.next()} == {RUN}


def test_one_run_with_its_workers(store: Store, tmp_path: Path) -> None:
    put(store)
    put(store, run=OTHER)
    with Watched(store, tmp_path, run=RUN) as seen:
        (row,) = seen.next()
        assert [one["state"] for one in row.workers] == ["running", "running"]
        end(store, run=OTHER)
        assert seen.quiet()
        store.put(moved(ended(1, 3)))
        (row,) = seen.next()
        assert [one["exit_code"] for one in row.workers] == [None, 3]
    with (
        Watched(store, tmp_path, run="nosuch") as seen,
        pytest.raises(UsageError, match="run nosuch not found"),
    ):
        seen.next()


def test_runs_of_one_name_in_two_namespaces_are_two(store: Store, tmp_path: Path) -> None:
    put(store)
    put(store, namespace="vision")
    end(store, namespace="vision")
    one = client(store, tmp_path)
    assert shown(table(one, "").rows) == [(NAMESPACE, RUN, "running"), ("vision", RUN, "failed")]
    assert shown(table(one, NAMESPACE).rows) == [(NAMESPACE, RUN, "running")]
    assert find(one, NAMESPACE, None).namespace == NAMESPACE
    with Watched(store, tmp_path, namespace="") as seen:
        assert shown(seen.next()) == [(NAMESPACE, RUN, "running"), ("vision", RUN, "failed")]
        end(store)
        rows = seen.next()
        while rows[-1].state != "failed":
            rows = seen.next()
        assert shown(rows) == [(NAMESPACE, RUN, "failed")]


@pytest.mark.parametrize(
    ("labels", "runs"), [("team=a", [RUN]), ("!team", [OTHER]), ("team!=b", [OTHER, RUN])]
)
def test_labels_are_those_of_the_workload(store: Store, tmp_path: Path, labels: str, runs: list[str]) -> None:
    """Its pods count also where they lack them."""
    put(store, team="a")
    put(store, run=OTHER)
    expected = [(NAMESPACE, run, "running") for run in runs]
    assert shown(table(client(store, tmp_path), NAMESPACE, labels=labels).rows) == expected
    with Watched(store, tmp_path, labels=labels) as seen:
        assert shown(seen.next()) == expected


def test_what_is_no_selector_is_wrong_usage(store: Store, tmp_path: Path) -> None:
    """Only the API server knows; it says so of each kind."""
    store.faults = [
        NO_JOBSETS,
        ("GET", "labelSelector", refusal(400, "BadRequest", "unable to parse requirement")),
    ]
    with pytest.raises(UsageError, match="unable to parse requirement") as caught:
        table(client(store, tmp_path), NAMESPACE, labels="=x")
    assert '-l "=x"' in caught.value.text
    with Watched(store, tmp_path, labels="=x") as seen, pytest.raises(UsageError, match="-l"):
        seen.next()


def test_a_cluster_without_jobsets_and_one_that_hides_them(store: Store, tmp_path: Path) -> None:
    put(store)
    store.faults = [NO_JOBSETS]
    with Watched(store, tmp_path) as seen:
        assert (shown(seen.next()), seen.remark) == ([(NAMESPACE, RUN, "running")], "")
    store.faults = [("GET", "/jobsets", forbidden("jobsets")), ("GET", KINDS, (200, {}, {}))]
    with Watched(store, tmp_path) as seen:
        seen.next()
        assert "JobSets cannot be read" in seen.remark


def test_a_right_that_is_taken_away_is_an_error_not_a_deletion(store: Store, tmp_path: Path) -> None:
    for kind in ("jobsets", "jobs", "pods"):
        store.objects.clear()
        store.faults = []
        put(store)
        with Watched(store, tmp_path) as seen:
            seen.next()
            store.faults = [("GET", f"/{kind}", forbidden(kind))]
            with pytest.raises(ClusterError, match=f"watch {kind}"):
                seen.next()


def test_a_jobset_whose_readability_cannot_be_found_out(store: Store, tmp_path: Path) -> None:
    """The question itself may fail; nothing waits for ever then."""
    store.faults = [("GET", "/jobsets", forbidden("jobsets")), ("GET", KINDS, (200, {}, b"<html>"))]
    with Watched(store, tmp_path) as seen, pytest.raises(ClusterError, match="not a JSON object"):
        seen.next()


# -- the command


def command(store: Store, folder: Path, *words: str) -> int:
    return main(["status", *words, "--kubeconfig", str(kubeconfig(folder / "config", store.address))])


def test_names_and_yaml(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(store)
    put(store, run=OTHER, namespace="vision")
    assert command(store, tmp_path, "-A", "-o", "name") == 0
    assert sorted(capsys.readouterr().out.split()) == [OTHER, RUN]
    assert command(store, tmp_path, RUN, "-n", NAMESPACE, "--output", "yaml") == 0
    import yaml

    (body,) = yaml.safe_load_all(capsys.readouterr().out)
    assert (body["run"], body["ready"], body["workers"][1]["worker"]) == (RUN, 2, f"{RUN}-1")
    assert command(store, tmp_path, "-n", "empty", "-o", "name") == 0
    assert command(store, tmp_path, "-n", "empty", "-o", "yaml") == 0
    assert capsys.readouterr().out == ""


def test_wide_has_nodes_images_and_addresses(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(store)
    body = job(2)
    body["spec"] = {"template": {"spec": {"containers": [{"name": "worker", "image": "r.example/torch:2"}]}}}
    store.put(body)
    body = trains(0, podIP="10.244.1.7")
    entries = (StatusEntry("cilium", "eth0", ("10.244.1.7",)), StatusEntry("ml/net", "net1", ("fcbb::7",)))
    body["metadata"]["annotations"] = {STATUS_ANNOTATION: render(entries)}
    store.put(body)
    broken = trains(1)
    broken["metadata"]["annotations"] = {STATUS_ANNOTATION: "{"}
    store.put(broken)
    assert command(store, tmp_path, RUN, "-n", NAMESPACE, "-o", "wide") == 0
    out = capsys.readouterr().out
    head, run, _, workers, first, second = out.splitlines()
    assert head.split() == ["RUN", "KIND", "READY", "STATE", "AGE", "EXIT", "CODE", "NODES", "IMAGE"]
    assert run.endswith("node1  r.example/torch:2")
    assert workers.split()[-2:] == ["IP", "BACKEND"]
    assert first.endswith("10.244.1.7  net1 fcbb::7")
    assert second.endswith("running")
    assert command(store, tmp_path, RUN, "-n", NAMESPACE) == 0
    assert "r.example" not in capsys.readouterr().out
    assert command(store, tmp_path, RUN, "-n", NAMESPACE, "-o", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["nodes"], row["image"]) == (["node1"], "r.example/torch:2")
    assert [one["backend"] for one in row["workers"]] == [{"net1": "fcbb::7"}, {}]


@pytest.mark.parametrize(
    ("spec", "image"),
    [
        ({"containers": [{"name": "worker", "image": "a:1"}]}, "a:1"),
        ({"template": {"spec": {"containers": [{"name": "side", "image": "b:1"}]}}}, ""),
        (
            {
                "replicatedJobs": [
                    {
                        "template": {
                            "spec": {
                                "template": {"spec": {"containers": [{"name": "worker", "image": "c:1"}]}}
                            }
                        }
                    }
                ]
            },
            "c:1",
        ),
        ({"replicatedJobs": []}, ""),
        ({"containers": "x"}, ""),
    ],
    ids=str,
)
def test_the_image_of_each_kind(store: Store, tmp_path: Path, spec: dict[str, Any], image: str) -> None:
    put(store)
    body = copy.deepcopy(job(2))
    body["spec"] = spec
    store.put(body)
    (row,) = table(client(store, tmp_path), NAMESPACE).rows
    assert row.image == image


def test_all_namespaces_have_a_column(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(store)
    put(store, namespace="vision")
    assert command(store, tmp_path, "-A") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["NAMESPACE", "RUN"]
    assert sorted(row.split()[:2] for row in rows) == [[NAMESPACE, RUN], ["vision", RUN]]


class Printed:
    """What the command prints, also while it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._parts: list[str] = []
        monkeypatch.setattr(entry_point, "emit", self._parts.append)

    @property
    def text(self) -> str:
        return "".join(self._parts)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Printed:
    return Printed(monkeypatch)


def watched(store: Store, folder: Path, printed: Printed, *words: str) -> str:
    """What ``status -w`` prints of a run that is there, fails, and is deleted, until Ctrl-C."""
    put(store)

    def remove() -> None:
        for path in list(store.objects):
            store.delete(path)

    steps = (
        *(lambda: then(lambda: "running" in printed.text), lambda: end(store)),
        *(lambda: then(lambda: "failed" in printed.text), remove),
        *(lambda: then(lambda: "deleted" in printed.text), interrupt),
    )
    with aside(*steps):
        assert command(store, folder, "-n", NAMESPACE, "-w", *words) == 130
    return printed.text


def test_the_table_grows_with_each_change(store: Store, tmp_path: Path, printed: Printed) -> None:
    head, first, *others = watched(store, tmp_path, printed).splitlines()
    assert head.startswith("RUN ")
    assert first.split()[:4] == [RUN, "Job", "2/2", "running"]
    assert others[-1].split()[3] == "deleted"
    assert all(line.startswith(RUN) for line in others), "the headings are printed once"
    place = head.index("STATE")
    assert {line[place - 1 : place + 4] for line in (first, *others)} <= {" runn", " fail", " dele"}


def test_json_is_one_line_for_each_change(store: Store, tmp_path: Path, printed: Printed) -> None:
    rows = [json.loads(line) for line in watched(store, tmp_path, printed, "-o", "json").splitlines()]
    assert {row["run"] for row in rows} == {RUN}
    assert (rows[0]["state"], rows[-1]["state"]) == ("running", "deleted")
    assert "failed" in [row["state"] for row in rows]


def test_of_a_runs_workers_those_that_change(store: Store, tmp_path: Path, printed: Printed) -> None:
    put(store)
    steps = (
        *(lambda: then(lambda: "WORKER" in printed.text), lambda: store.put(moved(ended(1, 3)))),
        *(lambda: then(lambda: "failing" in printed.text), interrupt),
    )
    with aside(*steps):
        assert command(store, tmp_path, RUN, "-n", NAMESPACE, "-w") == 130
    first, _, rest = printed.text.partition("\n\n")
    assert len(first.splitlines()) == 2
    lines = rest.splitlines()
    assert lines[0].startswith("WORKER")
    assert [line.split()[0] for line in lines[1:]] == [f"{RUN}-0", f"{RUN}-1", RUN, f"{RUN}-1"]
