"""What a process may use, as control groups and the processor's files tell it."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from torchnet.bench.worker import node_facts
from torchnet.constants import TABLE_VARIABLE
from torchnet.linux import link_speed
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable, encode


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A control group in another one with a quota of one and a half cores and 3 GB."""
    folder = tmp_path / "cgroup" / "pod" / "container"
    folder.mkdir(parents=True)
    (folder / "cpu.max").write_text("max 100000\n")
    (folder / "memory.max").write_text("max\n")
    (folder.parent / "cpu.max").write_text("50000 100000\n")
    (folder.parent / "memory.max").write_text("3000000\n")
    (tmp_path / "own").write_text("0::/pod/container\n")
    (tmp_path / "meminfo").write_text("MemTotal:     8000 kB\nMemFree: 1 kB\n")
    return tmp_path


def test_a_quota_around_the_own_group_holds_too(groups: Path) -> None:
    assert node_facts.cores(groups / "cgroup", groups / "own") == 0.5
    assert node_facts.memory(groups / "cgroup", groups / "own", groups / "meminfo") == 3_000_000


def test_without_limits_it_is_all_that_the_machine_has(groups: Path, tmp_path: Path) -> None:
    (groups / "own").write_text("0::/\n")
    assert node_facts.cores(groups / "cgroup", groups / "own") == len(os.sched_getaffinity(0))
    assert node_facts.memory(groups / "cgroup", groups / "own", groups / "meminfo") == 8000 * 1024
    nowhere = tmp_path / "nowhere"
    assert node_facts.memory(nowhere, nowhere, nowhere) == 0
    assert node_facts.cores(nowhere, nowhere) == len(os.sched_getaffinity(0))


def test_a_limit_of_a_group_of_the_first_version_holds_too(groups: Path, tmp_path: Path) -> None:
    (groups / "own").write_text("7:cpu,memory:/job\n0::/\n")
    job, nowhere = groups / "cgroup" / "memory" / "job", tmp_path / "nowhere"
    job.mkdir(parents=True)
    (job / "memory.limit_in_bytes").write_text("2000000\n")
    assert node_facts.memory(groups / "cgroup", groups / "own", groups / "meminfo") == 2_000_000
    (job / "memory.limit_in_bytes").write_text("9223372036854771712\n")  # none
    assert node_facts.memory(groups / "cgroup", groups / "own", nowhere) == 0


def test_a_container_sees_its_own_group_as_the_topmost(groups: Path) -> None:
    (groups / "cgroup" / "cpu.max").write_text("25000 100000\n")
    (groups / "own").write_text("0::/\n")
    assert node_facts.cores(groups / "cgroup", groups / "own") == 0.25


def test_the_jobs_table_names_the_node_and_its_rails_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(
        PeerRow(node, f"pod-{node}", "", (PeerRail("lo", f"fd00::{node + 1}", 1500),)) for node in range(2)
    )
    (tmp_path / "table").write_bytes(encode(PeerTable(rows)))
    monkeypatch.setenv(TABLE_VARIABLE, str(tmp_path / "table"))
    monkeypatch.setenv("TORCHNET_HOST", "gpu-17")
    found = node_facts.facts(1, ["lo", "nothing0"])
    assert (found.name, found.host) == ("pod-1", "gpu-17")
    assert found.addresses == {"lo": "fd00::2"}
    assert list(found.mtus) == ["lo"]
    assert found.speeds == {}


def test_a_table_that_cannot_be_read_leaves_the_hosts_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table").write_bytes(b"no table")
    monkeypatch.setenv(TABLE_VARIABLE, str(tmp_path / "table"))
    monkeypatch.delenv("TORCHNET_HOST", raising=False)
    found = node_facts.facts(0, [])
    assert (found.name, found.host) == (os.uname().nodename, "")


@pytest.mark.parametrize(
    ("driver", "megabits", "port", "supported", "wanted"),
    [
        ("mlx5_core", 25_000, 3, b"\1", 25_000_000_000),
        ("gve", 10_000, 0, b"\0\0", 10_000_000_000),  # tells no more than this
        ("macvlan", 10_000, 0, b"\0\1", 10_000_000_000),  # above a card with 10GBASE-T
        ("macvlan", 100_000, 0, b"\0\0", 100_000_000_000),
        ("macvlan", 10_000, 0, b"\0\0", None),  # above a veth
        ("ipvlan", 10_000, 0xFF, b"\0\0", 10_000_000_000),  # above a virtual machine's, which its host told
        ("veth", 10_000, 0, b"\0\0", None),
        ("veth", 25_000, 3, b"\1", None),
        ("tun", 10, 0, b"\0\0", None),
        ("mlx5_core", 0xFFFFFFFF, 0, b"\1", None),  # without a cable
        ("virtio_net", 0, 0, b"\1", None),
    ],
)
def test_what_a_driver_says_of_its_speed(
    driver: str,
    megabits: int,
    port: int,
    supported: bytes,
    wanted: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel's side of the ioctl, since no machine has all of these cards: linux/ethtool.h."""

    def ethtool(_door: Any, interface: str, data: Any) -> bool:
        assert interface == "eth0"
        (command,) = struct.unpack_from("=I", data)
        if command == 3:
            struct.pack_into("=I32s", data, 0, command, driver.encode())
            return True
        assert command == 0x4C
        words = data.raw[15]
        struct.pack_into(
            "=IIBBBBBBBb", data, 0, command, megabits, 1, port, 0, 0, 0, 0, 0, 1 if words else -1
        )
        data[48 : 48 + len(supported) * words] = supported * words
        return True

    monkeypatch.setattr(link_speed, "_ethtool", ethtool)
    assert link_speed.speed("eth0") == wanted


def test_an_interface_that_has_no_driver_or_is_not_there_tells_no_speed() -> None:
    assert link_speed.speed("lo") is None
    assert link_speed.speed("nothing0") is None
