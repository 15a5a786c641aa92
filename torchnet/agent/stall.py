"""Detect a stalled job by its progress, and explain it by its stacks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from torchnet.agent.messages import Heartbeat, Stacks
from torchnet.agent.spec import AgentSpec
from torchnet.text import listed_ranks

_ANSWER_SECONDS = 3.0
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>.*)$')
_TORCH = re.compile(r"[/\\]torch[/\\](distributed|nn|autograd|_tensor)")
_SHOWN_FRAMES = 12
_SHOWN_WORKERS = 8


class StallWatch:
    """Rank 0's watch over all workers' progress. On loopback, bytes are not counted, so there is no watch.

    A job whose ranks wait for the reader of their output is not stalled: it continues with its reader. A job that
    exchanges very little data may be well, because it only needs small collectives; this is reported once, and does not
    stop the job. Neither does a report while workers may exchange data that is not counted.

    Args:
        request_stacks: called when no worker has made progress for ``stall_timeout``.
        report: called with the explanation, and whether it is reason enough to stop, after the answers or a timeout.
        report_blocked: called instead, with a text, if ranks wait for the reader of their output.
    """

    def __init__(
        self,
        spec: AgentSpec,
        request_stacks: Callable[[], None],
        report: Callable[[str, bool], None],
        report_blocked: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._request_stacks = request_stacks
        self._report = report
        self._report_blocked = report_blocked
        self._clock = clock
        self._last: dict[int, Heartbeat] = {}
        self._progress_at = self._moved_at = self._clock()
        self._members: set[int] = set()
        self._answers: dict[int, Stacks] = {}
        self._requested_at = 0.0
        self._reported = self._slow_reported = False

    def begin(self, members: int) -> None:
        """Start watching, as all processes start."""
        self._members = set(range(members))
        self._restart()

    def _restart(self) -> None:
        """Begin a new period without progress."""
        self._progress_at = self._moved_at = self._clock()
        self._requested_at, self._reported = 0.0, False

    def forget(self, node_rank: int) -> None:
        """Ignore a worker whose processes have ended with exit code 0."""
        self._members.discard(node_rank)

    def receive_heartbeat(self, node_rank: int, heartbeat: Heartbeat) -> None:
        last = self._last.get(node_rank, Heartbeat())
        self._last[node_rank] = heartbeat
        if heartbeat.frozen:  # stopped by Ctrl-Z, not stalled
            self._progress_at = self._moved_at = self._clock()
        elif heartbeat.progress > last.progress or (last.blocked and not heartbeat.blocked):
            self._restart()
        elif heartbeat.trickle > last.trickle:
            self._moved_at, self._reported = self._clock(), False

    def tick(self) -> None:
        """Check for a stall, once a second."""
        if self._spec.stall_timeout <= 0 or self._spec.loopback or self._spec.nnodes < 2 or not self._members:
            return
        now = self._clock()
        if self._requested_at and now - self._requested_at > _ANSWER_SECONDS:
            self._explain()
        elif self._due(now):
            self._reported = self._slow_reported = True
            blocked = [last.blocked for rank, last in sorted(self._last.items()) if last.blocked]
            if blocked:
                self._report_blocked(
                    f"no traffic between the workers for {now - self._progress_at:.0f} s, because "
                    f"{'; '.join(blocked[:_SHOWN_WORKERS])}"
                )
                return
            self._requested_at = now
            self._answers = {}
            self._request_stacks()

    def _due(self, now: float) -> bool:
        """Return whether a report is due: of a stall, or else of little data."""
        if now - self._moved_at >= self._spec.stall_timeout:
            return not self._reported
        return now - self._progress_at >= self._spec.stall_timeout and not self._slow_reported

    def receive_stacks(self, node_rank: int, stacks: Stacks) -> None:
        """Record a worker's stacks."""
        if self._requested_at:
            self._answers[node_rank] = stacks
            if len(self._answers) >= len(self._members) and self._members <= self._answers.keys():
                self._explain()

    def _explain(self) -> None:
        self._requested_at = 0.0
        silent = sorted(self._members - self._answers.keys())
        now = self._clock()
        slow = now - self._moved_at < self._spec.stall_timeout
        unseen = [self._last[rank].unseen for rank in sorted(self._members & self._last.keys())]
        seconds = now - (self._progress_at if slow else self._moved_at)
        text = explain(
            seconds, self._answers, silent, slow=slow, unseen=[*dict.fromkeys(filter(None, unseen))]
        )
        # Before any traffic, the processes are most likely still loading, which is no reason to stop the job.
        begun = any(last.bytes for last in self._last.values())
        self._report(text, begun and not slow and not any(unseen))


def explain(
    seconds: float,
    answers: dict[int, Stacks],
    silent: Sequence[int] = (),
    *,
    slow: bool = False,
    unseen: Sequence[str] = (),
) -> str:
    """Return the report: where the ranks wait, each stuck path and each rank's stack.

    Args:
        silent: node ranks that did not answer.
        slow: some data was exchanged, but so little that the job may be well or not.
        unseen: by what the workers may exchange data that is not counted.
    """
    waiting: dict[str, list[int]] = {}
    elsewhere: list[str] = []
    stacks: list[str] = []
    stuck = [line for _, answer in sorted(answers.items()) for line in answer.stuck]
    dumps = {int(rank): text for answer in answers.values() for rank, text in answer.stacks.items()}
    for rank, text in sorted(dumps.items()):
        frames = main_thread(text)
        where, inside = place(frames)
        if inside:
            waiting.setdefault(where, []).append(rank)
        elif frames:
            elsewhere.append(f"rank {rank} at {where}")
        stacks.append(f"rank {rank}:" if frames else f"rank {rank}: no Python stack")
        stacks += [f"    {frame}" for frame in frames[:_SHOWN_FRAMES]]
    lines = [_headline(seconds, slow, unseen)]
    who = "; ".join(f"{listed_ranks(ranks)} in {where}" for where, ranks in waiting.items())
    if silent:
        lines.append(
            f"no stacks from node rank {', '.join(map(str, silent[:8]))}: the agent does not respond"
        )
    if who and elsewhere:
        lines.append(f"waiting: {who}; for: {', '.join(elsewhere[:4])}")
    elif who:
        lines.append(f"all ranks wait: {who}")
    elif elsewhere:
        lines.append(f"no rank waits in torch: {', '.join(elsewhere[:4])}")
    return "\n".join(lines + stuck + stacks)


def _headline(seconds: float, slow: bool, unseen: Sequence[str]) -> str:
    if unseen:
        shown = "; ".join(unseen[:_SHOWN_WORKERS])
        return (
            f"progress cannot be seen ({shown}): almost no data was counted for {seconds:.0f} s; --stall-action stop "
            "does not end this"
        )
    if slow:
        return (
            f"slow: the workers exchanged less than 1 KiB a second for {seconds:.0f} s: small collectives, or polls "
            "of a store while a collective hangs; --stall-action stop does not end this"
        )
    return f"stalled: the workers exchanged almost no data for {seconds:.0f} s, and all processes are alive"


def main_thread(text: str) -> list[str]:
    """Return the frames of the main thread, the last in a faulthandler dump, innermost first."""
    thread = re.split(r"^(?:Current thread|Thread) .*$", text, flags=re.MULTILINE)[-1]
    frames = [line.strip() for line in thread.splitlines() if _FRAME.match(line)]
    return [frame for frame in frames if not frame.startswith('File "<frozen importlib')]


def place(frames: list[str]) -> tuple[str, bool]:
    """Return where a rank is, as "FUNCTION (FILE:LINE)" of the user's code, and whether it is inside torch."""
    inside = ""
    for frame in frames:
        match = _FRAME.match(frame)
        assert match is not None
        if _TORCH.search(match["file"]):
            if match["function"] not in ("wrapper", "<module>"):
                inside = match["function"]
            continue
        spot = f"{match['file'].rpartition('/')[2]}:{match['line']}"
        return (f"{inside} ({spot})", True) if inside else (f"{spot} in {match['function']}", False)
    return inside or "an unknown place", bool(inside)
