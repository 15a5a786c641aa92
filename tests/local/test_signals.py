"""Signals to torchnet: what stops a job in order, what at once, and which code it ends with."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import PATIENCE, Job, descendants, lines, receipt, script, until

POLITE = """
    import os, signal, sys, time

    def stop(number, frame):
        print("saving", signal.Signals(number).name, flush=True)
        time.sleep(0.3)
        print("saved", flush=True)
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, stop)
    try:
        print("ready", flush=True)
        while True:  # Python hears a signal between two sleeps, if it comes right before one
            time.sleep(0.1)
    except KeyboardInterrupt:
        stop(signal.SIGINT, None)
"""
STUBBORN = """
    import signal, time
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(600)
"""


# What torch's DataLoader does: a handler of SIGCHLD raises when a worker has died of a signal.
SAVES = """
    import signal, sys, time
    from torch.utils.data import DataLoader

    def save(number, frame):
        for _ in range(10):
            time.sleep(0.1)
        print("SAVED", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    try:
        for number, _ in enumerate(DataLoader(range(10**6), num_workers=2)):
            if not number:
                print("ready", flush=True)
            time.sleep(0.01)
    except KeyboardInterrupt:
        save(0, None)
"""


def ready(job: Job, ranks: int = 2) -> None:
    for rank in range(ranks):
        job.wait_for(rf"\[rank {rank}\] ready", on="stdout")


@pytest.mark.parametrize(
    ("number", "code"),
    [("SIGINT", 130), ("SIGHUP", 129), ("SIGTERM", 143), ("SIGQUIT", 131), ("SIGUSR1", 138)],
)
def test_one_signal_stops_the_job_in_order(tmp_path: Path, number: str, code: int) -> None:
    """Row 5: within 10 s; the scripts hear the same signal and may save, and the receipt is there."""
    path = tmp_path / "receipt.json"
    flags = ("--nnodes", "2", "--signals-to-handle", "SIGTERM,SIGUSR1", "--json", path)
    with Job(*flags, script(tmp_path, POLITE)) as job:
        ready(job)
        sent = job.send(getattr(signal, number))
        done = job.finish()
    assert done.code == code, done.stderr
    assert done.at - sent < 10
    for rank in (0, 1):
        assert lines(done.stdout, rank) == ["ready", f"saving {number}", "saved"]
    found = receipt(path)
    assert (found["exit_code"], found["reason"]) == (code, f"stopped by {number}")
    assert (found["failure"]["kind"], found["failure"]["rank"]) == ("interrupted", None)
    assert len(found["nodes"]) == 2
    assert f"root cause: stopped by {number}" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_checkpoint_is_saved_with_the_dataloaders_workers(tmp_path: Path, number: int) -> None:
    path = tmp_path / "receipt.json"
    with Job("--json", path, script(tmp_path, SAVES)) as job:
        ready(job)
        job.send(number)
        done = job.finish()
    assert [lines(done.stdout, rank) for rank in (0, 1)] == [["ready", "SAVED"]] * 2, done.stderr
    assert done.code == 128 + number
    assert [rank["exit_code"] for rank in receipt(path)["ranks"]] == [0, 0]


# A rank in a shell's care, and children that a rank leaves behind: one ends by SIGTERM, one ignores it.
CARE = """
    import os, signal, subprocess, sys, time
    if sys.argv[1:]:
        wait = "print('child', flush=True); time.sleep(600)"
        words = {"polite": "", "stubborn": "signal.signal(15, signal.SIG_IGN);"}[sys.argv[1]]
        subprocess.Popen([sys.executable, "-c", f"import signal, time; {words}{wait}"])
    def stop(*_):
        time.sleep(0 if sys.argv[1:] else 3)
        open("saved", "w").close()
        print("saved", flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    while True:
        time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("child", "grace", "least", "most"), [("polite", 30, 0, 2), ("stubborn", 30, 2, 8), ("stubborn", 1, 1, 2)]
)
def test_a_ranks_child_ends_after_it(
    tmp_path: Path, child: str, grace: int, least: float, most: float
) -> None:
    """SIGTERM when its rank has ended, SIGKILL 2 s later, but never after the grace."""
    with Job("--nnodes", "1", "--grace", str(grace), script(tmp_path, CARE), child, cwd=tmp_path) as job:
        ready(job, 1)
        job.wait_for("child", on="stdout")
        sent = job.send(signal.SIGTERM)
        done = job.finish()
    assert lines(done.stdout, 0)[-1] == "saved"
    assert least <= done.at - sent < most


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_shells_child_has_the_whole_grace(tmp_path: Path, number: int) -> None:
    """The shell dies of SIGTERM at once, and of SIGINT when its child has got it, too; that goes on saving."""
    care = CARE.replace("signal.SIGTERM, stop", f"{int(number)}, stop")
    text = f'"{sys.executable}" "{script(tmp_path, care)}"; exit $?'
    with Job("--nnodes", "1", "--no-python", "sh", "-c", text, cwd=tmp_path) as job:
        ready(job, 1)
        job.send(number)
        assert job.finish().code == 128 + number
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("shape", ["trap", "join"])
def test_children_that_their_rank_waits_for_are_stopped_before_the_grace_is_over(
    tmp_path: Path, shape: str
) -> None:
    """A shell runs its trap when its child has ended, and Python joins its processes when it exits."""
    joins = """
        import multiprocessing, signal, sys, time
        multiprocessing.set_start_method("fork")
        child = multiprocessing.Process(target=time.sleep, args=(600,))
        child.start()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("ready", flush=True)
        while True:
            time.sleep(0.1)
    """
    trap = f'trap "touch trapped; exit 3" TERM; "{sys.executable}" "{script(tmp_path, CARE)}"'
    words = ("--no-python", "bash", "-c", trap) if shape == "trap" else (script(tmp_path, joins),)
    with Job("--nnodes", "1", "--grace", "12", *words, cwd=tmp_path) as job:
        ready(job, 1)
        sent = job.send(signal.SIGTERM)
        done = job.finish()
    assert 6 <= done.at - sent < 11, "they get SIGTERM after half of this grace, and nothing is killed"
    if shape == "trap":
        assert (tmp_path / "saved").exists()
        assert (tmp_path / "trapped").exists()


def test_the_second_ctrl_c_ends_everything_at_once(tmp_path: Path) -> None:
    """Row 6."""
    path = tmp_path / "receipt.json"
    with Job("--json", path, script(tmp_path, STUBBORN)) as job:
        ready(job)
        job.send(signal.SIGINT)
        job.wait_for("stopping")
        ranks = list(job.ranks().values())
        sent = job.send(signal.SIGINT)
        done = job.finish()
    assert done.code == 130
    assert done.at - sent < 3  # the grace would be 30
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)
    assert receipt(path)["exit_code"] == 130


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGHUP, signal.SIGHUP), (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)],
    ids=["a terminal closes", "Ctrl-C, then SIGTERM", "SIGTERM, then Ctrl-C"],
)
def test_a_second_signal_that_is_no_second_ctrl_c_kills_nothing(
    tmp_path: Path, numbers: tuple[int, int]
) -> None:
    """A shell passes SIGHUP on when its terminal closes, and then the kernel sends another."""
    with Job("--nnodes", "1", script(tmp_path, POLITE.replace("sleep(0.3)", "sleep(2)"))) as job:
        ready(job, 1)
        for number in numbers:
            job.send(number)
            job.wait_for("saving", on="stdout")
        done = job.finish()
    assert done.code == 128 + numbers[0]
    assert lines(done.stdout, 0) == ["ready", f"saving {signal.Signals(numbers[0]).name}", "saved"]


def test_who_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    """Row 7: after --grace, not after the default 30 s, and not before."""
    path = tmp_path / "receipt.json"
    with Job("--grace", "1", "--json", path, script(tmp_path, STUBBORN)) as job:
        ready(job)
        sent = job.send(signal.SIGTERM)
        done = job.finish()
    assert done.code == 143
    assert 1 <= done.at - sent < 4
    assert [rank["exit_code"] for rank in receipt(path)["ranks"]] == [137, 137]


def test_one_stubborn_rank_does_not_hold_up_a_failure(tmp_path: Path) -> None:
    """Row 7, after a failure elsewhere: the failing rank's code stays the job's."""
    text = """
        import os, signal, sys, time
        if os.environ["RANK"] == "1":
            time.sleep(0.5)
            sys.exit(3)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    """
    with Job("--grace", "1", script(tmp_path, text)) as job:
        named = job.wait_for("rank 1 on node-1 exited with code 3")
        done = job.finish()
    assert done.code == 3
    assert done.at - named < 4


@pytest.mark.parametrize("delay", [0, 0.03, 0.1, 0.3])
def test_ctrl_c_while_the_nodes_are_being_made(tmp_path: Path, delay: float) -> None:
    needs.networks()
    with Job(script(tmp_path, POLITE)) as job:
        until(lambda: descendants(job.pid), "the first process exists")
        time.sleep(delay)
        sent = job.send(signal.SIGINT)
        done = job.finish()
    assert done.code == 130, done.stderr
    assert done.at - sent < 10


def test_nohup_is_respected(tmp_path: Path) -> None:
    """Who starts it with SIGHUP ignored wants it to outlive the terminal."""
    text = """
        import os, time
        print('ready', flush=True)
        while not os.path.exists('go'):
            time.sleep(0.05)
    """
    command = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-m", "torchnet", "launch")
    with Job(script(tmp_path, text), command=command, cwd=tmp_path) as job:
        ready(job)
        job.send(signal.SIGHUP)
        time.sleep(0.5)
        (tmp_path / "go").touch()
        assert job.finish().code == 0


def test_the_terminals_group_gets_the_signal_and_only_torchnet_acts_on_it(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole foreground group of a terminal; the nodes' processes are not in it.

    A shell ignores SIGINT for what a script starts in the background; torchnet, like torchrun, does not.
    """
    command = ("sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "torchnet", "launch")
    with Job(script(tmp_path, POLITE), command=command, start_new_session=True) as job:
        ready(job)
        group = os.getpgid(job.pid)
        inside = [pid for pid in descendants(job.pid) if os.getpgid(pid) == group]
        assert inside == []
        os.killpg(group, signal.SIGINT)
        done = job.finish(PATIENCE)
    assert done.code == 130
    assert lines(done.stdout, 0) == ["ready", "saving SIGINT", "saved"]
