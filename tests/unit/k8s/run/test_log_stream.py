"""Many logs at once: threads and open files as many as are needed, and no follower that ends without a word."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import until
from tests.unit.api_answers import client
from tests.unit.api_store import Store, storing
from tests.unit.kubernetes_objects import (
    RUN,
    ended,
    facts,
    failure,
    message,
    pod,
    running,
    terminated,
    workers,
)
from torchnet.errors import UsageError
from torchnet.k8s.client.kinds import POD
from torchnet.k8s.run import log_stream, pod_logs
from torchnet.k8s.run.log_stream import LogSelection, allow, followed_nodes, followed_text

ROOT = Path(__file__).resolve().parents[4]
MANY = 100
store = pytest.fixture(storing)


def line(rank: int) -> str:
    return f"2026-01-01T00:00:00.000000000Z [{rank}] hello\n"


def threads(name: str, before: set[threading.Thread]) -> int:
    return sum(one.name.startswith(name) for one in threading.enumerate() if one not in before)


def drained(one: LogSelection) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def all_of_it() -> bool:
        while (event := one.take()) is not None:
            found.append(event)
        return not one.busy

    until(all_of_it, "all logs are read")
    return found


@pytest.mark.parametrize("follow", [True, False])
def test_logs_that_are_whole_are_read_by_a_bounded_number_of_threads(
    store: Store, tmp_path: Path, follow: bool
) -> None:
    """Each pod of a big job that fails has failed: no thread for each of 10,000."""
    held = threading.Event()
    store.faults = [("GET", "/log", held)]
    pods = [ended(rank) for rank in range(MANY)]
    for rank, body in enumerate(pods):
        store.logs[body["metadata"]["name"]] = line(rank)
    one = LogSelection(client(store, tmp_path), facts(MANY), ranks=range(MANY), follow=follow)
    before = set(threading.enumerate())
    one.update(workers(*pods, nnodes=len(pods)))
    until(lambda: len(store.asked) >= pod_logs.READERS, "as many are asked for as there are readers")
    time.sleep(0.2)
    assert (threads("reader", before), threads("log of", before)) == (pod_logs.READERS, 0)
    assert one.busy
    held.set()
    heard = [event["rank"] for event in drained(one) if event["event"] == "output"]
    assert sorted(heard) == list(range(MANY))
    until(lambda: threads("reader", before) == 0, "the readers have ended")


def test_a_container_that_runs_has_a_follower_of_its_own(store: Store, tmp_path: Path) -> None:
    held = threading.Event()
    store.faults = [("GET", "/log", held)]
    pods = [pod(rank, phase="Running", prepare=terminated(0), worker=running()) for rank in range(40)]
    one = LogSelection(client(store, tmp_path), facts(40), ranks=range(40))
    before = set(threading.enumerate())  # of tests before, which may end meanwhile
    one.update(workers(*pods, nnodes=len(pods)))
    until(lambda: threads("log of", before) == 40, "none waits for another's end")
    one.release()
    held.set()
    drained(one)
    assert not one.busy


def failed_together(store: Store, count: int, why: dict[str, Any]) -> list[dict[str, Any]]:
    """Pods that ended with the code that their agents agreed on, as all of their messages say."""
    pods = [ended(rank, 42, message(rank, 42, failure=why)) for rank in range(count)]
    for rank, body in enumerate(pods):
        store.logs[body["metadata"]["name"]] = line(rank)
    return pods


def read_of(store: Store, tmp_path: Path, pods: list[dict[str, Any]], **more: Any) -> dict[str, list[int]]:
    """The ranks whose lines came, by the pod's container: each as often as it came."""
    one = LogSelection(client(store, tmp_path), facts(len(pods), nproc=more.pop("nproc", 1)), **more)
    one.update(workers(*pods, nnodes=len(pods)))
    one.release()
    lines = [event["rank"] for event in drained(one) if event["event"] == "output"]
    asked = [path for _, _, path, _ in store.asked if "/log" in path]
    return {
        "lines": sorted(lines),
        **{
            container: sorted(
                int(path.partition(f"{RUN}-")[2].partition("-")[0])
                for path in asked
                if f"container={container}" in path
            )
            for container in ("prepare", "worker")
        },
    }


NAMES_NOBODY = {"rank": None, "node": None}


@pytest.mark.parametrize(
    ("why", "more", "heard"),
    [
        ({}, {}, [0, 3]),
        ({}, {"ranks": (7, 150)}, [0, 3, 7, 150]),
        ({"rank": 27, "node": None}, {"nproc": 8}, [0, 3]),
        ({"rank": None}, {}, [0, 3]),
        ({"rank": 999, "node": "x"}, {}, [0]),
        ({"kind": "interrupted", **NAMES_NOBODY}, {"ranks": (5,)}, [0, 5]),
        ({}, {"everybody": True}, list(range(32))),
        ({}, {"everybody": True, "follow": False}, list(range(200))),
        ({}, {"everybody": True, "ranks": (150,)}, [*range(32), 150]),
    ],
    ids=str,
)
def test_of_many_that_end_with_the_agreed_code_the_one_that_is_named_has_failed(
    store: Store, tmp_path: Path, why: dict[str, Any], more: dict[str, Any], heard: list[int]
) -> None:
    found = read_of(store, tmp_path, failed_together(store, 200, failure(**why)), **more)
    assert found == {"lines": heard, "prepare": [0], "worker": heard}


def test_whoever_ended_without_a_word_has_failed_too(store: Store, tmp_path: Path) -> None:
    """Killed with its agent; a preparation that failed by itself; a message that names no failure."""
    pods = failed_together(store, 200, failure())
    pods[5] = ended(5, 137, "")
    pods[6] = pod(6, phase="Failed", prepare=terminated(4, ""))
    pods[8] = ended(8, 42, message(8, 42))
    pods[9] = ended(9, 0, message(9, 0, failure=failure(rank=9)))
    found = read_of(store, tmp_path, pods)
    assert found["worker"] == [0, 3, 5, 8]
    assert found["prepare"] == [0, 6]


def test_of_one_that_was_not_followed_before_the_last_lines_are_asked_for(
    store: Store, tmp_path: Path
) -> None:
    read_of(store, tmp_path, failed_together(store, 200, failure()))
    tails = {
        path.partition(f"{RUN}-")[2].partition("-")[0]: "tailLines=200" in path
        for _, _, path, _ in store.asked
    }
    assert tails == {"0": False, "3": True}


def test_up_to_sixteen_all_are_read(store: Store, tmp_path: Path) -> None:
    pods = failed_together(store, 16, failure())
    assert read_of(store, tmp_path, pods)["worker"] == list(range(16))
    store.asked.clear()
    assert read_of(store, tmp_path, pods, ranks=(7,))["worker"] == list(range(16)), (
        "a failure is shown in any case"
    )


@pytest.mark.parametrize(
    ("nnodes", "nproc", "ranks", "everybody", "nodes"),
    [
        (16, 1, (), False, set(range(16))),
        (16, 8, (), False, {0, 1, 2, 3}),
        (17, 1, (), False, {0}),
        (1000, 1, (), True, set(range(32))),
        (1000, 64, (), True, {0}),
        (1000, 1, tuple(range(1000)), False, set(range(1000))),
        (1000, 8, (7, 8000 - 1), False, {0, 999}),
        (1000, 8, (7999,), True, {0, 1, 2, 3, 999}),
    ],
)
def test_32_ranks_are_followed_unless_more_are_asked_for(
    nnodes: int, nproc: int, ranks: tuple[int, ...], everybody: bool, nodes: set[int]
) -> None:
    assert followed_nodes(nnodes, nproc, ranks, everybody=everybody) == nodes


@pytest.mark.parametrize(
    ("nnodes", "nproc", "ranks", "everybody", "text"),
    [
        (32, 1, (), True, ""),
        (1000, 1, (), True, "ranks 0 to 31 of 1000 ranks"),
        (1000, 1, (), False, "rank 0 of 1000 ranks"),
        (16, 8, (), False, "ranks 0 to 31 of 128 ranks"),
        (1000, 1, (3,), False, ""),
    ],
)
def test_what_is_followed_is_said(
    nnodes: int, nproc: int, ranks: tuple[int, ...], everybody: bool, text: str
) -> None:
    said = followed_text(nnodes, nproc, ranks, everybody=everybody)
    assert (text in said) if text else said == ""


def test_a_follower_with_a_defect_says_so(store: Store, tmp_path: Path) -> None:
    said: list[str] = []

    def broken(_: object) -> None:
        raise KeyError("rank")

    body = ended(0)
    store.logs[body["metadata"]["name"]] = line(0)
    one = pod_logs.LogFollower(
        client(store, tmp_path), "ml", body["metadata"]["name"], "worker", line=broken, warn=said.append
    )
    one.ended()
    one.start(pod_logs.LogReaders())
    until(lambda: not one.busy, "the follower has ended")
    assert said == [f"the follower of {body['metadata']['name']}'s log failed: KeyError: 'rank'"]


def test_no_more_threads_are_a_remark(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the thread that takes what the followers give, which cannot wait for room."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith(("reader", "log of")):
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(log_stream, "_WAITING", 1)
    one = LogSelection(client(store, tmp_path), facts(2), everybody=True)
    bodies = ended(0), pod(1, phase="Running", prepare=terminated(0), worker=running())
    with monkeypatch.context() as changed:
        changed.setattr(threading.Thread, "start", start)
        taking = threading.Thread(target=one.update, args=(workers(*bodies),), daemon=True)
        taking.start()
        taking.join(10)
    assert not taking.is_alive()
    assert {str(event["text"]) for event in drained(one)} == {
        f"cannot read the log of {body['metadata']['name']}: can't start new thread" for body in bodies
    }


def test_connections_that_are_not_kept_are_no_warning(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = client(store, tmp_path)
    body = ended(0)
    store.logs[body["metadata"]["name"]] = line(0)
    path = POD.path("ml", body["metadata"]["name"], "log")
    call = POD.call("get", "ml", body["metadata"]["name"], "log")
    open_ones = [one.stream(path, call, query={"container": "worker"}, silence=10.0) for _ in range(80)]
    for response in open_ones:
        assert response.read() == line(0).encode()
    assert [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING] == []


def test_the_limit_of_open_files_is_raised_as_far_as_needed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1024:
        pytest.skip(f"{hard} open files are allowed here at most")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow(16, 8, (), everybody=False)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256, "enough already"
        allow(50, 8, range(400), everybody=False, files=True)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (64 + pod_logs.READERS + 50 + 400, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("arguments", "need"),
    [
        ("10_000, 8, range(80_000), everybody=False, files=True", 64 + 32 + 10_000 + 80_000),
        ("10_000, 8, range(80_000), everybody=True", 64 + 32 + 10_000),
        ("10_000, 8, range(0, 8 * 5_000, 8), everybody=False", 64 + 32 + 5_000),
        ("10_000, 8, (), everybody=False, files=True", 0),
        ("10_000, 8, (), everybody=True", 0),
    ],
)
def test_more_than_the_machine_allows_is_refused_before_anything_is_made(arguments: str, need: int) -> None:
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))\n"
        f"from torchnet.k8s.run.log_stream import allow\nallow({arguments})\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == (1 if need else 0), ran.stderr
    if need:
        assert UsageError.__name__ in ran.stderr
        assert f"need {need} open files" in ran.stderr
        assert f"fix: ulimit -n {need}, or fewer workers" in ran.stderr
