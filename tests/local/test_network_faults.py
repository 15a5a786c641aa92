"""Faults while the job runs: a rail that goes is named at once, a short flap is survived, lost packets are a stall."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import Job, receipt, script
from tests.scripts import TALK

AT = 3  # seconds after the nodes exist: by then the script runs, also on a busy machine


class Talk:
    """A job that exchanges bytes all the time, with faults."""

    def __init__(self, folder: Path, seconds: float, *arguments: str) -> None:
        self.file, self.json = folder / "last", folder / "receipt.json"
        words = ["--start-timeout", "30", "--json", self.json, *arguments, script(folder, TALK)]
        self.job = Job(*words, seconds, self.file)

    def last(self) -> float:
        """When (monotonic) the ranks last heard from each other."""
        return float(self.file.read_text())

    def receipt(self) -> dict[str, Any]:
        return receipt(self.json)


def test_a_flap_of_two_seconds_is_survived_and_stands_in_the_receipt(tmp_path: Path) -> None:
    # It goes on for longer than the grace would have lasted, had nobody noticed the return.
    talk = Talk(tmp_path, AT + 4, "--link-grace", "3", "--fault", f"node-1:net1:no-carrier@{AT}+2")
    with talk.job as job:
        job.wait_for(r"net1 \(fcbb:0:800:ffff::2\) lost its carrier; .* within 3 s")
        job.wait_for(r"net1 .* after [2-4]\.\d s")
        ended = job.finish()
    assert ended.code == 0, ended.stderr
    assert ended.stdout.endswith("done\n")
    here, there = talk.receipt()["nodes"]
    assert here["flaps"] == []
    (flap,) = there["flaps"]
    assert flap["interface"] == "net1"
    assert 1.9 < flap["duration_s"] < 3.5
    assert 0 < flap["at_s"] < AT
    assert talk.receipt()["proof"] == "measured"


GONE = {"no-carrier": "lost its carrier", "down": "was set down", "no-address": "lost its address"}


GONE_FROM = [("no-carrier", 0), ("no-carrier", 1), ("down", 1), ("no-address", 1)]


def test_a_rail_that_stays_away_stops_the_job(tmp_path: Path) -> None:
    with ExitStack() as stack:
        talks = {}
        for kind, node in GONE_FROM:  # at the same time: they mostly wait
            folder = tmp_path / f"{kind}-{node}"
            folder.mkdir()
            talks[kind, node] = Talk(
                folder, 100, "--link-grace", "1", "--fault", f"node-{node}:net1:{kind}@{AT}"
            )
            stack.enter_context(talks[kind, node].job)
        for (kind, node), talk in talks.items():
            _check_stopped(talk, node, GONE[kind])


def _check_stopped(talk: Talk, node: int, reason: str) -> None:
    address = f"fcbb:0:800:ffff::{node + 1}"
    talk.job.wait_for("talking", on="stdout")
    named = talk.job.wait_for(re.escape(f"net1 ({address}) {reason}"))
    ended = talk.job.finish()
    assert ended.code == 4, ended.stderr
    assert re.search(rf"root cause: node-{node}: net1 \({address}\) {reason} for more than 1 s", ended.stderr)
    assert named - talk.last() < 5
    assert "done" not in ended.stdout
    found = talk.receipt()
    assert found["exit_code"] == 4
    assert found["failure"]["kind"] == "network"
    assert found["failure"]["node"] == f"node-{node}"
    assert found["duration_s"] < AT + 10  # the grace, the scripts' own end and the receipts included


def test_lost_packets_are_a_stall_and_stop_the_job_where_that_was_asked_for(tmp_path: Path) -> None:
    stall = ("--stall-timeout", "3", "--stall-action", "stop")
    talk = Talk(tmp_path, 100, *stall, "--fault", f"node-1:net1:lossy@{AT}")
    with talk.job as job:
        job.wait_for("talking", on="stdout")
        told = job.wait_for("stalled: .* for [3-7] s")
        ended = job.finish()
    assert ended.code == 124, ended.stderr
    # Up to 2 s until it is sure, and 3 s for the stacks of those that can still be asked.
    assert 3 <= told - talk.last() < 3 + 2 + 3 + 3
    assert "node rank 1: the agent does not respond" in ended.stderr
    assert re.search(r"node-0: \d+ packets to node-1 over net1 are unacknowledged", ended.stderr)
    assert re.search(r"rank 0:\n.*script.py\", line \d+ in <module>", ended.stderr)
    assert talk.receipt()["failure"]["kind"] == "timeout"
    assert time.monotonic() - talk.last() < 30


def test_both_rails_carry_bytes(tmp_path: Path) -> None:
    text = """
        import os, socket, time
        print(os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"], flush=True)
        if os.environ["RANK"] == "0":
            server = socket.create_server(("::", 7000), family=socket.AF_INET6)
            for _ in range(2):
                connection, _ = server.accept()
                count = 0
                while data := connection.recv(1 << 16):
                    count += len(data)
                print(connection.getsockname()[0], count, flush=True)
        else:
            for name, count in (("node-0", 3_000_000), ("node-0-rail2", 2_000_000)):
                for _ in range(200):
                    try:
                        connection = socket.create_connection((name, 7000))
                        break
                    except ConnectionRefusedError:
                        time.sleep(0.05)
                connection.sendall(bytes(count))
                connection.close()
    """
    file = tmp_path / "receipt.json"
    with Job("--rails", "2", "--json", file, script(tmp_path, text)) as job:
        ended = job.finish()
    assert ended.code == 0, ended.stderr
    assert ended.stdout.count("net1,net2 =net1,net2") == 2
    assert "fcbb:0:800:ffff::1 3000000" in ended.stdout
    assert "fcbb:0:800:fffe::1 2000000" in ended.stdout
    found = receipt(file)
    # Each rail's bytes are seen at both of its ends; the ends of the connections count for little.
    sizes = {rail["interface"]: rail["peer_bytes"] for rail in found["rails"]}
    assert sizes == {"net1": pytest.approx(6_000_000, abs=4), "net2": pytest.approx(4_000_000, abs=4)}
    assert found["backend_share"] == 1
    assert found["findings"] == []
    for node in found["nodes"]:
        carried = {
            name: one["sent_bytes"] + one["received_bytes"] for name, one in node["interfaces"].items()
        }
        # With the headers, and with as many acknowledgements as a slow reader makes; a rail that carried
        # the other's bytes would be off by two or three million.
        assert 3_000_000 < carried["net1"] < 3_500_000
        assert 2_000_000 < carried["net2"] < 2_500_000
