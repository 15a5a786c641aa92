"""Background processes of the cluster: each has a pid file and a log in the run folder."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.cluster.places import RUN
from tests.cluster.shell import ClusterFailure, run

# In the environment of each process, so that a pid that was given to another program meanwhile is not taken for it.
MARK = "TESTS_OF_TORCHNET_CLUSTER"


def start(name: str, *command: str | Path) -> None:
    """Start ``command`` in a session of its own, as nobody's child: it outlives whoever brings the cluster up."""
    pid_file, log = RUN / f"{name}.pid", RUN / f"{name}.log"
    # The shell becomes the command, so its pid is the command's.
    script = 'echo $$ >"$0"; log=$1; shift; exec "$@" </dev/null >>"$log" 2>&1'
    words = [str(word) for word in (pid_file, log, *command)]
    # Go's programs collect their garbage a quarter as often: memory is there, the tests want the processors.
    own = {MARK: str(RUN), "GOGC": "400"}
    run("setsid", "--fork", "sh", "-c", script, *words, env=os.environ | own)
    deadline = time.monotonic() + 10
    while not (pid_file.exists() and pid_file.read_text().strip()):
        if time.monotonic() > deadline:
            raise ClusterFailure(f"{name} did not start: {' '.join(words[2:])}")
        time.sleep(0.01)


def pid(name: str) -> int | None:
    """The process's id while it runs; a zombie counts as ended, since init may take seconds to reap one."""
    try:
        number = int((RUN / f"{name}.pid").read_text())
        return number if _ours(number) else None
    except (OSError, ValueError):
        return None


def _ours(number: int) -> bool:
    return f"{MARK}={RUN}".encode() in Path(f"/proc/{number}/environ").read_bytes().split(b"\0")


def log(name: str) -> str:
    """What the process has written so far."""
    path = RUN / f"{name}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def stop(name: str, how: signal.Signals = signal.SIGTERM) -> None:
    """End the process and wait for its end: 10 s, then by SIGKILL. Nothing if it does not run."""
    number = pid(name)
    if number is not None:
        end([number], how)
    (RUN / f"{name}.pid").unlink(missing_ok=True)


def end(numbers: list[int], how: signal.Signals = signal.SIGKILL) -> None:
    """Signal these processes and wait until all have ended; SIGKILL after 10 s."""
    for number in numbers:
        _signal(number, how)
    deadline = time.monotonic() + 10
    while alive := [number for number in numbers if running(number)]:
        if time.monotonic() > deadline:
            for number in alive:
                _signal(number, signal.SIGKILL)
            deadline += 10
        time.sleep(0.02)


def running(number: int) -> bool:
    """Whether a process has not ended: a zombie has, once its threads have, which hold its ports until then."""
    try:
        state = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        return state not in "ZX" or len(os.listdir(f"/proc/{number}/task")) > 1
    except OSError:
        return False


def _signal(number: int, how: signal.Signals) -> None:
    try:
        os.kill(number, how)
    except ProcessLookupError:
        pass


def all_ours() -> list[int]:
    """Every process that carries the cluster's mark: the daemons and what they started, containers' shims too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if _ours(int(entry.name)):
                    found.append(int(entry.name))
            except OSError:
                pass
    return found
