"""An API server that has a bad day, one that does not know its user any more, and what it is never asked."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faults import within
from tests.cluster.front import Fault, Front, Question, front
from tests.cluster.launched import Launched, pods
from tests.cluster.launcher import Launcher
from tests.jobs import lines
from torchnet.config.k8s_syntax import ANNOTATIONS_LIMIT
from torchnet.k8s.objects.code_bundle import CODE_LIMIT

TICKS = """
    import os, socket, time
    at = os.environ["MASTER_ADDR"], 7000
    if os.environ["RANK"] == "0":
        with socket.create_server(at, family=socket.AF_INET6) as server:
            connection, _ = server.accept()
        while connection.recv(1 << 20):
            pass
    else:
        for _ in range(200):
            try:
                connection = socket.create_connection(at)
                break
            except OSError:
                time.sleep(0.05)
        connection.sendall(bytes(3_000_000))
        connection.close()
    for number in range(100):
        print("tick", number, flush=True)
        time.sleep(0.05)
"""
STAY = """
    import time
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def namespace(module_namespace: str) -> str:
    return module_namespace  # each of these tests leaves it as it was


@pytest.fixture
def api(launcher: Launcher, tmp_path: Path) -> Iterator[Front]:
    with front(launcher.cluster, tmp_path) as made:
        yield made


class BadDay:
    """Every third question goes wrong, each time in another way; each watch and log breaks off at its first line."""

    faults: tuple[Fault, ...] = (429, "broken", 500, "unheard", 503)

    def __init__(self) -> None:
        self.count = 0
        self.streamed: set[str] = set()

    def __call__(self, question: Question) -> Fault | None:
        if question.streams and question.path not in self.streamed:
            self.streamed.add(question.path)
            return "broken"
        self.count += 1
        return None if self.count % 3 else self.faults[self.count // 3 % len(self.faults)]


def test_a_launch_on_a_bad_day(launcher: Launcher, api: Front, tmp_path: Path) -> None:
    """Row 17: 429 and 5xx, and connections that are cut, from the first question to the last."""
    config, api.bad = api.told(), BadDay()
    (tmp_path / "down").mkdir()
    with front(launcher.cluster, tmp_path / "down") as down:
        # Beside it, as it takes its 30 s: one for whom there is no better answer.
        down.bad = lambda _: 503
        began = time.monotonic()
        never = launcher.start("status", "-n", launcher.namespace, "--kubeconfig", down.told())
        with Launched(launcher, "row17", TICKS, "--kubeconfig", config, "--log-dir", "logs") as job:
            done = job.finish()
        left = launcher.left()
        gave_up = launcher.ended(never, began)
    assert done.code == 0, done.stderr
    for rank in (0, 1):
        log = (launcher.folder / "logs" / "row17" / f"rank-{rank}.log").read_text().splitlines()
        assert log == lines(done.stdout, rank) == [f"tick {number}" for number in range(100)]
    found = job.receipt()
    assert [node["node"] for node in found["nodes"]] == ["row17-0", "row17-1"]
    assert (found["proof"], found["exit_code"]) == ("measured", 0)
    assert found["backend_share"] > 0.99
    assert done.stderr.count("receipt of") == 1
    assert left == []
    met = {question.fault for question in api.questions}
    assert met >= set(BadDay.faults), met
    broken = {q.path.rpartition("/")[2] for q in api.questions if q.streams and q.fault == "broken"}
    assert {"pods", "log"} <= broken <= {"pods", "log", "events"}, broken
    # Whoever was told when to come again came then, and not before.
    asked = [q for q in api.questions if not q.streams]
    for number, one in enumerate(asked):
        same = [q for q in asked[number + 1 :] if (q.method, q.path) == (one.method, one.path)]
        if one.fault == 429 and same:
            assert same[0].at - one.at >= api.retry_after
    assert len(api.questions) < 150, [(q.method, q.path) for q in api.questions]
    assert gave_up.code == 3, gave_up.err
    assert "too busy to list " in gave_up.err
    assert "HTTP 503" in gave_up.err
    assert 15 < gave_up.seconds < 35
    # Further and further apart, and never in step.
    times = [question.at for question in down.questions]
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    assert 6 <= len(times) <= 15, pauses
    assert sum(pauses[:3]) < 3 < max(pauses), pauses
    assert len(set(pauses)) == len(pauses)


def test_a_server_that_wants_to_be_left_alone(launcher: Launcher, api: Front) -> None:
    """Row 17: told to come again after all patience has ended, it does not wait for that."""
    api.bad, api.retry_after = lambda _: 429, 60
    ran = launcher.run(*launcher.words("--kubeconfig", api.told()), launcher.script(STAY))
    assert ran.code == 3, ran.err
    assert re.search(r"too busy to get jobs.batch/train-.* \(HTTP 429\)", ran.err), ran.err
    assert ran.seconds < 8
    assert len(api.questions) == 1
    assert launcher.left() == []


@pytest.mark.parametrize(
    ("taken", "status", "said"),
    [
        (
            "rolebinding",
            403,
            r"not allowed to (watch|list) pods in namespace {}: .*kubectl auth can-i (watch|list) pods",
        ),
        (
            "serviceaccount",
            401,
            r"not authenticated .*\((watch|list) pods in namespace {}\): .*kubectl auth whoami",
        ),
    ],
    ids=["403", "401"],
)
def test_rights_that_are_taken_away_in_mid_run_end_the_launcher_not_the_job(
    launcher: Launcher, api: Front, taken: str, status: int, said: str
) -> None:
    """Row 18: to a watch that is taken up again. The verb and the resource are named, and the way back to the job."""
    namespace, kubectl = launcher.namespace, launcher.cluster.kubectl
    kubectl("create", "serviceaccount", "someone", "-n", namespace)
    account = f"--serviceaccount={namespace}:someone"
    kubectl("create", "rolebinding", "someone", "--clusterrole=admin", account, "-n", namespace)
    config = api.told(kubectl("create", "token", "someone", "-n", namespace).strip())
    with Launched(launcher, "row18", STAY, "--kubeconfig", config) as job:
        for rank in (0, 1):
            job.wait_for(rf"\[rank {rank}\] +there", on="stdout")
        refused = api.answers[status]  # what a launch asks for if it may: leases of addresses, nodes
        kubectl("delete", taken, "someone", "-n", namespace)
        gone = time.monotonic()
        launcher.cluster.restart_apiserver()  # an open watch is not asked for its rights again
        done = job.finish()
        within(15, "the launcher has ended, the API server's restart included", gone, done.at)
        assert done.code == 3, done.stderr
        assert re.search(said.format(namespace), done.stderr, re.DOTALL), done.stderr
        assert "the run row18" in done.stderr
        assert f"torchnet attach row18 -n {namespace}" in done.stderr
        # The watch, the two logs and the looks at the workload are refused once each, and never ask again; rejected
        # credentials are tried once more.
        assert 1 <= api.answers[status] - refused <= (5 if status == 403 else 10), api.answers
        time.sleep(1)
        states = [pod["status"]["containerStatuses"][0]["state"] for pod in pods(launcher, "row18")]
        assert ["running" in state for state in states] == [True, True], "the job goes on"
    assert launcher.run("down", "row18", "-n", namespace, "--now").code == 0
    kubectl("delete", "rolebinding,serviceaccount", "someone", "-n", namespace, "--ignore-not-found")
    assert launcher.left() == []


LONG = "a" * 64
WRONG = {
    "run_id": ("--run-id", LONG),
    "kubernetes.namespace": ("--namespace", "../x"),
    "kubernetes.service_account": ("--service-account", "Upper"),
    "kubernetes.labels": ("--label", f"x={LONG}"),
    "kubernetes.annotations": ("--annotation", "../x=y"),
    "kubernetes.secrets": ("--secret", "Upper"),
}


def test_names_that_cannot_be(launcher: Launcher, api: Front) -> None:
    """Row 21: rejected, all at once, and the API server is asked nothing."""
    config, script = ("--kubeconfig", api.told()), launcher.script(STAY)
    words = ["launch", "--on", "kubernetes", "--image", launcher.cluster.worker_image, *config]
    ran = launcher.run(*words, *(word for one in WRONG.values() for word in one), script)
    assert ran.code == 2, ran.err
    for field in WRONG:
        assert re.search(rf"^  {re.escape(field)}: .*; valid: ", ran.err, re.MULTILINE), ran.err
    for name in ("../x", "Upper/x"):
        ran = launcher.run(*words, "--network", name, script)
        assert ran.code == 2, ran.err
        assert f'network.networks: "{name}" is not ' in ran.err
    # A NUL can come in a file alone.
    (launcher.folder / "job.toml").write_text('[kubernetes]\nnamespace = "a\\u0000b"\n')
    ran = launcher.run(*words, "--config", "job.toml", script)
    assert ran.code == 2, ran.err
    assert r'kubernetes.namespace: "a\x00b" is not a DNS label (from job.toml' in ran.err
    for command in ("status", "attach", "logs", "down"):
        ran = launcher.run(command, "../x", *config)
        assert ran.code == 2, ran.err
        assert 'RUN "../x" is not a DNS label' in ran.err
    assert api.questions == []


def test_what_is_too_large(launcher: Launcher, api: Front) -> None:
    """Row 22: refused with the sizes and the way out, and the API server is asked nothing; a little less it takes."""
    config, (key, limit) = ("--kubeconfig", api.told()), ("x.example/y", ANNOTATIONS_LIMIT)
    script, data = launcher.script(STAY), launcher.folder / "data.bin"
    halves = [f"{key}{number}={'v' * 120_000}" for number in range(3)]
    more = [word for one in halves for word in ("--annotation", one)]
    ran = launcher.run(*launcher.words(*config, *more), script)
    assert ran.code == 2, ran.err
    assert re.search(
        rf"annotations: .* 360\d\d\d bytes.* {limit} .*--volume",
        ran.err,
    )
    (launcher.folder / ".torchnetignore").write_text("xdg\n")
    data.write_bytes(os.urandom(CODE_LIMIT))
    ran = launcher.run(*launcher.words(*config), script)
    assert ran.code == 2, ran.err
    assert re.search(r"too large: 3\.0 MiB compressed; the limit is 3\.0 MiB compressed", ran.err), ran.err
    for said in ("3.0 MiB  data.bin", ".torchnetignore", "--code image", "--code pvc:NAME/PATH"):
        assert said in ran.err
    assert api.questions == []
    # The limits are Kubernetes' own: what is within them, the server takes.
    data.write_bytes(os.urandom(CODE_LIMIT - 2000))
    words = launcher.words(*more[:4], "--dry-run", "-o", "json", nnodes=1)
    shown = launcher.run(*words, script)
    assert shown.code == 0, shown.err
    taken = launcher.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=shown.out)
    assert "job.batch/" in taken
    assert taken.count("configmap/") == 1 + 3
    assert launcher.left() == []
