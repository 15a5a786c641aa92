"""The leak fixture guards tests/local; here leaks are planted, and it must see each of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests import needs
from tests.jobs import marked, until
from tests.leaks import snapshot

ROOT = Path(__file__).resolve().parent.parent.parent
SLEEP = "86399.25"

PLANTS = {
    "child": (f"subprocess.Popen(['sleep', '{SLEEP}'])", "left behind: process"),
    # Neither a descendant nor in the session, as after a daemon's double fork.
    "daemon": (f"subprocess.run('setsid -f sleep {SLEEP}', shell=True)", "left behind: process"),
    "namespace": (
        f"subprocess.Popen(['unshare', '-Urn', 'sleep', '{SLEEP}']); time.sleep(0.3)",
        "left behind: namespace net:[",
    ),
    "descriptor": (
        "p = subprocess.Popen(['unshare', '-Urn', 'sleep', '9']); time.sleep(0.3)\n"
        "    global held; held = open(f'/proc/{p.pid}/ns/net'); p.kill(); p.wait()",
        "left behind: namespace net:[",
    ),
    "link": ("subprocess.run('ip link add planted0 type veth peer planted1', shell=True)", "planted0"),
    "netns": ("subprocess.run('ip netns add planted', shell=True)", "left behind: ip netns: planted"),
}
# Links and names need a kernel network and a /run of the test's own: root of a namespace has both.
OWN_NETWORK = [
    "unshare",
    "-Urnm",
    "--propagation=private",
    "sh",
    "-c",
    'mount -t tmpfs none /run && exec "$@"',
    "-",
]
# A leak that stays is waited for; the test of the fixture need not wait as long.
CONFTEST = "import tests.leaks\ntests.leaks.watched.__wrapped__.__defaults__ = (0.5,)\n"


def run_planted(folder: Path, body: str, *prefix: str) -> str:
    place = folder / "tests" / "local"
    place.mkdir(parents=True)
    (place / "conftest.py").write_text(CONFTEST)
    (place / "test_planted.py").write_text(f"import subprocess, time\n\ndef test_planted():\n    {body}\n")
    # By this what was planted is found: the tests within have marked it as theirs.
    mark = uuid.uuid4().hex
    command = [*prefix, sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", str(folder)]
    try:
        done = subprocess.run(
            [*command, "-p", "no:cacheprovider", "-W", "ignore", str(place)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PLANTED": mark},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not any(marked(mark)), "what was planted has ended")
    return done.stdout + done.stderr


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_leak_is_caught(plant: str, tmp_path: Path) -> None:
    body, expected = PLANTS[plant]
    if "unshare" in body or "ip " in body:
        needs.networks()
    if "ip " in body:
        needs.program("ip")
    prefix = OWN_NETWORK if plant in ("link", "netns") else []
    output = run_planted(tmp_path, body, *prefix)
    assert "the test leaked" in output, output
    assert expected in output
    assert "1 passed, 1 error" in output


def test_nothing_is_seen_where_nothing_leaks(tmp_path: Path) -> None:
    """Else the fixture might complain always, and the tests above would prove nothing."""
    needs.networks()
    body = "subprocess.run(['unshare', '-Urn', 'true'], check=True)"
    output = run_planted(tmp_path, body)
    assert "1 passed in" in output, output


def test_a_cluster_that_another_lane_brings_up_is_none(tmp_path: Path) -> None:
    """Only the fixture that brings it up counts it."""
    needs.networks()
    needs.program("ip")
    body = "import tests.leaks\n    subprocess.run(['ip', 'netns', 'add', 'planted-node1'], check=True)\n"
    body += "    assert [one for one in tests.leaks.snapshot(clusters=True).named if 'planted-node1' in one]"
    output = run_planted(tmp_path, body, *OWN_NETWORK)
    assert "1 passed in" in output, output


def test_what_ends_within_the_grace_is_no_leak(tmp_path: Path) -> None:
    output = run_planted(tmp_path, "subprocess.Popen('sleep 0.2', shell=True)")
    assert "1 passed in" in output, output


def test_a_session_whose_leader_is_outside_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 0, as that of the kernel's threads: these come and go, and are not the tests'."""
    before = snapshot().processes
    monkeypatch.setattr(os, "getsid", lambda *_: 0)
    assert not [line for line in snapshot().processes - before if "kthreadd" in line or "kworker" in line]
