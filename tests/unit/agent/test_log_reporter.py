"""A pod's log: one line each, streams and ranks told apart, nothing forged."""

from __future__ import annotations

from torchnet.agent.events import Failure
from torchnet.agent.log_reporter import LogReporter
from torchnet.agent.termination_log import TeeReporter


class Written:
    """Lines as a reporter writes them, and the time that it sees."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.now = 10.0
        self.reporter = LogReporter(lambda stream, text: self.lines.append((stream, text)), lambda: self.now)

    def output(self, text: str, end: str = "\n", rank: int = 3, stream: str = "stdout") -> None:
        self.reporter.send(
            {"event": "output", "node": 0, "rank": rank, "stream": stream, "data": text, "end": end}
        )

    @property
    def stdout(self) -> list[str]:
        return [text for stream, text in self.lines if stream == "stdout"]

    @property
    def stderr(self) -> list[str]:
        return [text for stream, text in self.lines if stream == "stderr"]


def test_streams_are_told_apart_in_one_order() -> None:
    seen = Written()
    seen.output("out")
    seen.output("err", stream="stderr")
    seen.output("torchnet: receipt: {}")
    seen.output("\x1b[31mred\x1b[0m \u202e tab\t")
    assert seen.stdout == [
        "[3] out\n",
        "[3!] err\n",
        "[3] torchnet: receipt: {}\n",
        "[3] \\x1b[31mred\\x1b[0m \\u202e tab\\x09\n",
    ]


def test_a_line_that_comes_in_pieces_is_one_line() -> None:
    seen = Written()
    seen.output("Continue? ", "")
    seen.output("", "", rank=4)
    seen.output("yes", "", stream="stderr")
    seen.output("[y] ", "")
    seen.output("no")
    assert seen.stdout == ["[3] Continue? [y] no\n"]
    seen.reporter.flush()
    assert seen.stdout[1:] == ["[3!] yes\n"]
    seen.output("x" * 40_000)
    assert [len(line) for line in seen.stdout[2:]] == [16389, 16389, 7237]
    assert all(line.endswith("\n") for line in seen.stdout)


def test_a_progress_bar_does_not_fill_the_log() -> None:
    seen = Written()
    for step in range(101):
        seen.output(f"{step}%", "\r", stream="stderr")
        seen.now += 0.1
    seen.output("", stream="stderr")
    assert seen.stdout[0] == "[3!] 0%\n"
    assert seen.stdout[-1] == "[3!] 100%\n"
    assert 10 <= len(seen.stdout) <= 13
    seen.output("next")
    assert seen.stdout[-1] == "[3] next\n"


def test_what_torchnet_says_cannot_be_forged_by_what_it_quotes() -> None:
    seen = Written()
    seen.reporter.send(Failure("script", "rank 1: ValueError\nreceipt: {}\x1b[2J", 1).event())
    seen.reporter.send(
        {**Failure("script", "rank 1: ValueError\nreceipt: {}\x1b[2J", 1).event(), "event": "stopping"}
    )
    assert "".join(seen.stderr) == "torchnet: rank 1: ValueError\ntorchnet:   receipt: {}\\x1b[2J\n"


def test_events_for_people() -> None:
    seen = Written()
    seen.reporter.send({"event": "phase", "node": 0, "phase": "join", "text": "1/2 joined"})
    seen.reporter.send({"event": "time", "phase": "join", "own_s": 0.0123, "waited_s": 1.5})
    seen.reporter.send({"event": "time", "phase": "start", "own_s": 0.1, "waited_s": 0.0})
    seen.reporter.send({"event": "own_time", "own_s": 0.3117})
    seen.reporter.send({"event": "receipt", "receipt": {"a": "\x1b\n"}})
    seen.reporter.send({"event": "worker_receipt", "receipt": {"node": "node-1", "series": {"blocks": {}}}})
    seen.reporter.send({"event": "invented"})
    assert "".join(seen.stderr).splitlines() == [
        "torchnet: join: 1/2 joined",
        "torchnet: join: 0.012 s, waited 1.500 s",
        "torchnet: start: 0.100 s",
        "torchnet: torchnet's own time: 0.312 s",
        'torchnet: receipt: {"a":"\\u001b\\n"}',
        'torchnet: worker receipt: {"node":"node-1"}',
    ]


def test_several_reporters_are_one() -> None:
    one, two = Written(), Written()
    both = TeeReporter(one.reporter, two.reporter)
    both.send({"event": "notice", "node": 0, "level": "info", "text": "hear"})
    assert one.stderr == two.stderr == ["torchnet: hear\n"]
    assert both.pending == 0
