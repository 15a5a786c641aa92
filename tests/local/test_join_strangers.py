"""Strangers at the join's door (fault 26): silent, garbage, a wrong token, 1,000 of them at once."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.agents import events, in_nodes, run_agent, spec, wait
from tests.jobs import script
from tests.namespaces import isolated
from tests.scripts import ran
from torchnet import constants
from torchnet.agent import handshake, rendezvous
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.framed_socket import pack
from torchnet.agent.rendezvous import MAX_UNAUTHENTICATED, Endpoint, RendezvousServer
from torchnet.launcher import loopback_source

pytestmark = pytest.mark.waits

WORKERS = 8
RANK0 = "fcbb:0:800:ffff::1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = "import os, sys\nopen(os.path.join(sys.argv[1], 'ran-' + os.environ['RANK']), 'w').close()\n"
    return script(tmp_path, text).parent


def bother(kind: int) -> socket.socket:
    """One stranger, who has done its worst and keeps the connection."""
    sock = socket.create_connection((RANK0, constants.JOIN_PORT), 20)
    if kind == 1:
        sock.sendall(os.urandom(3000))
    elif kind == 2:
        challenge = sock.recv(handshake.CHALLENGE_BYTES, socket.MSG_WAITALL)
        signed, _ = handshake.answer_challenge(
            "wrong", challenge, {"row": "", "run": "the-run", "nnodes": WORKERS}
        )
        sock.sendall(pack(signed))
    elif kind == 3:
        sock.sendall(struct.pack("!I", 1 << 31) + b"{" * 100)
    elif kind == 4:
        sock.sendall(pack({"nonce": 5, "message": ["x"], "proof": None}) + b"GET / HTTP/1.1\r\n\r\n")
    return sock  # kind 0 is silent


def test_a_thousand_strangers_do_not_harm_a_join(folder: Path) -> None:
    def stranger() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        wait(lambda: events(folder, "node-0", "phase"))
        kept = []
        for number in range(1000):
            with contextlib.suppress(ConnectionError):
                kept.append(bother(number % 5))
        (folder / "there").touch()
        wait(lambda: events(folder, "node-0", "end"))
        return len(kept) != 1000

    def worker(rank: int) -> int:
        if rank:
            wait((folder / "there").exists)
        return run_agent(folder, spec(folder, rank, WORKERS), rank)

    roles = [lambda n=n: worker(n) for n in range(WORKERS)]
    assert in_nodes([*roles, stranger]) == [0] * (WORKERS + 1)
    assert len(ran(folder)) == WORKERS
    phases = [event["text"] for event in events(folder, "node-0", "phase")]
    assert f"{WORKERS}/{WORKERS} joined" in phases
    assert not any(" left:" in text for text in phases)
    assert not [event for event in events(folder, "node-0", "notice") if event["level"] != "info"]
    joined = next(
        e["at"] for e in events(folder, "node-0", "phase") if e["text"] == f"{WORKERS}/{WORKERS} joined"
    )
    knocked = max(events(folder, f"node-{n}", "row")[0]["at"] for n in range(WORKERS))
    assert joined - knocked < 5


@isolated
def test_a_stranger_costs_a_descriptor_for_a_few_seconds_only() -> None:
    rendezvous._HANDSHAKE_SECONDS = 1.5  # of 10; in this process alone
    loop = EventLoop()
    welcomed: list[object] = []
    listening = RendezvousServer(
        loop, "token", Endpoint("127.0.0.1"), lambda *arguments: welcomed.append(arguments)
    )
    counts = [len(os.listdir("/proc/self/fd"))]
    loop.every(0.05, lambda: counts.append(len(os.listdir("/proc/self/fd"))))
    pid = os.fork()
    if pid == 0:
        quiet = [
            socket.create_connection(("127.0.0.1", constants.JOIN_PORT))
            for _ in range(MAX_UNAUTHENTICATED + 100)
        ]
        before = time.monotonic()
        first = quiet[0].recv(1000)  # the challenge
        assert len(first) == handshake.CHALLENGE_BYTES
        assert time.monotonic() - before < 0.7
        assert quiet[0].recv(1000) == b""  # a second later, the oldest makes room
        assert 0.7 < time.monotonic() - before < 1.5
        assert len(quiet[-1].recv(1000)) == handshake.CHALLENGE_BYTES
        assert quiet[-1].recv(1000) == b""  # and then its time is over
        os._exit(0 if 2 < time.monotonic() - before < 5 else 1)
    loop.later(4, loop.stop)
    loop.run()
    assert os.waitpid(pid, 0)[1] == 0
    assert MAX_UNAUTHENTICATED <= max(counts) - counts[0] <= MAX_UNAUTHENTICATED + 2
    assert counts[-1] == counts[0]
    assert welcomed == []
    assert listening.wrong_tokens == 0
    listening.close()
    assert len(os.listdir("/proc/self/fd")) == counts[-1] - 1
    loop.close()


@isolated
def test_the_token_never_goes_over_the_wire(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A whole job on lo, with everything that passes there recorded."""
    folder = tmp_path_factory.mktemp("wire")
    (folder / "script.py").write_text("")
    record = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
    record.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    record.settimeout(0.5)
    token = "a-Token-of-the-job-7f3a"
    children = []
    for rank in range(2):
        pid = os.fork()
        if pid == 0:
            told = spec(
                folder, rank, 2, loopback=True, token=token, run_id="run-that-is-seen", attachments=()
            )
            os._exit(run_agent(folder, told, rank, loopback_source.LoopbackSource(rank)))
        children.append(pid)
    seen = b""
    codes: list[int] = []
    while True:
        try:
            seen += record.recv(1 << 17)
        except TimeoutError:
            if len(codes) == len(children):
                break
            codes = [os.waitpid(pid, 0)[1] for pid in children]
    assert codes == [0, 0]
    hidden = (token.encode(), token.encode().hex().encode(), json.dumps(token).encode()[1:-1])
    assert handshake.MAGIC in seen
    assert b"run-that-is-seen" in seen  # what is not secret is recorded in clear
    assert not any(text in seen for text in hidden)
