"""Machines that refuse namespaces, each made for real: the mechanism is named, one fix, and the other way works."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import TORCHNET, lines, receipt, run, script

LAUNCH = (*TORCHNET, "launch")
# In a user namespace of its own a sysctl can be set, and something mounted over a part of /proc, for what runs there.
NO_USER_NAMESPACES = (
    "unshare",
    "-Ur",
    "sh",
    "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"',
)
NO_NETWORK_NAMESPACES = (
    "unshare", "-Ur", "sh", "-c", 'echo 2 > /proc/sys/user/max_net_namespaces && exec "$0" "$@"',
)  # fmt: skip
MASKED_PROC = ("unshare", "-Urm", "sh", "-c", 'mount --bind /dev/null /proc/timer_list && exec "$0" "$@"')
SECCOMP = (sys.executable, "-m", "tests.seccomp")

REFUSALS = {
    "sysctl": (
        NO_USER_NAMESPACES,
        "the sysctl user.max_user_namespaces is",
        "sudo sysctl -w user.max_user_namespaces=",
    ),
    "network": (
        NO_NETWORK_NAMESPACES,
        "the sysctl user.max_net_namespaces is",
        "sudo sysctl -w user.max_net_namespaces=",
    ),
    "proc": (
        MASKED_PROC,
        "container has a masked /proc",
        "docker run --security-opt systempaths=unconfined",
    ),
    "seccomp": (
        SECCOMP,
        "a seccomp filter forbids the system call, as container runtimes' default profile does",
        "docker run --security-opt seccomp=unconfined",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_names_the_mechanism_and_one_fix(tmp_path: Path, kind: str) -> None:
    around, mechanism, fix = REFUSALS[kind]
    started = script(tmp_path, "open('started', 'w')")
    done = run(started, command=(*around, *LAUNCH), cwd=tmp_path)
    assert done.code == 4, done.stderr
    nodes, *said = done.stderr.splitlines()
    assert "2 nodes, all on this machine" in nodes
    assert said[0].startswith(f"torchnet: {needs.REFUSED}")
    assert mechanism in said[0]
    assert said[1].startswith(f"  fix: {fix}")
    assert said[2].startswith("       or: torchnet launch --network loopback")
    assert len(said) == 3
    assert not (tmp_path / "started").exists(), "nothing runs on loopback unasked"


@pytest.mark.parametrize("kind", REFUSALS)
def test_on_loopback_it_runs_there_as_well(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "receipt.json"
    text = """
        import os, socket
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if os.environ["RANK"] == "0":
            peer = socket.create_server(place).accept()[0]
            print(len(peer.recv(3, socket.MSG_WAITALL)))
        else:
            import time
            for _ in range(600):
                try:
                    peer = socket.create_connection(place)
                    break
                except OSError:
                    time.sleep(0.05)
            peer.sendall(b"abc")
    """
    arguments = ("--network", "loopback", "--json", path, script(tmp_path, text))
    done = run(*arguments, command=(*REFUSALS[kind][0], *LAUNCH))
    assert done.code == 0, done.stderr
    assert lines(done.stdout, 0) == ["3"]
    assert "loopback" in done.stderr
    found = receipt(path)
    assert (found["network"], found["backend_share"], found["proof"]) == ("loopback", None, "unknown")
    assert "backend share unknown: loopback: no network was used" in done.stderr


def test_min_share_is_never_reached_on_loopback(tmp_path: Path) -> None:
    done = run("--network", "loopback", "--min-share", "0", script(tmp_path, "pass"))
    assert done.code == 5
    assert "--min-share 0 % is not proven: the share is unknown" in done.stderr
