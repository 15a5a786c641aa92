"""Count what a launch of many workers asks of the API server, and what it takes of the launcher's machine.

    uv run -m benchmarks.scale [--mixed] [job|pods] [NNODES…]

Brings up the test cluster (tests/cluster; as root, and none may be up), adds KWOK's nodes and records two real workers.
Then a launch of each kind runs with as many workers as asked, 100 and 1,000 if nothing is said: their states and logs
are the recorded ones. A minute is measured after all have started, with a line of output each second; then all workers
end at once. ``--mixed`` instead launches workers of which two are real, and reports how that fails.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.join import cpu_seconds
from benchmarks.machine import facts
from benchmarks.scale import recording, traffic
from benchmarks.scale.recording import RUN, Recording, append
from tests.cluster import cluster, kwok, recipes
from tests.cluster.cluster import Cluster
from tests.cluster.launched import command
from tests.cluster.launcher import Launcher
from tests.cluster.places import RUN as FOLDER
from tests.cluster.shell import say, wait_until
from tests.jobs import Job
from torchnet.constants import PREPARE, WORKER

KINDS = ("job", "pods")
NODES = 10
RUN_SECONDS = 60
_SETTLE_SECONDS = 5.0  # between the last worker's start and the measured minute
_PATIENCE = 1200.0
_MIXED_TIMEOUT = 150  # seconds: the Job controller makes a thousand pods in 50
_SHOWN = 6  # of the last messages
_TOLERATES = ("--toleration", "kwok:NoSchedule")
_RANK0 = re.compile(rf"{RUN}-0(-|$)")
_LOGS = {name: FOLDER / f"kwok-log-{name}" / "0.log" for name in (PREPARE, WORKER)}


@dataclass(frozen=True)
class Reading:
    """``at`` is Unix time, ``cpu`` in seconds; bytes with those of TLS, ``memory`` the most so far, in bytes."""

    at: float
    sent: int
    received: int
    cpu: float
    memory: int


class Measured:
    """A launch of ``nnodes`` workers of KWOK, and what it has cost so far."""

    def __init__(self, launcher: Launcher, relay: traffic.Relay, kind: str, nnodes: int, *more: str) -> None:
        self.nnodes, self._relay = nnodes, relay
        self.audit = traffic.AuditLog()
        self._last = Reading(0.0, 0, 0, 0.0, 0)
        self._began = time.time()
        where = ("--run-id", RUN, "--kind", kind, "--node-selector", kwok.SELECTOR, *_TOLERATES)
        words = launcher.words(*where, "--start-timeout", str(int(_PATIENCE)), *more, nnodes=nnodes)
        config = relay.kubeconfig(launcher.folder)
        self.job = Job(
            *words,
            launcher.script(recording.SCRIPT),
            command=command(launcher.cluster),
            env={"KUBECONFIG": str(config), "XDG_CONFIG_HOME": str(launcher.folder / "xdg")},
            cwd=launcher.folder,
        )

    def read(self) -> Reading:
        """The present state; that of before if the launcher has ended."""
        pid = self.job.pid
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        memory = max(int(found[1]) * 1024 if found else 0, self._last.memory)
        relay = self._relay
        self._last = Reading(time.time(), relay.sent, relay.received, cpu_seconds(pid), memory)
        return self._last

    def patched(self, since: float) -> dict[str, float]:
        """By pod, when KWOK has changed its status last (Unix time)."""
        self.audit.read()
        return {one.name: one.at for one in self.audit.of(kwok.USER, "patch pods/status", since)}

    def started(self) -> float:
        """Wait until KWOK has let all workers start; when the last one did (Unix time)."""

        def begun() -> bool:
            if len(self.patched(self._began)) >= self.nnodes:
                return True
            if self.job.process.poll() is not None:
                raise RuntimeError(f"the launch has ended\n{self.job.text('stderr')}")
            return False

        wait_until(f"{self.nnodes} workers", _PATIENCE, begun)
        return max(self.patched(self._began).values())

    def creation(self, kind: str) -> tuple[float, float]:
        """When the first and the last pod were created (Unix time)."""
        self.audit.read()
        user = traffic.USER if kind == "pods" else traffic.CONTROLLER
        stamps = sorted(one.at for one in self.audit.of(user, "create pods", self._began))
        return stamps[kind == "pods"], stamps[-1]  # a launcher's first request creates none: a dry run

    def ended(self) -> Reading:
        """Wait until the launcher has ended; its last state."""
        while self.job.process.poll() is None:
            with contextlib.suppress(OSError, IndexError):
                self.read()
            time.sleep(0.05)
        return self._last

    def report(self, name: str, first: Reading, last: Reading) -> None:
        """Print a line about the time between two readings, and what was requested in it."""
        self.audit.read()
        requests = self.audit.of(traffic.USER, since=first.at, until=last.at)
        minutes = (last.at - first.at) / 60
        received, sent = last.received - first.received, last.sent - first.sent
        print(
            f"  {name:8} {last.at - first.at:6.1f} s {len(requests):6} requests {len(requests) / minutes:8.1f}/min "
            f"{received / 1e6:8.2f} MB in {received / 1e6 / minutes:7.2f}/min {sent / 1e6:6.2f} MB out "
            f"{last.cpu - first.cpu:6.2f} s CPU {last.memory / 1e6:6.0f} MB RSS"
        )
        for what, count in Counter(one.what for one in requests).most_common(8):
            print(f"    {count:6} {what}", flush=True)


def measure(
    up: Cluster, found: Recording, relay: traffic.Relay, kind: str, nnodes: int, folder: Path
) -> None:
    """One launch from its start to its end."""
    before, steps, after = recording.split(found.logs[WORKER])
    _write_logs(found.logs[PREPARE], before)
    with up.namespace() as namespace:
        launcher = Launcher(up, namespace, folder)
        launch = Measured(launcher, relay, kind, nnodes)
        with launch.job:
            began = launch.read()
            started = launch.started()
            print(f"--kind {kind}, {nnodes:,} workers", flush=True)
            created = launch.creation(kind)
            print(
                f"  pods created in {created[1] - created[0]:.1f} s, the last worker {started - created[1]:.1f} s later"
            )
            time.sleep(_SETTLE_SECONDS)
            first = launch.read()
            launch.report("start", began, first)
            for line in steps[:RUN_SECONDS]:
                append(_LOGS[WORKER], [line])
                time.sleep(1.0)
            last = launch.read()
            launch.report("running", first, last)
            append(_LOGS[WORKER], after)
            kwok.start(kwok.END, found.end_stages())
            try:
                ended = lambda: any(_RANK0.match(name) for name in launch.patched(last.at))  # noqa: E731
                wait_until("rank 0's end", 60, ended, 0.02)
                _restart_logs()
                end = launch.ended()
            finally:
                kwok.stop(kwok.END)
            launch.report("ending", last, end)
            done = launch.job.finish(60)
            print(f"  exit code {done.code}, {len(done.stderr.splitlines())} lines of messages", flush=True)
            print("".join(f"    {line}\n" for line in done.stderr.splitlines()[-_SHOWN:]), flush=True)


def state(up: Cluster, relay: traffic.Relay, nnodes: int, folder: Path) -> None:
    """How long after the last pod's creation a launcher that detaches says that all workers of a Job have started."""
    with up.namespace() as namespace:
        launcher = Launcher(up, namespace, folder)
        launch = Measured(launcher, relay, "job", nnodes, "--detach")
        with launch.job:
            offset = time.time() - time.monotonic()
            said = launch.job.wait_for("all workers have started", seconds=_PATIENCE) + offset
            started, (_, created) = launch.started(), launch.creation("job")
        print(
            f"--kind job --detach, {nnodes:,} workers: all have started, it said {said - created:.1f} s after the last "
            f"pod's creation, and {said - started:.1f} s after the last worker's start"
        )
        began = time.monotonic()
        ran = launcher.run("down", RUN, "-n", namespace, timeout=_PATIENCE)
        print(f"  torchnet down: {time.monotonic() - began:.1f} s, exit code {ran.code}", flush=True)
        if ran.code:
            print("".join(f"    {line}\n" for line in ran.err.splitlines()[-_SHOWN:]), flush=True)


def mixed(up: Cluster, nnodes: int, folder: Path) -> None:
    """Two real workers among those of KWOK, which claim to run and never join."""
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    one_a_node = f"{int(memory.split()[1]) * 6 // 10}Ki"  # of a real node
    with up.namespace(keeps_runs=True) as namespace:
        launcher = Launcher(up, namespace, folder)
        words = ("--run-id", RUN, "--start-timeout", str(_MIXED_TIMEOUT), "--memory", one_a_node, *_TOLERATES)
        process = launcher.start(*launcher.words(*words, nnodes=nnodes), launcher.script(recording.SCRIPT))
        where = ("get", "pods", "-n", namespace, "-o", "jsonpath={.items[*].spec.nodeName}")
        try:
            wait_until("two real workers", 60, lambda: len(up.kubectl(*where).split()) == 2)
            kwok.add_nodes(NODES)
            ran = launcher.ended(process, time.monotonic(), _MIXED_TIMEOUT * 3)
        finally:
            process.kill()
        print(
            f"2 real workers and {nnodes - 2:,} of KWOK: exit code {ran.code}; left: {len(launcher.left())} objects"
        )
        shown = [line for line in ran.err.splitlines() if re.search("joined|timed out|delet", line)]
        print("\n".join(f"    {line[:300]}" for line in shown), flush=True)


def _write_logs(prepare: list[str], worker: list[str]) -> None:
    """Start the two logs anew: of all pods, since the launcher reads rank 0's alone."""
    for path, lines in zip(_LOGS.values(), (prepare, worker), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        append(path, lines)
    _restart_logs()


def _restart_logs() -> None:
    kwok.stop(kwok.LOGS)
    kwok.start(kwok.LOGS, [kwok.logs(_LOGS)])


@contextlib.contextmanager
def _cluster() -> Iterator[Cluster]:
    recipes.build()
    kwok.build()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    up = cluster.up()
    try:
        traffic.restart_control_plane()
        yield up
    finally:
        cluster.down()


def main(words: list[str]) -> None:
    sizes = [int(word) for word in words if word.isdigit()] or [100, 1000]
    kinds = [kind for kind in KINDS if kind in words] or KINDS
    with _cluster() as up, tempfile.TemporaryDirectory() as name, traffic.relay() as relay:
        folder = Path(name)
        with up.namespace() as namespace:
            found = recording.record(Launcher(up, namespace, folder))
        say("recorded two workers")
        kwok.start(kwok.PODS, found.run_stages())
        print(facts())
        if "--mixed" in words:
            mixed(up, sizes[-1], folder)
            return
        kwok.add_nodes(NODES)
        for nnodes in sizes:
            for kind in kinds:
                measure(up, found, relay, kind, nnodes, folder)
            if kinds == KINDS:
                state(up, relay, nnodes, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
