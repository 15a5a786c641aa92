"""Rank 0's lines become figures, and everything else stays what people see."""

from __future__ import annotations

import io
from typing import Any

import pytest

from torchnet.bench.collector import Collector
from torchnet.bench.worker import result_messages
from torchnet.console.console import Console
from torchnet.console.terminal import streams

LATENCY = result_messages.Latency("net1", 0, 1, 64, 500, 4e-5, 9e-5, 2e-5)


def line(message: result_messages.Message) -> str:
    out = io.StringIO()
    result_messages.send(message, out)
    return out.getvalue().rstrip("\n")


def output(data: str, *, rank: int = 0, stream: str = "stdout", end: str = "\n") -> dict[str, Any]:
    return {"event": "output", "rank": rank, "stream": stream, "data": data, "end": end}


class Seen:
    """A console with a collector, and what both of them wrote."""

    def __init__(self, *, tty: bool = False, aside: bool = False) -> None:
        self.err, self.out = io.StringIO(), io.StringIO()
        own, _ = streams(self.err, self.out, environ={}, tty=tty, color=False)
        self.collector = Collector(own, aside=aside)
        self.console = Console(
            self.err, self.out, world_size=2, tty=tty, color=False, environ={}, listener=self.collector
        )

    def give(self, *events: dict[str, Any]) -> Seen:
        for event in events:
            self.console.event(event)
        return self


def test_a_marked_line_of_rank_0_is_kept_and_not_shown() -> None:
    seen = Seen().give(output(line(LATENCY)), output("hello"))
    assert seen.collector.messages == [LATENCY]
    assert seen.out.getvalue() == "[rank 0] hello\n"


def test_where_standard_output_is_the_results_ranks_print_to_standard_error() -> None:
    seen = Seen(aside=True).give(output(line(LATENCY)), output("NCCL INFO hello"), output("one", rank=1))
    assert seen.collector.messages == [LATENCY]
    assert seen.out.getvalue() == ""
    assert seen.err.getvalue() == "[rank 0] NCCL INFO hello\n[rank 1] one\n"


@pytest.mark.parametrize("cut", [1, 5, 15, 16, 40, 90])
def test_a_line_that_comes_in_pieces_is_one_line(cut: int) -> None:
    text = line(LATENCY)
    seen = Seen().give(output(text[:cut], end=""), output(text[cut:]))
    assert seen.collector.messages == [LATENCY]
    assert seen.out.getvalue() == ""


def test_a_line_that_only_begins_like_a_mark_is_shown() -> None:
    seen = Seen().give(output("torch", end=""), output("vision is there"))
    assert seen.collector.messages == []
    shown = seen.out.getvalue() + seen.err.getvalue()
    assert "torch" in shown
    assert "vision is there" in shown


def test_only_rank_0s_standard_output_is_read() -> None:
    text = line(LATENCY)
    seen = Seen().give(output(text, rank=1), output(text, stream="stderr"))
    assert seen.collector.messages == []
    assert "[rank 1] torchnet-bench" in seen.out.getvalue()
    assert "[rank 0] torchnet-bench" in seen.err.getvalue()


def test_a_marked_line_that_cannot_be_read_is_kept_as_a_reason() -> None:
    seen = Seen().give(output(result_messages.MARK + "{nonsense"))
    assert seen.collector.messages == []
    assert "{nonsense" in seen.collector.unreadable[0]


def test_a_kind_of_a_newer_worker_is_passed_over() -> None:
    seen = Seen().give(output(result_messages.MARK + '{"kind":"future","x":1}'))
    assert (seen.collector.messages, seen.collector.unreadable, seen.out.getvalue()) == ([], [], "")


def test_the_receipt_is_kept_and_not_shown() -> None:
    receipt = {"run_id": "bench-1", "backend_share": 1.0}
    seen = Seen().give({"event": "receipt", "receipt": receipt})
    assert seen.collector.receipt == receipt
    assert seen.err.getvalue() == ""


def test_a_failure_is_shown_without_the_figures_among_its_last_lines() -> None:
    failure = {
        "kind": "script", "text": "rank 0 exited with code 7", "code": 7, "rank": 0, "node": "node-0", "at": 1.0,
        "tail": [line(LATENCY), "RuntimeError: gone"],
    }  # fmt: skip
    seen = Seen().give({"event": "failure", **failure})
    seen.console.close()
    assert seen.collector.failure is not None
    assert seen.collector.failure["text"] == "rank 0 exited with code 7"
    assert "RuntimeError: gone" in seen.err.getvalue()
    assert result_messages.MARK not in seen.err.getvalue()


def test_a_restart_begins_with_no_figures() -> None:
    started = {"event": "started", "node": 0, "attempt": 1, "ranks": [0], "pids": [1]}
    seen = Seen().give(output(line(LATENCY)), started)
    assert seen.collector.messages == []


def test_progress_in_a_pipe_is_a_line_for_each_thing_that_is_measured() -> None:
    seen = Seen().give(
        *(output(line(result_messages.Progress(text))) for text in ("raw TCP", "raw TCP", "reduce"))
    )
    assert seen.err.getvalue() == "torchnet: measuring raw TCP\ntorchnet: measuring reduce\n"


def test_progress_that_makes_no_sense_stops_nothing() -> None:
    seen = Seen().give(
        output(result_messages.MARK + '{"kind":"progress","text":null}'), output(line(LATENCY))
    )
    assert seen.collector.messages == [LATENCY]


def test_progress_on_a_terminal_is_one_line_that_others_do_not_run_into() -> None:
    seen = Seen(tty=True)
    seen.give(
        output(line(result_messages.Progress("size 1"))), output(line(result_messages.Progress("size 2")))
    )
    seen.give({"event": "notice", "node": None, "level": "warning", "text": "slow"})
    erased = seen.err.getvalue().split("\r\x1b[K")
    assert erased[0] == "torchnet: measuring size 1"
    assert erased[1] == "torchnet: measuring size 2"
    assert erased[-1].endswith("torchnet: warning: slow\n")


def test_an_attempt_that_was_preempted_leaves_no_figures() -> None:
    seen = Seen().give(output(line(LATENCY)), {"event": "receipt", "receipt": {}, "attempt": 1})
    assert (seen.collector.messages, seen.collector.receipt) == ([], None)
    assert seen.give(output(line(LATENCY))).collector.messages == [LATENCY]
