"""An ordinary user: no capability, no group, no entry in /etc/passwd; the same networks, and the own files."""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from typing import Any

import pytest

from tests.jobs import Ended, Job, lines, marked, parent, receipt, script, state, until
from tests.users import User

LOOK = """
    import getpass, json, os, socket
    with open(f"made-{os.environ['RANK']}", "w"):
        pass
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\\n").split(":\\t", 1) for line in file)
    try:
        os.setuid(0)
        root = True
    except OSError:
        root = False
    print(json.dumps({
        "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid()],
        "home": os.environ["HOME"],
        "user": getpass.getuser(),
        "own": os.stat("made-" + os.environ["RANK"]).st_uid,
        "strange": [os.stat("/").st_uid, os.stat("/").st_gid],
        "capabilities": {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16},
        "root": root,
        "names": [socket.gethostname(), socket.gethostbyaddr("fcbb:0:800:ffff::2")[0]],
    }))
"""
# Rank 1 sends 5 MB to rank 0 over the backend, and both wait.
WORK = """
    import os, signal, socket, subprocess, sys, time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if len(sys.argv) == 1:
        subprocess.Popen(["sleep", "600"], start_new_session=True)
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ["RANK"] == "0":
        peer = socket.create_server(place, family=socket.AF_INET6).accept()[0]
        assert len(peer.recv(5_000_000, socket.MSG_WAITALL)) == 5_000_000
    else:
        for _ in range(600):
            try:
                peer = socket.create_connection(place)
                break
            except OSError:
                time.sleep(0.05)
        peer.sendall(bytes(5_000_000))
    print("ready", flush=True)
    while len(sys.argv) == 1:
        time.sleep(0.1)
"""


def launch(user: User, *arguments: object, **options: Any) -> Job:
    return Job(*arguments, popen=user.popen, **options)


def finish(user: User, *arguments: object, **options: Any) -> Ended:
    with launch(user, *arguments, **options) as job:
        return job.finish()


def test_users_stay_who_they_are(as_user: User) -> None:
    as_user.networks()
    script(as_user.home, LOOK)
    done = finish(as_user, "--json", "receipt.json", "script.py")
    assert done.code == 0, done.stderr
    for rank in (0, 1):
        saw = json.loads(lines(done.stdout, rank)[0])
        assert saw["ids"] == [as_user.uid] * 4
        assert saw["home"] == str(as_user.home)
        assert saw["own"] == as_user.uid
        assert saw["user"] == "tester"
        # Only the own number exists in there; whoever else owns a file is nobody.
        assert saw["strange"] == [65534, 65534]
        assert (saw["capabilities"], saw["root"]) == (True, False)
        assert saw["names"] == [f"node-{rank}", "node-1"]
        assert (as_user.home / f"made-{rank}").stat().st_uid == as_user.uid
    assert (as_user.home / "receipt.json").stat().st_uid == as_user.uid


def test_the_receipt_is_the_same_for_users(as_user: User) -> None:
    as_user.networks()
    script(as_user.home, WORK)
    done = finish(
        as_user, "--json", "receipt.json", "--min-share", "0.99", "--rate", "1gbit", "script.py", "end"
    )
    assert done.code == 0, done.stderr
    found = receipt(as_user.home / "receipt.json")
    assert (found["backend_share"], found["proof"], found["network"]) == (1.0, "measured", "namespaces")
    assert found["rails"][0]["peer_bytes"] == pytest.approx(10_000_000, abs=16)


@pytest.mark.parametrize("victim", ["torchnet", "supervisor"])
def test_kill_leaves_nothing_of_a_users_job(as_user: User, victim: str) -> None:
    """Row 3."""
    mark = uuid.uuid4().hex
    as_user.networks()
    script(as_user.home, WORK)
    with launch(as_user, "script.py", env={"TEST_JOB": mark}) as job:
        for rank in (0, 1):
            job.wait_for(rf"\[rank {rank}\] ready", on="stdout")
        supervisor = parent(parent(job.agent(0)))
        assert parent(supervisor) == job.pid
        os.kill(job.pid if victim == "torchnet" else supervisor, signal.SIGKILL)
        job.finish()
        until(lambda: not any(marked(mark)), "nothing is left", 5)


def test_ctrl_c_and_ctrl_z_of_a_users_job(as_user: User) -> None:
    as_user.networks()
    script(as_user.home, WORK)
    with launch(as_user, "script.py") as job:
        job.wait_for(r"\[rank 1\] ready", on="stdout")
        ranks = job.ranks()
        job.send(signal.SIGTSTP)
        until(lambda: state(job.pid) == "T", "torchnet has stopped")
        assert [state(pid) for pid in ranks.values()] == ["T", "T"]
        job.send(signal.SIGCONT)
        job.send(signal.SIGINT)
        assert job.finish().code == 130


def test_users_are_refused_as_root_is(as_user: User) -> None:
    """The others of test_refused.py make their machine in a namespace where everybody is root; here nobody is."""
    as_user.networks()
    started = script(as_user.home, "open('started', 'w')")
    seccomp = (sys.executable, "-m", "tests.seccomp", sys.executable, "-m", "torchnet", "launch")
    done = finish(as_user, started, command=seccomp)
    assert done.code == 4, done.stderr
    assert "a seccomp filter forbids the system call" in done.stderr
    assert not (as_user.home / "started").exists()
    done = finish(as_user, "--network", "loopback", started, command=seccomp)
    assert done.code == 0, done.stderr
    assert (as_user.home / "started").stat().st_uid == as_user.uid
