"""--measure: a known pattern of traffic between two real nodes, as the receipt tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import receipt, run, script

# Both send BYTES to each other at once, wait, and begin again together: a step.
STEPS = """
    import os, socket, sys, threading, time

    count, size, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    if os.environ["RANK"] == "0":
        peer = socket.create_server(("fcbb:0:800:ffff::1", 20000), family=socket.AF_INET6).accept()[0]
    else:
        for _ in range(600):
            try:
                peer = socket.create_connection(("fcbb:0:800:ffff::1", 20000))
                break
            except OSError:
                time.sleep(0.1)
    block = bytearray(size)
    for _ in range(count):
        sender = threading.Thread(target=peer.sendall, args=(block,))
        sender.start()
        left = size
        while left:
            left -= len(peer.recv(min(left, 1 << 16)))
        sender.join()
        time.sleep(pause)
"""
SIZE = 2_500_000  # 0.2 s at 100 Mbit/s: many samples, also on a busy machine


def test_known_steps_are_told(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    file_of = script(tmp_path, STEPS)
    done = run("--measure", "--rate", "100mbit", "--json", file, file_of, 25, SIZE, 0.2, seconds=60)
    assert done.code == 0, done.stderr
    found = receipt(file)
    measured = found["measured"]
    assert measured["nodes"] == 2
    assert measured["step_bytes"] == pytest.approx(SIZE, rel=0.03)
    for name in ("steps_per_s", "busbw", "peak", "line_share", "step_active_s", "idle_share"):
        assert measured[name] is not None, name
    assert [node["series"] for node in found["nodes"]] == [None, None]
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("measured: ")]
    assert "steps/s of 2.5" in line
    assert line.endswith("of a step")


def test_without_the_switch_nothing_is_sampled(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    done = run("--json", file, script(tmp_path, STEPS), 2, 1000, 0, seconds=60)
    assert done.code == 0, done.stderr
    found = receipt(file)
    assert found["measured"] is None
    assert "measured:" not in done.stderr
    assert [node["series"] for node in found["nodes"]] == [None, None]


def test_a_script_that_sends_nothing_is_said_to(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    done = run("--measure", "--json", file, script(tmp_path, "import time\ntime.sleep(0.3)"), seconds=60)
    assert done.code == 0, done.stderr
    measured = receipt(file)["measured"]
    assert (measured["steps_per_s"], measured["busbw"], measured["idle_share"]) == (None, None, None)
    assert measured["why"]


def test_on_loopback_it_is_said_that_nothing_is_sampled(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    done = run("--measure", "--network", "loopback", "--json", file, script(tmp_path, "pass"), seconds=60)
    assert done.code == 0, done.stderr
    assert receipt(file)["measured"]["busbw"] is None
    assert "loopback has no rails" in done.stderr
