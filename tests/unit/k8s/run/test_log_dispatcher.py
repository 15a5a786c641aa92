"""What becomes of the pods' lines: shown once, kept in files, and not faster than somebody reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from torchnet.agent.events import BACKLOG
from torchnet.console.console import Console
from torchnet.k8s.run.log_stream import LogDispatcher, LogFiles


def heard(
    *events: dict[str, Any], log_dir: str | None = None
) -> tuple[LogDispatcher, io.StringIO, io.StringIO]:
    """One to which these events come, with what it writes to standard error and output."""
    err, out = io.StringIO(), io.StringIO()
    waiting = list(events)
    console = Console(err, out, world_size=4, color=False, tty=False)
    return LogDispatcher(console, lambda: waiting.pop(0) if waiting else None, LogFiles(log_dir)), err, out


def notice(text: str, node: int) -> dict[str, Any]:
    return {"event": "notice", "node": node, "level": "warning", "text": text, "uid": str(node)}


def output(rank: int, text: str) -> dict[str, Any]:
    return {"event": "output", "rank": rank, "stream": "stdout", "data": text, "end": "\n", "uid": "u"}


def test_equal_words_of_many_agents_are_said_once() -> None:
    one, err, _ = heard(*[notice("/etc/hosts is not writable", node) for node in range(1000)])
    one.take(all_of_it=False)
    assert err.getvalue().count("not writable") == 1
    assert one.was_shown("/etc/hosts is not writable")
    assert not one.was_shown("/etc/hosts is writable")


def test_a_phase_that_the_second_container_repeats_is_said_once() -> None:
    join, preflight, work = (
        {"event": "phase", "node": 0, "phase": phase, "text": f"{phase} is done", "uid": "u"}
        for phase in ("join", "preflight", "run")
    )
    one, err, _ = heard(join, preflight, join, preflight, work)
    one.take(all_of_it=False)
    assert [err.getvalue().count(f"{word} is done") for word in ("join", "preflight")] == [1, 1]


def test_output_is_shown_as_often_as_it_was_written_and_kept_by_rank(tmp_path: Path) -> None:
    one, _, out = heard(
        output(0, "step 1"), output(0, "step 1"), output(3, "x"), log_dir=str(tmp_path / "logs")
    )
    one.take(all_of_it=False)
    one.close()
    assert out.getvalue().count("step 1") == 2
    files = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert files == {"rank-0.log": "step 1\nstep 1\n", "rank-3.log": "x\n"}
    again, _, _ = heard(output(3, "y"), log_dir=str(tmp_path / "logs"))
    again.take(all_of_it=False)
    again.close()
    assert (tmp_path / "logs/rank-3.log").read_text() == "x\ny\n", "nothing is overwritten"


def test_a_folder_that_cannot_be_written_is_told_once_and_the_lines_are_still_shown(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one, err, out = heard(
        *[output(0, f"step {step}") for step in range(3)], log_dir=str(tmp_path / "file/logs")
    )
    one.take(all_of_it=False)
    assert err.getvalue().count("the logs are not saved") == 1
    assert out.getvalue().count("step") == 3


def test_of_several_receipts_of_a_pod_the_last_one_counts() -> None:
    made = [
        {"event": "receipt", "receipt": {"n": n}, "uid": uid} for n, uid in ((1, "a"), (2, "b"), (3, "a"))
    ]
    one, err, out = heard(*made)
    one.take(all_of_it=False)
    assert one.receipts == {"a": {"n": 3}, "b": {"n": 2}}
    assert (err.getvalue(), out.getvalue()) == ("", "")


def test_who_does_not_read_is_waited_for_unless_the_job_is_to_end() -> None:
    class Full(Console):
        pending = BACKLOG + 1

    events = [notice(f"line {number}", 0) for number in range(5)]
    err = io.StringIO()
    console = Full(err, io.StringIO(), world_size=2, color=False, tty=False)
    one = LogDispatcher(console, lambda: events.pop(0) if events else None, LogFiles(None))
    one.take(all_of_it=False)
    assert (len(events), err.getvalue()) == (5, "")
    one.take(all_of_it=True)
    assert not events
    assert err.getvalue().count("line") == 5
