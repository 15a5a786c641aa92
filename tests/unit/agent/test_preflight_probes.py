"""What the agent reads of its machine: the process's age, torch's library."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from torchnet.agent import torch_build
from torchnet.agent.phase_timer import PhaseTimer, process_age


@pytest.mark.quiet
def test_a_clock_tells_waiting_from_work() -> None:
    events: list[dict[str, Any]] = []
    clock = PhaseTimer(events.append, age=0.5)
    clock.own()
    clock.done("start")
    time.sleep(0.2)
    burnt = time.process_time() + 0.1
    while time.process_time() < burnt:
        pass
    clock.waited()  # the processor's time was torchnet's all the same
    clock.done("join")
    clock.total()
    clock.done("later")
    clock.total()
    assert [event.get("phase") for event in events] == ["start", "join", None]
    assert events[0]["own_s"] == pytest.approx(0.5, abs=0.1)
    assert 0.19 < events[1]["waited_s"] < 0.4
    assert 0.1 <= events[1]["own_s"] < 0.5
    assert events[2]["own_s"] == events[0]["own_s"] + events[1]["own_s"]


def test_the_start_of_python_counts() -> None:
    code = "from torchnet.agent.phase_timer import process_age; print(process_age())"
    began = time.monotonic()
    words = ["sh", "-c", f"sleep 0.3; exec python3 -c '{code}'"]
    root = Path(__file__).parents[3]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
    assert 0.3 <= float(done.stdout) <= time.monotonic() - began + 0.02
    assert process_age() > 0


def test_libuv_is_looked_for_where_constants_stand(tmp_path: Path) -> None:
    name = b"LibUVStoreDaemon"
    for inside, answer in ((True, True), (False, False)):
        path = tmp_path / f"lib-{inside}.so"
        path.write_bytes(elf(b"..." + name if inside else b"nothing") + name)
        assert torch_build.contains(str(path)) is answer
    (tmp_path / "short.so").write_bytes(b"\x7fELF\x02\x01" + bytes(20) + name)
    assert torch_build.contains(str(tmp_path / "short.so")) is True  # all of it, where no section is found
    (tmp_path / "empty.so").touch()
    assert torch_build.contains(str(tmp_path / "empty.so")) is None


def elf(constants: bytes) -> bytes:
    """A little library: its section .rodata, and the names of sections."""
    import struct

    names = b"\0.rodata\0.shstrtab\0"
    body = constants + names
    table = 64 + len(body)
    head = (
        b"\x7fELF\x02\x01" + bytes(34) + struct.pack("<Q", table) + bytes(10) + struct.pack("<HHH", 64, 3, 2)
    )
    sections = bytes(64)
    for label, offset, length in ((1, 64, len(constants)), (9, 64 + len(constants), len(names))):
        sections += struct.pack("<IIQQQQ", label, 1, 0, 0, offset, length) + bytes(24)
    return head + body + sections
