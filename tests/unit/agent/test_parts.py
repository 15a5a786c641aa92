"""Small pure parts of the agent: what it is told, streams, the look at torch's library, probes."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchnet.agent import preflight, torch_build
from torchnet.agent import preflight as preflight_module
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.heartbeat import heartbeat_seconds, idle_silence_seconds, silence_seconds
from torchnet.agent.preflight import Preflight, wrong_route
from torchnet.agent.rank_logs import streams
from torchnet.agent.spec import AgentSpec
from torchnet.agent.worker_processes import with_site
from torchnet.hosts.tcp_paths import TcpPaths
from torchnet.linux import rtnetlink
from torchnet.linux.netlink import Netlink
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Rail
from torchnet.network.path_diagnosis import LinkType, PathView
from torchnet.network.peer_table import PeerRail, PeerRow, PeerTable


def spec(**fields: Any) -> AgentSpec:
    return AgentSpec(**{**REQUIRED, **fields})


REQUIRED: dict[str, Any] = {
    "run_id": "r",
    "nnodes": 3,
    "nproc_per_node": 2,
    "command": ("train.py", "--lr", "0.1"),
}
WORDS = st.text(max_size=10)
TUPLES = st.lists(WORDS, max_size=3).map(tuple)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "command": TUPLES,
            "attachments": st.lists(st.builds(NetworkAttachment, WORDS, WORDS, WORDS, WORDS), max_size=3).map(
                tuple
            ),
            "env": st.dictionaries(WORDS, WORDS, max_size=3),
            "min_share": st.none() | st.floats(0, 1),
            "stdin_rank": st.none() | st.integers(0, 9),
            "loopback": st.booleans(),
            "entry": st.sampled_from(["script", "module", "program"]),
        },
    )
)
def test_the_jobs_document_is_read_back(fields: dict[str, Any]) -> None:
    told = spec(**fields)
    assert AgentSpec.loads(told.dumps()) == told


def test_the_document_has_nothing_of_a_single_worker() -> None:
    worker = spec(node_rank=1, name="node-1", token="secret", gpus=("0",), uid="u", state="/s", phase="work")
    assert worker.dumps() == spec().dumps()
    assert AgentSpec.loads(spec().dumps()[:-1] + ', "token": "secret"}') == spec()


def test_fields_of_a_newer_launcher_are_ignored_and_nonsense_is_refused() -> None:
    newer = spec().dumps()[:-1] + ', "invented": [1]}'
    assert AgentSpec.loads(newer) == spec()
    for text in ("", "[]", '{"run_id": "r"}', "nonsense"):
        with pytest.raises((ValueError, TypeError)):
            AgentSpec.loads(text)


def test_ranks_of_a_worker() -> None:
    assert (list(spec(node_rank=1).ranks), spec().world_size) == ([2, 3], 6)


STREAMS = {
    ("0", 2): set(),
    ("", 2): set(),
    ("1", 2): {"stdout"},
    ("2", 2): {"stderr"},
    ("3", 3): {"stdout", "stderr"},
    ("0:1,1:3", 2): {"stdout"},
    ("0:1,1:3", 3): {"stdout", "stderr"},
    ("1:2", 2): set(),
}


@pytest.mark.parametrize(("value", "rank"), STREAMS)
def test_streams_as_torchrun_writes_them(value: str, rank: int) -> None:
    assert streams(value, rank - spec(node_rank=1).ranks[0]) == STREAMS[value, rank]


def test_the_site_folder_comes_first_and_keeps_the_users_path() -> None:
    site, *rest = with_site({"PYTHONPATH": "/a:/b", "X": "1"})["PYTHONPATH"].split(os.pathsep)
    assert os.listdir(site).count("sitecustomize.py") == 1
    assert rest == ["/a", "/b"]
    assert with_site({})["PYTHONPATH"] == site
    assert with_site({"X": "1"})["X"] == "1"


def test_a_library_without_libuv_is_told_from_one_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "with").write_bytes(b"\0" * 5000 + b"xxLibUVStoreDaemonxx" + b"\0" * 5000)
    (tmp_path / "without").write_bytes(b"\0LibUVStore" * 1000)
    (tmp_path / "empty").write_bytes(b"")
    found = [
        torch_build.contains(str(tmp_path / name)) for name in ("with", "without", "empty", "missing", ".")
    ]
    assert found == [True, False, None, None, None]


def test_the_installed_torch_is_probed_without_importing_it() -> None:
    where = importlib.util.find_spec("torch")
    if where is None:
        pytest.skip("torch is not installed")
    library = Path(where.submodule_search_locations[0]) / torch_build._LIBRARY  # type: ignore[index]
    mentions = subprocess.run(["grep", "-q", "LibUVStoreDaemon", library], check=False).returncode == 0
    assert torch_build.contains(str(library)) is torch_build.probe() is mentions


def rail(**fields: Any) -> Rail:
    return Rail(**{**vars(Rail(0, None, "lo", "127.0.0.1", 4, 8, 65536)), **fields})


def test_probes_are_signed_and_as_large_as_the_mtu() -> None:
    key = b"k" * 32
    loop = EventLoop()
    one = Preflight(loop, key, (rail(),), port=0, loopback=True)
    try:
        packet = one._packet(preflight._PROBE, 0, 77, 8952)
        assert len(packet) == 8952
        assert packet[preflight._HEAD.size :][: preflight._TAG] == one._tag(packet)
        for place in range(preflight._HEAD.size):
            changed = packet[:place] + bytes([packet[place] ^ 1]) + packet[place + 1 :]
            assert one._tag(changed) != one._tag(packet)
        assert b"k" * 32 not in packet
    finally:
        one.close()
        loop.close()


@pytest.mark.parametrize(
    ("is_on_hosts", "what"), [(False, "a MAC filter"), (True, "a firewall that drops UDP and TCP port 0")]
)
def test_unanswered_probes_are_judged_with_both_ends_and_a_fix(is_on_hosts: bool, what: str) -> None:
    loop = EventLoop()
    tcp = TcpPaths(loop, b"k", (), 0) if is_on_hosts else None
    one = Preflight(loop, b"k", (rail(),), port=0, loopback=True, tcp=tcp)
    rows = tuple(
        PeerRow(n, f"node-{n}", f"u{n}", (PeerRail("lo", f"127.0.0.{n + 1}", 65536),)) for n in range(4)
    )
    try:
        one._probes = [
            preflight._Probe(1, 0, answered=True),
            preflight._Probe(2, 0, narrow=True),
            preflight._Probe(3, 0),
        ]
        narrow, away = one._problems(PeerTable(rows), 0)
        assert narrow.startswith(
            "node-0 lo to node-2 (127.0.0.3): reached at 576 bytes, not at the full 65536"
        )
        assert "fix: raise the MTU" in narrow
        assert away.startswith("node-0 lo to node-3 (127.0.0.4): not reached from 127.0.0.1 within")
        assert f"fix: ping -I lo 127.0.0.4 on node-0; check the switch, {what}, and" in away
    finally:
        one.close()
        loop.close()


def test_the_view_has_what_was_silent_and_who_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 has no answer of ranks 2 and 3; 3 has sent a probe of its own before it went."""
    monkeypatch.setattr(rtnetlink, "link_types", lambda: {"lo": ("ipvlan", "l3")})
    addresses = [f"127.77.0.{n + 1}" for n in range(4)]
    table = PeerTable(
        tuple(
            PeerRow(n, f"node-{n}", f"u{n}", (PeerRail("lo", address, 1500),))
            for n, address in enumerate(addresses)
        )
    )
    loop = EventLoop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((addresses[0], 0))
        port = free.getsockname()[1]
    zero, one, three = (
        Preflight(loop, b"k", (rail(address=addresses[rank], mtu=1500),), port=port, loopback=True)
        for rank in (0, 1, 3)
    )

    def view_of(*peers: int) -> PathView | None:
        zero.check(table, 0, peers, lambda _: None)
        loop.later(0.1, loop.stop)
        loop.run()
        return zero.view("n")

    try:
        assert view_of(1, 3) is None
        for rank, each in ((1, one), (3, three)):
            each.check(table, rank, (0,), lambda _: None)
        three.close()
        silent, heard = ((2, 0), (3, 0)), ((1, 0), (3, 0))
        assert view_of(1, 2, 3) == PathView("n", (LinkType("ipvlan", "l3", 8),), silent, heard)
        monkeypatch.setattr(preflight_module, "MOST_PATHS", 1)
        assert zero.view("n") == PathView("n", (LinkType("ipvlan", "l3", 8),), silent[:1], heard[:1])
    finally:
        for each in (zero, one, three):
            each.close()
        loop.close()


def test_a_route_through_another_interface_is_told_with_the_command_that_mends_it() -> None:
    wrong = rail(interface="net1", address="10.0.0.1")
    text = wrong_route("node-0", "node-1", wrong, "127.0.0.1")
    assert text.startswith(
        "node-0 to node-1 (127.0.0.1): the route leaves through lo with source 127.0.0.1, not"
    )
    assert text.endswith("fix: ip route replace 127.0.0.1 dev net1 src 10.0.0.1")
    assert wrong_route("node-0", "node-1", rail(), "127.0.0.1") == ""


def test_no_command_leads_the_address_of_another_network_to_a_rail_of_a_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be the frontend's. A pod may be in another range than its peers."""
    route = rtnetlink.Route("eth0", "10.1.0.1", False)
    monkeypatch.setattr(rtnetlink, "route", lambda *_args, **_named: route)
    loop = EventLoop()
    for address, is_on_hosts, command in (
        ("127.0.0.2", False, True),
        ("127.0.0.2", True, True),
        ("127.0.1.2", False, True),
        ("127.0.1.2", True, False),
    ):
        tcp = TcpPaths(loop, b"k", (), 0) if is_on_hosts else None
        one = Preflight(loop, b"k", (rail(prefix=24),), port=0, tcp=tcp)
        rails = (PeerRail("lo", "127.0.0.1", 65536),), (PeerRail("lo", address, 65536),)
        rows = tuple(PeerRow(n, f"node-{n}", f"u{n}", rails[n]) for n in range(2))
        found: list[str] = []
        one.check(PeerTable(rows), 0, (1,), found.extend)
        one.close()
        (text,) = found
        assert f"node-0 to node-1 ({address}): the route leaves through eth0" in text
        assert (f"fix: ip route replace {address} dev lo" in text) == command
        assert ("fix: name one network for all hosts" in text) != command
    loop.close()


def test_the_routes_to_many_that_join_are_looked_up_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real, looked_up, opened = rtnetlink.route, [], []
    wrong: set[str] = set()

    def route(to: str, *rest: Any, **options: Any) -> rtnetlink.Route:
        looked_up.append(to)
        return real(to, *rest, **options) if to not in wrong else rtnetlink.Route("eth9", "10.1.1.1", True)

    def netlink() -> Netlink:
        opened.append(1)
        return Netlink()

    monkeypatch.setattr(rtnetlink, "route", route)
    monkeypatch.setattr(preflight, "Netlink", netlink)
    routes = preflight.ReplyRoutes("node-0", rail())
    waiting = [f"127.0.1.{n}" for n in range(1, 101)]
    assert routes.problem([]) == ""
    for call in range(1, 8):
        assert routes.problem(waiting + waiting) == ""
        assert len(looked_up) == min(16 * call, 100)
    assert (sorted(looked_up), len(opened)) == (sorted(waiting), 7)
    assert routes.problem(waiting) == ""
    wrong.add("127.0.1.99")  # the last in order; routes are looked up again
    assert any("(127.0.1.99): the route leaves through eth9" in routes.problem(waiting) for _ in range(7))


@pytest.mark.parametrize(("nnodes", "seconds"), [(2, 1.0), (500, 1.0), (1000, 2.0), (10_000, 5.0)])
def test_heartbeats_are_rarer_in_large_jobs_and_three_may_be_missed(nnodes: int, seconds: float) -> None:
    assert heartbeat_seconds(nnodes) == seconds
    assert silence_seconds(5.0, nnodes) == 10.0 + 3 * seconds
    assert idle_silence_seconds(nnodes) > 3 * seconds
