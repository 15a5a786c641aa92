"""The join among real agents: late ones, wrong ones, missing ones, and a rank 0 that is replaced."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.agents import events, in_nodes, run_agent, spec, status, wait
from tests.jobs import script
from tests.rendezvous import connect_and_authenticate
from tests.scripts import ran
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.messages import JoinRequest, encode, encode_row
from torchnet.agent.rendezvous import Endpoint, RendezvousServer
from torchnet.constants import JOIN_PORT
from torchnet.network.address_sources import MultusStatus
from torchnet.network.peer_table import PeerRail, PeerRow

pytestmark = pytest.mark.waits

SCRIPT = """
import os, sys, time
folder, rank = sys.argv[1], os.environ["RANK"]
open(os.path.join(folder, "ran-" + rank + "-" + os.environ["MASTER_ADDR"]), "w").close()
deadline = time.monotonic() + 20
while os.path.exists(os.path.join(folder, "hold")) and time.monotonic() < deadline:
    time.sleep(0.02)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return script(tmp_path, SCRIPT).parent


RANK0 = "fcbb:0:800:ffff::1"


def failure(folder: Path, name: str) -> dict[str, object]:
    (found,) = events(folder, name, "failure")
    return found


def test_nobody_can_join_after_the_start(folder: Path) -> None:
    """The port is free for the script, and a late worker ends with its own timeout."""
    (folder / "hold").touch()

    def late() -> int:
        wait(lambda: len(ran(folder)) == 2)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((RANK0, JOIN_PORT), 5)
        code = run_agent(folder, spec(folder, 1, 2, name="late", start_timeout=2.0), 2)
        (folder / "hold").unlink()
        return code

    codes = in_nodes(
        [
            lambda: run_agent(folder, spec(folder, 0, 2), 0),
            lambda: run_agent(folder, spec(folder, 1, 2), 1),
            late,
        ]
    )
    assert codes == [0, 0, 124]
    said = failure(folder, "late")
    assert "refused" in str(said["text"])
    assert (said["kind"], said["code"], said["node"]) == ("timeout", 124, "late")
    assert not [event for event in events(folder, "node-0", "notice") if event["level"] == "warning"]
    assert ran(folder) == [f"ran-0-{RANK0}", f"ran-1-{RANK0}"]


# Name: what is wrong about the worker that comes second, and what it is told.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "node rank taken": ({}, "node rank 1 is taken by node-1 (fcbb:0:800:ffff::2)"),
    "another run": ({"run_id": "other"}, "it belongs to run other, this is run the-run"),
    "another size": ({"nnodes": 5}, "it was started with --nnodes 5, rank 0 with --nnodes 3"),
}


def test_workers_that_are_not_of_this_job_are_told_and_harm_nobody(folder: Path) -> None:
    def first(rank: int) -> int:
        return run_agent(folder, spec(folder, rank, 3), rank)

    def wrong(number: int, case: str) -> int:
        wait(lambda: any("2/3" in event["text"] for event in events(folder, "node-0", "phase")))
        fields = {"nnodes": 3, "name": f"wrong-{number}", **WRONG[case][0]}
        told = spec(folder, 1, **fields)
        return run_agent(folder, told, 3 + number)

    def last() -> int:
        wait(lambda: all(events(folder, f"wrong-{n}", "end") for n in range(len(WRONG))))
        return run_agent(folder, spec(folder, 2, 3), 2)

    roles = [lambda: first(0), lambda: first(1), last]
    roles += [lambda n=n, case=case: wrong(n, case) for n, case in enumerate(WRONG)]  # type: ignore[misc]
    assert in_nodes(roles) == [0, 0, 0, 4, 4, 4]
    for number, case in enumerate(WRONG):
        text = str(failure(folder, f"wrong-{number}")["text"])
        assert f"rejected wrong-{number}" in text
        assert WRONG[case][1] in text
    assert len(ran(folder)) == 3


def test_a_worker_whose_introduction_cannot_be_read_is_told(folder: Path) -> None:
    roles = [
        lambda: run_agent(folder, spec(folder, 0, 2, start_timeout=4.0), 0),
        lambda: run_agent(folder, spec(folder, 1, 2, name="its name"), 1, log="wrong"),
    ]
    assert in_nodes(roles) == [124, 4]
    said = failure(folder, "wrong")
    assert said["code"] == 4
    text = str(said["text"])
    assert "the worker at fcbb:0:800:ffff::2" in text
    assert "a name that a hosts file cannot contain" in text
    (notice,) = (event for event in events(folder, "node-0", "notice") if event["level"] == "warning")
    assert notice["text"] == text


@pytest.mark.parametrize(
    "introduction",
    [
        {"run": None},
        {"row": 5},
        {"row": "x"},
        {"run": "r", "nnodes": float("inf")},
        {"row": encode_row(PeerRow(1, "odd", "", ())), "run": "r", "nnodes": 2},
    ],
)
def test_whatever_a_worker_says_of_itself_rank_0_goes_on(folder: Path, introduction: dict[str, Any]) -> None:
    def odd() -> int:
        wait(lambda: events(folder, "node-0", "phase"))
        rails = (PeerRail("net1", f"{RANK0[:-1]}3", 1500),)
        request = {**encode(JoinRequest(PeerRow(1, "odd", "", rails), "the-run", 2)), **introduction}
        sock = connect_and_authenticate(
            "the token of the tests", Endpoint(RANK0), request, 5.0, f"{RANK0[:-1]}3"
        )
        answer = sock.recv(4096)
        assert b'"type":"Rejection"' in answer
        assert b"malformed join request" in answer
        (folder / "told").touch()
        return 0

    def last() -> int:
        wait((folder / "told").exists)
        return run_agent(folder, spec(folder, 1, 2), 1)

    assert in_nodes([lambda: run_agent(folder, spec(folder, 0, 2), 0), last, odd]) == [0, 0, 0]


def test_who_is_cut_off_without_a_word_knocks_slower_and_not_for_ever(folder: Path) -> None:
    def rank0() -> int:
        loop, times = EventLoop(), []

        def welcome(sock: socket.socket, _message: dict[str, Any], _rest: bytes) -> None:
            times.append(time.monotonic())
            sock.close()

        RendezvousServer(loop, "the token of the tests", Endpoint(RANK0), welcome)
        loop.every(0.1, lambda: loop.stop() if events(folder, "node-1", "end") else None)
        loop.run()
        return len(times)

    began = time.monotonic()
    knocks, code = in_nodes([rank0, lambda: run_agent(folder, spec(folder, 1, 2, start_timeout=8.0), 1)])
    assert 8 <= time.monotonic() - began < 20
    assert code == 124
    assert 10 <= knocks <= 25
    said = failure(folder, "node-1")
    assert said["kind"] == "timeout"
    (notice,) = (event for event in events(folder, "node-1", "notice") if event["level"] == "warning")
    assert "has not reached rank 0 yet" in notice["text"]


def test_the_same_worker_may_come_again_after_a_broken_connection(folder: Path) -> None:
    """Its first connection ends before all are there; what it left behind does not count as a taken rank."""

    def broken() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(run_agent(folder, spec(folder, 1, 3), 1, log="first"))
        wait(lambda: any("2/3" in event["text"] for event in events(folder, "node-0", "phase")))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        wait(lambda: any("left" in event["text"] for event in events(folder, "node-0", "phase")))
        return run_agent(folder, spec(folder, 1, 3), 1)

    def last() -> int:
        wait(lambda: sum("2/3" in event["text"] for event in events(folder, "node-0", "phase")) == 2)
        return run_agent(folder, spec(folder, 2, 3), 2)

    assert in_nodes([lambda: run_agent(folder, spec(folder, 0, 3), 0), broken, last]) == [0, 0, 0]
    assert len(ran(folder)) == 3


def test_a_wrong_token_is_no_way_in_and_is_told_on_both_sides(folder: Path) -> None:
    roles = [
        lambda: run_agent(folder, spec(folder, 0, 2, start_timeout=4.0), 0),
        lambda: run_agent(folder, spec(folder, 1, 2, start_timeout=3.0, token="another"), 1),
    ]
    assert in_nodes(roles) == [124, 124]
    assert "token" in str(failure(folder, "node-1")["text"])
    text = str(failure(folder, "node-0")["text"])
    assert "1 of 2 workers joined; missing: node rank 1; " in text
    assert text.endswith("connections had a wrong token")
    assert ran(folder) == []


def test_the_start_timeout_names_who_is_missing(folder: Path) -> None:
    roles = [lambda n=n: run_agent(folder, spec(folder, 2 * n, 5, start_timeout=3.0), n) for n in range(2)]
    began = time.monotonic()
    assert in_nodes(roles) == [124, 124]
    assert 3 <= time.monotonic() - began < 15
    assert str(failure(folder, "node-0")["text"]).endswith(
        "2 of 5 workers joined; missing: node rank 1, 3, 4"
    )
    assert failure(folder, "node-0")["kind"] == "timeout"
    assert ran(folder) == []


def test_rank_0_is_looked_up_again_at_each_try(folder: Path) -> None:
    """Its first address belongs to nobody who answers: the pod was replaced meanwhile."""
    asked = 0

    def where() -> str:
        nonlocal asked
        asked += 1
        return status(1) if asked < 3 else status(0)

    source = MultusStatus(status(2), where, spec(folder, 1, 2).attachments)
    roles = [
        lambda: run_agent(folder, spec(folder, 0, 2), 0),
        lambda: 0,
        lambda: run_agent(folder, spec(folder, 1, 2), 2, source),
    ]
    assert in_nodes(roles) == [0, 0, 0]
    assert ran(folder) == [f"ran-0-{RANK0}", f"ran-1-{RANK0}"]


def test_a_rank_0_that_is_replaced_before_the_start_is_joined_anew(folder: Path) -> None:
    new = folder / "new"

    def old() -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(run_agent(folder, spec(folder, 0, 3), 0, log="old"))
        wait(lambda: any("2/3" in event["text"] for event in events(folder, "old", "phase")))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        new.touch()
        return 0

    def replaced() -> int:
        wait(new.exists)
        return run_agent(folder, spec(folder, 0, 3, name="node-0b"), 3)

    def member(rank: int) -> int:
        source = MultusStatus(
            status(rank), lambda: status(3 if new.exists() else 0), spec(folder, 1, 3).attachments
        )
        return run_agent(folder, spec(folder, rank, 3), rank, source)

    def last() -> int:
        wait(lambda: any("2/3" in event["text"] for event in events(folder, "node-0b", "phase")))
        return member(2)

    assert in_nodes([old, lambda: member(1), last, replaced]) == [0, 0, 0, 0]
    address = "fcbb:0:800:ffff::4"
    assert ran(folder) == [f"ran-{rank}-{address}" for rank in range(3)]
    assert any(
        "rank 0 left before the start" in event["text"] for event in events(folder, "node-1", "notice")
    )
    assert events(folder, "node-1", "failure") == []
