"""A job that lives but does not move: noticed by its bytes, explained by its stacks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from torchnet.agent.spec import AgentSpec

# Fewer bytes than this for each worker within the time-out: polls of the store go on while a job hangs.
_STILL_BYTES = 1024
_ANSWER_SECONDS = 3.0
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)$')
_TORCH = re.compile(r"[/\\]torch[/\\](distributed|nn|autograd|_tensor)")
_SHOWN_FRAMES = 12


class StallWatch:
    """Rank 0's watch over all workers' traffic.  ``ask`` is called when nothing has moved for ``stall_timeout``."""

    def __init__(self, spec: AgentSpec, ask: Callable[[], None]) -> None:
        self._spec = spec
        self._ask = ask
        self._bytes: dict[int, int] = {}
        self._mark = (time.monotonic(), 0)
        self._members: set[int] = set()
        self._answers: dict[int, dict[str, Any]] = {}
        self._asked = 0.0
        self._reported = False

    def begin(self, members: int) -> None:
        """All processes start now."""
        self._members = set(range(members))
        self._mark = (time.monotonic(), sum(self._bytes.values()))
        self._asked, self._reported = 0.0, False

    def gone(self, node_rank: int) -> None:
        """A worker whose processes have all ended well."""
        self._members.discard(node_rank)

    def beat(self, node_rank: int, message: dict[str, Any]) -> None:
        self._bytes[node_rank] = max(self._bytes.get(node_rank, 0), int(message.get("bytes", 0)))
        if message.get("frozen"):  # stopped by Ctrl-Z: that is no stall
            self._mark = (time.monotonic(), sum(self._bytes.values()))

    def tick(self) -> None:
        """Once a second."""
        if self._spec.stall_timeout <= 0 or self._spec.nnodes < 2 or not self._members:
            return
        now, total = time.monotonic(), sum(self._bytes.values())
        if total - self._mark[1] >= _STILL_BYTES * self._spec.nnodes:
            self._mark = (now, total)
            self._reported = False
        elif now - self._mark[0] >= self._spec.stall_timeout and not self._reported:
            self._reported = True
            self._asked = now
            self._answers = {}
            self._ask()

    def stacks(self, node_rank: int, message: dict[str, Any]) -> str:
        """A worker's answer; the report, once all that can have answered."""
        if not self._asked:
            return ""
        self._answers[node_rank] = message
        if not self._members <= self._answers.keys():
            return ""
        self._asked = 0.0
        return explain(time.monotonic() - self._mark[0], self._answers)


def explain(seconds: float, answers: dict[int, dict[str, Any]]) -> str:
    """The report: one sentence on who waits for whom, each path that is stuck, each rank's stack."""
    places: dict[int, tuple[str, bool]] = {}
    stacks: list[str] = []
    stuck: list[str] = []
    for answer in answers.values():
        for rank, text in sorted((int(rank), text) for rank, text in answer.get("stacks", {}).items()):
            frames = main_thread(text)
            places[rank] = place(frames)
            stacks.append(f"rank {rank}: " + ("no Python stack to be had" if not frames else ""))
            stacks += [f"    {frame}" for frame in frames[:_SHOWN_FRAMES]]
        stuck += answer.get("stuck", [])
    waiting = sorted(rank for rank, (_, inside) in places.items() if inside)
    elsewhere = sorted(rank for rank, (_, inside) in places.items() if not inside)
    lines = [f"stalled: almost nothing passed between the workers for {seconds:.0f} s, while all processes live"]
    if waiting and elsewhere:
        where = ", ".join(f"rank {rank} at {places[rank][0]}" for rank in elsewhere[:4])
        lines.append(f"ranks {_list(waiting)} wait in {places[waiting[0]][0]} for {where}")
    elif waiting:
        lines.append(f"all ranks wait for each other: {_list(waiting)} in {places[waiting[0]][0]}")
    elif elsewhere:
        lines.append("no rank waits for another: " + ", ".join(f"rank {r} at {places[r][0]}" for r in elsewhere[:4]))
    lines += stuck
    return "\n".join(lines + stacks)


def main_thread(text: str) -> list[str]:
    """The main thread's frames of a faulthandler dump, innermost first: it is the last thread listed."""
    thread = re.split(r"^(?:Current thread|Thread) .*$", text, flags=re.MULTILINE)[-1]
    return [line.strip() for line in thread.splitlines() if _FRAME.match(line)]


def place(frames: list[str]) -> tuple[str, bool]:
    """Where a rank is, as "FUNCTION (FILE:LINE)" of the user's own code, and whether it waits inside of torch."""
    inside = ""
    for frame in frames:
        match = _FRAME.match(frame)
        assert match is not None
        if _TORCH.search(match["file"]):
            if "wrapper" not in match["function"]:
                inside = match["function"]
            inside = inside or match["function"]
            continue
        spot = f"{match['file'].rpartition('/')[2]}:{match['line']}"
        return (f"{inside} ({spot})", True) if inside else (f"{spot} in {match['function']}", False)
    return inside or "an unknown place", bool(inside)


def _list(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
