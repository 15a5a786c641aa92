"""``torchnet logs --tail --since -c``: which part of which log is asked for, and printed."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.jobs import until
from tests.unit.api_answers import client, kubeconfig
from tests.unit.api_store import Store, storing
from tests.unit.aside import aside, hearing
from tests.unit.kubernetes_objects import NAMESPACE, RUN, ended, facts, job, message, pod, running, terminated
from torchnet.cli import main
from torchnet.console.console import Console
from torchnet.k8s.run import pod_logs
from torchnet.k8s.run.log_command import LogReading
from torchnet.k8s.run.pod_logs import WHOLE, LogExtent
from torchnet.signals import Signals

store, signals = pytest.fixture(storing), pytest.fixture(hearing)
LINES = 5


def put(store: Store, body: dict[str, Any], rank: int) -> None:
    """A pod with logs of both of its containers."""
    store.put(body)
    name = body["metadata"]["name"]
    for key, text in ((name, f"[{rank}] step"), (f"{name}/prepare", f"torchnet: prepared {rank}")):
        store.logs[key] = "".join(f"2026-01-01T00:00:{at:012.9f}Z {text} {at}\n" for at in range(LINES))


def asked(store: Store) -> list[tuple[int, str, dict[str, str]]]:
    """The rank, the container and the other parameters of each log that was asked for, in order of ranks."""
    found = []
    for _, _, path, _ in store.asked:
        url = urlsplit(path)
        if url.path.endswith("/log"):
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            rank = int(url.path.partition(f"{RUN}-")[2].partition("-")[0])
            found.append((rank, query.pop("container"), query))
    return sorted(found, key=lambda one: one[:2])


class Read:
    """What ``torchnet logs`` prints of the store's run of two."""

    def __init__(self, store: Store, folder: Path, signals: Signals, *ranks: int, nnodes: int = 2) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self._console = Console(self.err, self.out, world_size=nnodes, ranks=ranks, color=False, tty=False)
        self._store, self._folder, self._signals, self._ranks = store, folder, signals, ranks
        self._nnodes = nnodes

    def logs(self, extent: LogExtent = WHOLE, container: str = "", *, follow: bool = False) -> int:
        one = client(self._store, self._folder)
        reading = LogReading(one, facts(self._nnodes), self._console, self._ranks, follow, extent, container)
        return reading.show(self._signals)


@pytest.fixture
def read(store: Store, tmp_path: Path, signals: Signals) -> Read:
    for rank in range(2):
        put(store, ended(rank, 0, message(rank)), rank)
    return Read(store, tmp_path, signals)


def test_the_last_lines_of_each_log(store: Store, read: Read) -> None:
    assert read.logs(LogExtent(tail=2)) == 0
    assert sorted(read.out.getvalue().splitlines()) == [
        f"[rank {rank}] step {at}" for rank in range(2) for at in (3, 4)
    ]
    assert read.err.getvalue().count("prepared 0") == 2
    assert [(rank, name) for rank, name, _ in asked(store)] == [(0, "prepare"), (0, "worker"), (1, "worker")]
    assert {query["tailLines"] for _, _, query in asked(store)} == {"2"}
    assert all("sinceSeconds" not in query for _, _, query in asked(store))


def test_no_lines_at_all(read: Read) -> None:
    assert read.logs(LogExtent(tail=0)) == 0
    assert (read.out.getvalue(), "prepared" in read.err.getvalue()) == ("", False)


def test_the_lines_of_the_last_seconds(store: Store, read: Read) -> None:
    assert read.logs(LogExtent(tail=7, since=90)) == 0
    assert {(query["sinceSeconds"], query["tailLines"]) for _, _, query in asked(store)} == {("90", "7")}


def test_the_preparation_of_every_worker(store: Store, read: Read) -> None:
    assert read.logs(container="prepare") == 0
    assert [(rank, name) for rank, name, _ in asked(store)] == [(0, "prepare"), (1, "prepare")]
    assert read.out.getvalue() == ""
    for rank in range(2):
        assert read.err.getvalue().count(f"prepared {rank} ") == LINES


def test_each_line_of_each_preparation_is_shown(store: Store, read: Read) -> None:
    """Also phases, of which a launch shows those of one worker, and equal lines."""
    own = [
        "torchnet: discover: net1",
        "torchnet: join: joined",
        "torchnet: join: joined",
        "torchnet: join: 0.012 s",
    ]
    for rank in range(2):
        name = f"{ended(rank)['metadata']['name']}/prepare"
        store.logs[name] = "".join(f"2026-01-01T00:00:{at:012.9f}Z {line}\n" for at, line in enumerate(own))
    assert read.logs(container="prepare") == 0
    lines = read.err.getvalue().splitlines()
    for rank in range(2):
        shown = [line for line in lines if f"{RUN}-{rank}: " in line]
        assert [line.partition(f"{RUN}-{rank}: ")[2] for line in shown] == [
            line.removeprefix("torchnet: ") for line in own
        ]


def test_the_preparation_of_chosen_ranks(store: Store, tmp_path: Path, signals: Signals) -> None:
    for rank in range(2):
        put(store, ended(rank, 0, message(rank)), rank)
    assert Read(store, tmp_path, signals, 1).logs(container="prepare") == 0
    assert [(rank, name) for rank, name, _ in asked(store)] == [(1, "prepare")]


def test_only_the_training(store: Store, read: Read) -> None:
    assert read.logs(container="worker") == 0
    assert [(rank, name) for rank, name, _ in asked(store)] == [(0, "worker"), (1, "worker")]
    assert read.out.getvalue().count("step") == 2 * LINES


def test_a_preparation_is_followed_to_its_end_not_the_jobs(
    store: Store, tmp_path: Path, signals: Signals
) -> None:
    put(store, pod(0, phase="Running", prepare=terminated(0), worker=running()), 0)
    put(store, pod(1, phase="Pending", prepare=running()), 1)
    reading = Read(store, tmp_path, signals)

    def start() -> None:
        until(lambda: len(asked(store)) >= 2, "both logs are read")
        time.sleep(0.3)
        put(store, pod(1, version=2, phase="Running", prepare=terminated(0), worker=running()), 1)

    with aside(start):
        assert reading.logs(container="prepare", follow=True) == 0
    assert {name for _, name, _ in asked(store)} == {"prepare"}
    assert reading.err.getvalue().count("prepared 1 ") >= LINES


def test_a_reconnect_goes_on_where_it_was(
    store: Store, tmp_path: Path, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not so many lines or seconds before the reconnect, which may be more or fewer."""
    monkeypatch.setattr(pod_logs, "RETRY_SECONDS", 0.05)
    put(store, pod(0, phase="Running", prepare=terminated(0), worker=running()), 0)
    reading = Read(store, tmp_path, signals, nnodes=1)

    def end() -> None:
        until(lambda: len(asked(store)) >= 4, "the log is opened again")
        put(store, ended(0, 0, message(0)), 0)

    with aside(end):
        assert reading.logs(LogExtent(2, 60), "worker", follow=True) == 0
    first, *others = [query for _, _, query in asked(store)]
    assert (first["tailLines"], first["sinceSeconds"]) == ("2", "60")
    assert others
    assert all("sinceTime" in query and not {"tailLines", "sinceSeconds"} & set(query) for query in others)
    assert sorted(reading.out.getvalue().splitlines()) == [f"[rank 0] step {at}" for at in (3, 4)]


def test_a_log_whose_stream_brings_nothing_is_opened_ever_more_rarely(
    store: Store, tmp_path: Path, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_logs, "RETRY_SECONDS", 0.1)
    put(store, pod(0, phase="Running", prepare=terminated(0), worker=running()), 0)
    reading = Read(store, tmp_path, signals, nnodes=1)
    with aside(2.5, lambda: put(store, ended(0, 0, message(0)), 0)):
        assert reading.logs(LogExtent(2, 60), "worker", follow=True) == 0
    assert 4 <= len(asked(store)) <= 8


def test_the_options_of_the_command(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.put(job(2))
    for rank in range(2):
        put(store, ended(rank, 0, message(rank)), rank)
    place = ("-n", NAMESPACE, "--kubeconfig", str(kubeconfig(tmp_path / "config", store.address)))
    assert main(["logs", RUN, *place, "--tail", "1", "--since=1h30m", "-c", "worker"]) == 0
    assert capsys.readouterr().out.count("step 4") == 2
    assert {(query["tailLines"], query["sinceSeconds"]) for _, _, query in asked(store)} == {("1", "5400")}
    store.asked.clear()
    assert main(["logs", RUN, *place, "--tail=-1", "--since", "0.2s"]) == 0
    assert {query.get("tailLines") for _, _, query in asked(store)} == {None}
    assert {query["sinceSeconds"] for _, _, query in asked(store)} == {"1"}


def test_logs_of_workers_that_were_stopped_before_the_start_are_shown(store: Store, read: Read) -> None:
    """They wait for no replacement: with --keep, theirs are the only ones."""
    for rank in range(2):
        put(store, ended(rank, 75, message(rank, 75, started=False)), rank)
    read.logs()
    assert "step 4" in read.out.getvalue() + read.err.getvalue()
