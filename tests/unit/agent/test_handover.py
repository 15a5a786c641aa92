"""What a pod's init container leaves for the other: the state, the copy of the hosts file and the pipe of its start."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torchnet.agent import etc_hosts
from torchnet.agent.handover import FILE, Handover, HandoverSource, announce_start, put
from torchnet.constants import STARTED_FILE
from torchnet.errors import UsageError
from torchnet.network.address_sources import StaticAddresses
from torchnet.network.network_status import StatusEntry
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable, fingerprint

TABLE = PeerTable(
    tuple(
        PeerRow(n, f"run-{n}", f"uid-{n}", (PeerRail("net1", f"fd00::{n + 1}", 9000),), (f"10.0.0.{n + 1}",))
        for n in range(2)
    )
)
ENTRY = StatusEntry("ml/net", "net1", ("fd00::1",), mac="00:11:22:33:44:55", origin="--address-source")
STATE = Handover("run", 1, 2, "uid-1", "3", (ENTRY,))


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    STATE.write(str(tmp_path))
    assert Handover.read(str(tmp_path)) == STATE
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert HandoverSource(STATE).attachments() == (ENTRY,)
    assert HandoverSource(STATE).rank0() == ()  # it is found by its pod
    other = StaticAddresses("static:net1=fd00::2/64", ("fd00::1",))
    assert HandoverSource(STATE, other).rank0() == ("fd00::1",)


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"state\.json: No such file") as caught:
        Handover.read(str(tmp_path))
    assert "--phase prepare" in caught.value.fix
    STATE.write(str(tmp_path))
    whole = (tmp_path / FILE).read_text()
    value = json.loads(whole)
    others: list[Any] = [
        {**value, "format": 1},
        {**value, "attachments": "x"},
        {**value, "node_rank": "x"},
        [],
        5,
    ]
    others += [{k: v for k, v in value.items() if k != key} for key in value]
    for text in [whole[:-20], "", *(json.dumps(other) for other in others)]:
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UsageError, match="state.json"):
            Handover.read(str(tmp_path))


def test_a_file_is_put_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    put(path, b"old")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, most))  # bytes: the write ends as on a full disk
    try:
        with pytest.raises(OSError, match="too large"):
            put(path, b"new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"old"]


def test_a_run_is_told_by_its_workers_ranks_uids_addresses_and_mtus() -> None:
    def changed(**fields: Any) -> PeerTable:
        row = TABLE.rows[1]
        return PeerTable((TABLE.rows[0], PeerRow(**{**vars(row), **fields})))

    same = fingerprint(TABLE)
    assert fingerprint(changed(eth0=("10.9.9.9",))) == same
    assert fingerprint(changed(name="other")) == same
    for fields in (
        {"uid": "x"},
        {"rails": (PeerRail("net1", "fd00::9", 9000),)},
        {"rails": (PeerRail("net1", "fd00::2", 1500),)},
        {"rails": (PeerRail("net2", "fd00::2", 9000),)},
        {"node_rank": 5},
    ):
        assert fingerprint(changed(**fields)) != same


def test_a_copy_of_the_hosts_file_gets_the_peers(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_bytes(b"127.0.0.1\tlocalhost\n\xff odd")
    copy = tmp_path / "copy"
    etc_hosts.write_copy(copy, path=str(own))
    assert copy.read_bytes() == own.read_bytes()
    for _ in range(2):
        assert etc_hosts.add_peers(TABLE, "r", path=str(copy))
    lines = copy.read_bytes().splitlines()
    assert lines[:2] == [b"127.0.0.1\tlocalhost", b"\xff odd"]
    assert lines.count(b"fd00::2\trun-1\t# torchnet 'r'") == 1
    assert b"10.0.0.2\trun-1-frontend\t# torchnet 'r'" in lines
    assert own.read_bytes() == b"127.0.0.1\tlocalhost\n\xff odd"


def test_a_probe_waits_until_the_script_has_started(tmp_path: Path) -> None:
    path = str(tmp_path / STARTED_FILE)
    os.mkfifo(path)
    probe = subprocess.Popen([sys.executable, "-I", "-S", "-c", f"open({path!r})"])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            probe.wait(0.3)
        announce_start(str(tmp_path))
        assert probe.wait(20) == 0
    finally:
        probe.kill()
        probe.wait()
    # One that comes later does not wait.
    subprocess.run([sys.executable, "-I", "-S", "-c", f"open({path!r})"], timeout=20, check=True)


def test_without_a_pipe_there_is_nobody_to_tell(tmp_path: Path) -> None:
    for folder in ("", str(tmp_path)):
        announce_start(folder)
    assert list(tmp_path.iterdir()) == []
