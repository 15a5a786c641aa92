"""The supervisor that is executed before the settings are known, and the sockets that it gets later."""

from __future__ import annotations

import os
import resource
import socket
import sys

import pytest

from torchnet.config.job_spec import JobSpec
from torchnet.errors import UsageError
from torchnet.local import supervisor_process
from torchnet.local.control_messages import receive_sockets, send_sockets
from torchnet.local.supervisor_process import spawned_early
from torchnet.runtime import runtime_of


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_ends_with_a_usage_error_and_with_a_job_on_kubernetes() -> None:
    pids = []

    def refused() -> None:
        with spawned_early(True) as early:
            assert early is not None
            pids.append(early.process.pid)
            raise UsageError("the settings are invalid")

    with pytest.raises(UsageError, match="settings"):
        refused()
    with spawned_early(True) as early:
        assert early is not None
        pids.append(early.process.pid)
        assert not ended(pids[1])
        runtime_of(JobSpec.model_construct(on="kubernetes"), early)
        assert ended(pids[1])
    assert all(map(ended, pids))


def test_none_where_it_is_not_wanted_or_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with spawned_early(False) as early:
        assert early is None
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with spawned_early(True) as early:
        assert early is None
    with pytest.raises(UsageError, match="/nowhere/python"):
        supervisor_process.spawn()


def test_more_sockets_than_fit_into_a_message() -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(600, (files - 200) // 2)
    assert count > 253
    ours, theirs = socket.socketpair()
    pair = socket.socketpair()
    with ours, theirs, pair[0], pair[1]:
        send_sockets(ours, [pair[0]] * (count - 1) + [pair[1]])
        found = receive_sockets(theirs, count)
        try:
            assert len(found) == count
            assert not any(map(os.get_inheritable, found))
            assert os.fstat(found[-1]).st_ino == os.fstat(pair[1].fileno()).st_ino
            assert {os.fstat(one).st_ino for one in found[:-1]} == {os.fstat(pair[0].fileno()).st_ino}
        finally:
            for one in found:
                os.close(one)
        ours.close()
        with pytest.raises(EOFError):
            receive_sockets(theirs, 1)


def test_it_may_open_as_many_files_as_the_launcher_may_then(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found: list[tuple[int, int]] = []

    def look(supervisor: supervisor_process.Supervisor, **_: bool) -> None:
        found.append(resource.prlimit(supervisor.process.pid, resource.RLIMIT_NOFILE))

    monkeypatch.setattr(supervisor_process, "set_up", look)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft // 2, hard))
    try:
        supervisor = supervisor_process.spawn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        supervisor_process.start(supervisor, b"", [], sandbox=True)
    finally:
        supervisor.kill()
    assert found == [(soft, hard)]
