"""A pod's log: lines into events, and reading on after a break without doubling or leaving out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import torchnet.agent
from torchnet.agent.log_reporter import LogReporter
from torchnet.k8s.run.log_parser import Resume, StampedLine, event, stamped


def written(*events: dict[str, Any]) -> list[str]:
    """What the agent's own reporter writes of these events."""
    out: list[str] = []
    reporter = LogReporter(lambda _, text: out.append(text), clock=lambda: 100.0)
    for one in events:
        reporter.send(one)
    return "".join(out).splitlines()


@given(
    st.integers(0, 9999), st.sampled_from(["stdout", "stderr"]), st.text(max_size=60).filter(str.isprintable)
)
def test_output_comes_back_as_it_was(rank: int, stream: str, text: str) -> None:
    sent = {"event": "output", "rank": rank, "stream": stream, "data": text, "end": "\n"}
    assert [event(line, 0, "run-0") for line in written(sent)] == [sent]


@given(st.text(max_size=200))
def test_a_script_cannot_speak_as_torchnet(text: str) -> None:
    lines = written({"event": "output", "rank": 3, "stream": "stdout", "data": text, "end": "\n"})
    assert {event(line, 0, "run-0")["event"] for line in lines} == {"output"}


def test_each_phase_that_an_agent_tells_comes_back() -> None:
    sources = "".join(path.read_text() for path in Path(torchnet.agent.__path__[0]).glob("*.py"))
    told = re.findall(r'\._report_phase\(\s*"(\w+)"', sources)
    assert len(told) == sources.count("._report_phase(") > 0
    for name in set(told):
        phase = {"event": "phase", "node": 0, "phase": name, "text": "4/4 joined"}
        assert [event(line, 0, "r-0") for line in written(phase)] == [phase]


def test_torchnets_own_lines() -> None:
    receipt = {"event": "receipt", "receipt": {"schema": "torchnet.receipt/1"}}
    assert [event(line, 0, "r-0") for line in written(receipt)] == [receipt]
    time = {"event": "time", "phase": "join", "own_s": 0.012, "waited_s": 1.5}
    assert [event(line, 0, "r-0")["event"] for line in written(time)] == ["time"]
    assert event("torchnet: receipt: {broken", 0, "r-0")["event"] == "notice"
    assert event("Segmentation fault", 0, "r-0")["text"] == "r-0: Segmentation fault"


@given(st.binary(max_size=80))
def test_any_bytes_are_a_line(data: bytes) -> None:
    found = stamped(data.replace(b"\n", b""))
    assert isinstance(event(found.text, 0, "r-0"), dict)


@st.composite
def logs(draw: st.DrawFn) -> list[StampedLine]:
    """A log's lines: stamps rise, several may be the same."""
    second, nano, found = 0, 0, []
    for number in range(draw(st.integers(0, 30))):
        step = draw(st.sampled_from([0, 0, 1, 500_000_000, 1_700_000_000]))
        nano += step
        second, nano = second + nano // 1_000_000_000, nano % 1_000_000_000
        found.append(
            StampedLine(f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.{nano:09d}Z", f"line {number}")
        )
    return found


@given(logs(), st.lists(st.integers(0, 30), max_size=6))
def test_a_log_read_in_pieces_is_the_log(log: list[StampedLine], cuts: list[int]) -> None:
    resume, taken = Resume(), []
    for reached in [*sorted(min(cut, len(log)) for cut in cuts), len(log)]:
        resume.again()
        since = resume.since or ""
        # The API reads on from whole seconds.
        for line in (one for one in log[:reached] if one.stamp[:19] + "Z" >= since):
            if resume.take(line):
                taken.append(line)
            assert resume.gap is None
    assert taken == log


def test_a_rotated_log_has_a_gap_that_is_named() -> None:
    resume = Resume()
    first = StampedLine("2026-01-01T00:00:01.000000000Z", "one")
    assert resume.take(first)
    resume.again()
    later = StampedLine("2026-01-01T00:00:09.000000000Z", "nine")
    assert resume.take(later)
    assert resume.gap == (first.stamp, later.stamp)
    assert resume.take(StampedLine("2026-01-01T00:00:09.500000000Z", "ten"))
    assert resume.gap is None


@pytest.mark.parametrize("text", ["[3] a", "[3]a", "[3!] a"])
def test_the_space_behind_the_rank_is_the_agents(text: str) -> None:
    assert event(text, 0, "r-0")["data"] == "a"
