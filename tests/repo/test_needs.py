"""What a machine cannot run is skipped with the reason, at each door through which tests reach for it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT
from tests.users import User

SECCOMP = (sys.executable, "-m", "tests.seccomp")
# A test for each door: namespaces of a test's own, nodes, a job to its end, one that is listened to, the command line.
NETWORKS = {
    "isolated": "test_linux_rtnetlink.py",
    "nodes": "test_join.py::test_nobody_can_join_after_the_start",
    "run": "test_launch_forms.py",
    "listen": "test_suspend.py::test_ctrl_z_twice",
    "command": "test_k8s_addons_example_pods.py",
}
PROGRAMS = {
    "ip": "test_linux_rtnetlink.py",
    "openssl": "test_agent_kube_api.py",
    "chromium": "test_bench_report_browser.py",
}


def skipped(test: str, *prefix: str, **env: str) -> str:
    """pytest's last line for ``test`` of tests/local, where nothing may fail and something must be skipped."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/local/{test}"],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " skipped" in done.stdout.splitlines()[-1], done.stdout
    return done.stdout


@pytest.mark.parametrize("door", NETWORKS)
def test_where_namespaces_are_refused_tests_that_need_them_are_skipped(door: str) -> None:
    needs.networks()
    said = skipped(NETWORKS[door], *SECCOMP)
    assert f"{needs.REFUSED}user namespace: Operation not permitted; a seccomp filter forbids" in said


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_missing_program_makes_impossible_is_skipped(program: str, tmp_path: Path) -> None:
    needs.networks()
    said = skipped(PROGRAMS[program], PATH=str(tmp_path))
    assert f"{program} is not installed (apt install {needs.PACKAGES.get(program, program)})" in said


def test_a_refusal_that_the_machine_does_not_give_is_no_reason() -> None:
    """Else a torchnet that refuses for nothing would skip its own tests."""
    needs.networks()
    needs.ended(f"torchnet: {needs.REFUSED}for no reason")


def test_what_a_user_alone_is_refused_is_skipped(as_user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user.networks()
    as_user_of_a_container = functools.partial(User.popen, as_user, *SECCOMP)
    monkeypatch.setattr(
        User, "popen", lambda _self, *words, **options: as_user_of_a_container(*words, **options)
    )
    with pytest.raises(pytest.skip.Exception, match="an ordinary user: .*a seccomp filter forbids"):
        as_user.networks()
