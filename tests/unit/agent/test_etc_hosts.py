"""Peers in the hosts file: added, replaced, taken out again, whatever else stands there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.users import User
from torchnet.agent.etc_hosts import add_peers, is_private, remove_peers, unchanged
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable

OLD = b"127.0.0.1\tlocalhost\n10.0.0.7 box # caf\xe9\r\n"


def table(*last: int) -> PeerTable:
    return PeerTable(
        tuple(
            PeerRow(
                rank,
                f"node-{rank}",
                f"u{rank}",
                (PeerRail("net1", f"fd00::{n}", 9000), PeerRail("net2", f"fd01::{n}", 9000)),
                (f"172.30.1.{n}",),
            )
            for rank, n in enumerate(last)
        )
    )


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_bytes(OLD)
    return path


def test_each_rail_and_eth0_has_a_line(hosts: Path) -> None:
    assert add_peers(table(1, 2), "a", path=str(hosts))
    text = hosts.read_bytes()
    assert text.startswith(OLD)
    lines = [line.split("\t") for line in text[len(OLD) :].decode().splitlines()]
    assert {line.pop() for line in lines} == {"# torchnet 'a'"}
    assert lines == [
        ["fd00::1", "node-0"],
        ["fd00::2", "node-1"],
        ["fd01::1", "node-0-rail2"],
        ["fd01::2", "node-1-rail2"],
        ["172.30.1.1", "node-0-frontend"],
        ["::ffff:172.30.1.1", "node-0-frontend-mapped"],
        ["172.30.1.2", "node-1-frontend"],
        ["::ffff:172.30.1.2", "node-1-frontend-mapped"],
    ]


def test_it_is_idempotent_and_a_restart_replaces(hosts: Path) -> None:
    for _ in range(3):
        assert add_peers(table(1, 2), "a", path=str(hosts))
    once = hosts.read_bytes()
    assert once.count(b"\tnode-0\t") == 1
    assert add_peers(table(1, 2, 3), "a", path=str(hosts))
    assert hosts.read_bytes().count(b"\tnode-2\t") == 1
    assert add_peers(table(9), "a", path=str(hosts))
    shorter = hosts.read_bytes()
    assert b"node-1" not in shorter
    assert shorter.count(b"fd00::9") == 1
    assert shorter.startswith(OLD)


def test_what_stood_behind_our_lines_stays(hosts: Path) -> None:
    add_peers(table(1), "a", path=str(hosts))
    with hosts.open("ab") as file:
        file.write(b"10.9.9.9 later\n")
    add_peers(table(2), "a", path=str(hosts))
    assert b"10.9.9.9 later\n" in hosts.read_bytes()
    remove_peers("a", path=str(hosts))
    assert hosts.read_bytes() == OLD + b"10.9.9.9 later\n"


@settings(deadline=None)
@given(st.binary())
def test_any_file_is_the_same_again_afterwards(tmp_path_factory: pytest.TempPathFactory, old: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-hosts"
    path.write_bytes(old)
    assert add_peers(table(1, 2), "a", path=str(path))
    assert b"\nfd00::2\tnode-1\t# torchnet 'a'\n" in path.read_bytes()
    remove_peers("a", path=str(path))
    end = b"" if old.endswith(b"\n") or not old else b"\n"
    assert path.read_bytes() == old + end


def test_a_large_job_is_told_of_some_lines() -> None:
    text = unchanged(table(*range(1, 10)), private=True)
    assert text.splitlines()[1] == "fd00::1 node-0"
    assert text.splitlines()[-1] == "and 2 more"


def test_ipv4_rails_need_their_mapped_addresses_too() -> None:
    row = PeerRow(0, "host-a", "u", (PeerRail("eth1", "10.7.0.1", 9000),), ())
    assert unchanged(PeerTable((row,)), private=False).splitlines()[1:] == [
        "10.7.0.1 host-a",
        "::ffff:10.7.0.1 host-a-mapped",
    ]


@pytest.mark.parametrize("first", ["a", "b"])
def test_jobs_on_one_machine_leave_each_others_lines(hosts: Path, first: str) -> None:
    add_peers(table(1), "a", path=str(hosts))
    add_peers(table(2), "b", path=str(hosts))
    add_peers(table(3), "a", path=str(hosts))
    with hosts.open("ab") as file:
        file.write(b"10.9.9.9\tlater\n")
    text = hosts.read_text("latin-1")
    assert ("fd00::1\t" in text, "fd00::2\t" in text, "fd00::3\t" in text) == (False, True, True)
    second = "b" if first == "a" else "a"
    remove_peers(first, path=str(hosts))
    assert f"# torchnet '{second}'" in hosts.read_text("latin-1")
    remove_peers(second, path=str(hosts))
    assert hosts.read_bytes() == OLD + b"10.9.9.9\tlater\n"


def test_any_run_id_is_one_mark(hosts: Path) -> None:
    odd = ("a", "a b", "'a'", "a\n10.0.0.1\tgoogle.com", "#.*", "\u20ac")
    for run_id in odd:
        add_peers(table(1), run_id, path=str(hosts))
    assert hosts.read_bytes().count(b"\n") == OLD.count(b"\n") + 4 * len(odd)
    assert hosts.read_bytes()[len(OLD) :].isascii()
    for run_id in odd:
        remove_peers(run_id, path=str(hosts))
    assert hosts.read_bytes() == OLD


def test_it_is_written_in_place(hosts: Path) -> None:
    before = hosts.stat().st_ino
    add_peers(table(1), "a", path=str(hosts))
    assert hosts.stat().st_ino == before  # in a pod the file itself is a mount
    remove_peers("a", path=str(hosts))
    assert hosts.stat().st_ino == before


def test_a_missing_file_and_a_folder_are_not_ours_to_write(tmp_path: Path) -> None:
    assert not add_peers(table(1), "a", path=str(tmp_path / "missing"))
    assert not add_peers(table(1), "a", path=str(tmp_path))
    remove_peers("a", path=str(tmp_path / "missing"))
    assert os.listdir(tmp_path) == []


def test_an_unwritable_file_is_left_alone(as_user: User) -> None:
    path = as_user.home / "hosts"
    path.write_bytes(OLD)  # root's
    code = "from tests.unit.agent.test_etc_hosts import *\nprint(add_peers(table(1), 'a', path='hosts'))"
    done = as_user.run(sys.executable, "-c", f"{code}\nremove_peers('a', path='hosts')")
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    assert path.read_bytes() == OLD


@pytest.mark.parametrize(
    ("source", "mount_point", "private"),
    [
        ("/var/lib/kubelet/pods/7f/etc-hosts", "/etc/hosts", True),
        ("/var/lib/docker/containers/7f/hosts", "/etc/hosts", True),
        ("/hosts", "/etc/hosts", True),  # a local node's
        ("/etc/hosts", "/etc/hosts", False),  # Apptainer mounts the machine's own
        ("/", "/", False),
    ],
)
def test_only_a_file_that_is_mounted_is_private(
    tmp_path: Path, source: str, mount_point: str, private: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"22 1 8:1 / / rw - ext4 /dev/vda rw\n36 22 8:1 {source} {mount_point} rw shared:1 - ext4 /dev/vda rw\n"
    )
    assert is_private(mounts=str(mounts)) == private
