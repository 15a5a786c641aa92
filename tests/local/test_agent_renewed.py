"""What a worker knows of its addresses after the join: kept for the next container, asked anew for a restart."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agents import Log, events, in_nodes, run_agent, spec, status
from tests.jobs import script
from tests.namespaces import Space, cable, ip, isolated
from torchnet.agent import preparation
from torchnet.agent.discovery import sure_attachments
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.handover import Handover
from torchnet.agent.join import Join
from torchnet.agent.link_monitor import LinkMonitor
from torchnet.agent.phase_timer import PhaseTimer
from torchnet.errors import ClusterError, NotYetError, TorchnetError
from torchnet.launcher.loopback_source import LoopbackSource
from torchnet.linux import namespaces
from torchnet.network.address_sources import MultusStatus
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Rail
from torchnet.network.network_status import StatusEntry
from torchnet.network.peer_table import decode

pytestmark = pytest.mark.waits

# Rank 1 fails once, when rank 0 is there; before, each does what the test wants of its node. Rank 0 takes no hint.
SCRIPT = """
import os, shutil, signal, subprocess, sys, time
folder, rank, attempt = sys.argv[1], os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
def do(name):
    if os.path.exists(os.path.join(folder, name)):
        subprocess.run(["sh", "-e", os.path.join(folder, name)], check=True)
shutil.copy(os.environ["TORCHNET_TABLE"], os.path.join(folder, f"table-{rank}-{attempt}"))
if attempt == "0":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    there = os.path.join(folder, "there")
    while rank == "1" and not os.path.exists(there):
        time.sleep(0.02)
    do("commands-" + rank)
    if rank == "1":
        sys.exit(7)
    open(there, "w").close()
    time.sleep(60)
do("again-" + rank)
time.sleep(float(sys.argv[2]) if sys.argv[2:] else 0)
"""
RANK0 = "fcbb:0:800:ffff::1"
CLUSTER = ClusterError("the API server cannot be reached", fix="see the API server")


class Changing:
    """A source that answers what the test says: by its number, a call's error or entries."""

    def __init__(
        self, answer: Callable[[int], tuple[StatusEntry, ...] | TorchnetError], rank0: str = RANK0
    ) -> None:
        self._rank0 = rank0
        self._answer = answer
        self._asked = 0

    def attachments(self) -> tuple[StatusEntry, ...]:
        self._asked += 1
        found = self._answer(self._asked)
        if isinstance(found, TorchnetError):
            raise found
        return found

    def rank0(self) -> tuple[str, ...]:
        return (self._rank0,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return script(tmp_path, SCRIPT).parent


def test_what_the_preparation_found_is_kept_and_not_asked_again(folder: Path) -> None:
    """Seen by the kernel alone, it is written down with its address; the API may not answer by then."""

    def role() -> int:
        state = folder / "state"
        state.mkdir()
        attachments = (NetworkAttachment.parse("ns/net@net1"),)
        told = spec(folder, 0, 2, phase="prepare", state=str(state), attachments=attachments)
        seen = sure_attachments(told)
        assert seen == (StatusEntry("ns/net", "net1"),)
        source = Changing(lambda n: seen if n == 1 else CLUSTER)
        return preparation.run(told, source, lambda _loop: Log(folder / "prepare.events"))

    assert in_nodes([role]) == [0]
    (entry,) = Handover.read(str(folder / "state")).attachments
    assert (entry.name, entry.interface, entry.ips) == ("ns/net", "net1", ("fcbb:0:800:ffff::1",))
    assert entry.origin == "the preparation"


def restarted(folder: Path, later: Callable[[int], TorchnetError | None]) -> list[int]:
    """Two agents with one restart; rank 1's source answers each question but the first with ``later``'s error."""

    def role(rank: int) -> int:
        told = spec(folder, rank, 2, max_restarts=1, grace=1.0)
        known = MultusStatus(status(rank), status(0), told.attachments).attachments()
        source = Changing(lambda n: (later(n) if n > 1 and rank else None) or known)
        return run_agent(folder, told, rank, source)

    return in_nodes([lambda: role(0), lambda: role(1)])


def test_a_restart_waits_for_an_answer_that_comes_late(folder: Path) -> None:
    assert restarted(folder, lambda n: NotYetError(CLUSTER, 1.5) if n < 4 else None) == [0, 0]


def test_a_restart_whose_addresses_are_refused_ends_the_job_with_that_error(folder: Path) -> None:
    began = time.monotonic()
    assert restarted(folder, lambda _n: CLUSTER) == [3, 3]
    assert time.monotonic() - began < 20
    first, last = events(folder, "node-0", "failure")
    assert (first["restart"], last["restart"]) == (True, False)
    assert last["text"] == str(CLUSTER)
    assert last["node"] == "node-1"


class Exhausting(Log):
    """No descriptor is left once addresses have been found again."""

    found = 0

    def send(self, event: dict[str, Any]) -> None:
        super().send(event)
        self.found += event.get("phase") == "discover"
        if self.found == 2:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@isolated
def test_a_renewal_that_the_kernel_refuses_is_an_error_of_the_restart(tmp_path: Path) -> None:
    loop, log = EventLoop(), Exhausting(tmp_path / "events")
    told = spec(tmp_path, 1, 2, loopback=True)
    refused: list[Any] = []
    add = refused.append
    entry = Join(
        loop, told, LoopbackSource(1), log, PhaseTimer(log.send), connected=add, failed=add, address_taken=add
    )
    entry.begin()
    loop.later(0.3, lambda: entry.renew(add, add))
    loop.later(1.0, loop.stop)
    loop.run()
    assert [(failure.kind, failure.code) for failure in refused] == [("network", 4)]


@isolated
def test_a_restart_goes_over_the_addresses_and_mtus_of_then(tmp_path: Path) -> None:
    """Net1's address is replaced (the control connection still has the old one), net2's taken away; the MTU changes.

    Rank 0 takes longer to stop than a rail may be away.
    """
    folder = script(tmp_path, SCRIPT).parent
    far = Space()
    for net in (1, 2):
        cable(f"net{net}", f"net{net}", far, addresses=((f"fd0{net}::1/64", f"fd0{net}::2/64"),))
    mtu = "ip link set net1 mtu 1400\n"
    (folder / "commands-0").write_text(mtu)
    (folder / "commands-1").write_text(
        f"{mtu}ip -6 address change fd01::2/64 dev net1 valid_lft 900 preferred_lft 0\n"
        "ip -6 address add fd01::77/64 dev net1 nodad\n"
        "ip -6 address del fd02::2/64 dev net2\nip -6 address add fd02::77/64 dev net2 nodad\n"
    )
    (folder / "again-1").write_text(
        "ip -6 address del fd02::77/64 dev net2\nsleep 0.3\nip -6 address add fd02::77/64 dev net2 nodad\n"
    )

    def agent(rank: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 99
        try:
            hosts = folder / f"hosts-{rank}"
            hosts.touch()
            namespaces.unshare(namespaces.NEWNS)
            namespaces.mount(str(hosts), os.path.realpath("/etc/hosts"), flags=namespaces.MS_BIND)
            if rank:
                namespaces.setns(far.descriptor, namespaces.NEWNET)
            command = (str(folder / "script.py"), str(folder), "4")
            told = spec(folder, rank, 2, max_restarts=1, grace=4.0, link_grace=1.5, command=command)
            code = run_agent(
                folder, told, rank, Changing(lambda n: entries(77 if n > 1 and rank else rank + 1), "fd01::1")
            )
        finally:
            os._exit(code)

    def entries(host: int) -> tuple[StatusEntry, ...]:
        return tuple(StatusEntry(f"n{n}", f"net{n}", (f"fd0{n}::{host}",)) for n in (1, 2))

    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in (agent(0), agent(1))]
    assert codes == [0, 0], [e["text"] for e in events(folder, "node-0") if "text" in e]
    rows = [decode((folder / f"table-0-{attempt}").read_bytes()).rows[1] for attempt in (0, 1)]
    assert [[rail.address for rail in row.rails] for row in rows] == [
        ["fd01::2", "fd02::2"],
        ["fd01::77", "fd02::77"],
    ]
    checked = [event["text"] for event in events(folder, "node-0", "phase") if "paths" in event["text"]]
    assert checked == ["4/4 paths at 1500 bytes", "4/4 paths at 1400 bytes"]
    # The rails are watched as they are now: the address that is gone does not stop the job, a new one's loss is told.
    said = [event["text"] for event in events(folder, "node-1", "notice")]
    lost = [text.partition(";")[0] for text in said if "lost its address" in text]
    assert lost.count("net2 (fd02::77) lost its address") == 1, said
    assert len(lost) <= 2, said


@isolated
def test_the_rails_of_a_restart_are_watched() -> None:
    far = Space()
    cable("net1", "net1", far, addresses=(("fd01::1/64", "fd01::2/64"),))
    cable("net2", "net2", far, addresses=(("fd02::1/64", "fd02::2/64"),))
    one, two = (Rail(n, None, f"net{n + 1}", f"fd0{n + 1}::1", 6, 64, 1500) for n in (0, 1))
    loop = EventLoop()
    said: list[str] = []
    lost: list[str] = []
    watch = LinkMonitor(loop, (one,), 0.5, said.append, lambda _rail, text: lost.append(text))
    ip("link set net1 down")
    loop.later(0.2, loop.stop)
    loop.run()
    assert [text.partition(";")[0] for text in said] == ["net1 (fd01::1) was set down"]
    watch.follow((two,))
    assert [flap.interface for flap in watch.flaps] == ["net1"]
    ip("address del fd02::1/64 dev net2")
    loop.later(1.0, loop.stop)
    loop.run()
    assert lost == ["net2 (fd02::1) lost its address for more than 0.5 s"]
    # Of no rail the kernel is asked nothing: an agent without descriptors can still rest.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    watch.follow(())
    watch.close()
    assert [flap.interface for flap in watch.flaps] == ["net1", "net2"]
    loop.close()


@isolated
def test_a_kernel_that_does_not_answer_for_a_moment_is_asked_again() -> None:
    cable("net1", "net1", Space(), addresses=(("fd01::1/64", "fd01::2/64"),))
    rail = Rail(0, None, "net1", "fd01::1", 6, 64, 1500)
    loop = EventLoop()
    said: list[str] = []
    lost: list[str] = []
    watch = LinkMonitor(loop, (rail,), 0.5, said.append, lambda _rail, text: lost.append(text))
    ip("link set net1 down")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    loop.later(1.5, loop.stop)  # asked twice, said once
    loop.run()
    (text,) = said
    assert "Too many open files" in text
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    loop.later(2.0, loop.stop)
    loop.run()
    assert lost == ["net1 (fd01::1) was set down for more than 0.5 s"]
    watch.close()
    loop.close()
