"""The console of a job: consume the agents' events, print the ranks' output and torchnet's messages.

The script's standard output goes to standard output, everything else to standard error. torchnet's lines begin with
``torchnet:``, those of a rank with ``[rank N]``, so neither can be mistaken for the other. Failure events are parsed on
arrival; malformed ones are reported as a warning and dropped.
"""

from __future__ import annotations

import os
import reprlib
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from torchnet.ansi import RESET, clean
from torchnet.console.progress import Progress
from torchnet.console.rank_output import RankLines
from torchnet.console.terminal import Surface, streams
from torchnet.standard_streams import is_null
from torchnet.text import printable

if TYPE_CHECKING:
    from torchnet.receipt.receipt_model import ValidationError


@dataclass(frozen=True)
class Cause:
    """A possible cause of the job's end.

    ``tail`` and ``at`` do not take part in comparisons, so that reports of one failure by several agents are equal.
    """

    kind: str
    text: str
    rank: int | None
    node: str | None
    code: int | None
    tail: tuple[str, ...] = field(compare=False)
    at: float = field(compare=False)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Cause:
        """Parse the failure in an event or in a receipt.

        Raises:
            ArithmeticError, RecursionError, TypeError, ValueError: The failure is malformed.
        """
        kind, node = str(values.get("kind")), values.get("node")
        tail, at = values.get("tail") or (), values.get("at")
        if not isinstance(tail, list | tuple):
            raise TypeError(f"tail is not a list: {type(tail).__name__}")
        return cls(
            kind=kind,
            text=str(values.get("text") or f"failure of kind {kind!r}"),
            rank=_whole(values.get("rank")),
            node=None if node is None else str(node),
            code=_whole(values.get("code")),
            tail=tuple(str(line) for line in tail),
            at=float(at or 0.0),
        )

    @property
    def whole(self) -> str:
        """The text, with the rank and exit code appended to its first line unless that line contains them."""
        first, *others = self.text.splitlines()
        facts = []
        for value, fact in ((self.rank, f"rank {self.rank}"), (self.code, f"exit code {self.code}")):
            if value is not None and fact.removeprefix("exit ") not in first:
                facts.append(fact)
        return "\n".join([f"{first} ({', '.join(facts)})" if facts else first, *others])


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


Event = Mapping[str, Any]
# Called with each event before it is shown. Returns True to suppress the event, or another event to show instead.
Listener = Callable[[Event], bool | Event]
# What a handler may raise for values of wrong types, sizes and depths.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_BOLD, _RED, _YELLOW = "\x1b[1m", "\x1b[1;31m", "\x1b[1;33m"


class Console:
    """Prints events until ``close``, which repeats the root cause. Not thread-safe; malformed events do not raise.

    If a stream breaks (its reader exits, the disk is full), nothing more is written to it, one line on the other stream
    reports it, and the job continues.

    Args:
        ranks: Ranks whose output is shown; empty for all. Failures and their last lines are always shown.
        quiet: Show neither phases nor notices below "warning".
        tty: Overrides whether the streams are terminals.
        color: Overrides whether the streams get colours.
        listener: Called with each event first; may suppress or replace it.
        prefix: Returns the prefix of a rank's lines; None for ``[rank N]``.
    """

    def __init__(
        self,
        stderr: TextIO | None = None,
        stdout: TextIO | None = None,
        *,
        world_size: int,
        color: bool | None = None,
        ranks: Collection[int] = (),
        quiet: bool = False,
        tty: bool | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        listener: Listener | None = None,
        prefix: Callable[[int], str] | None = None,
    ) -> None:
        self._err, self._out = streams(
            stderr or sys.stderr,
            stdout or sys.stdout,
            environ=os.environ if environ is None else environ,
            tty=tty,
            color=color,
        )
        self._listener = listener
        self._ranks = frozenset(ranks)
        self._quiet = quiet
        single = world_size == 1 or len(self._ranks) == 1
        self._lines = RankLines(
            self._err, self._out, world_size=world_size, single=single, clock=clock, prefix=prefix
        )
        self._progress = Progress(self._err, self._own)
        self._failures: list[Cause] = []
        self._cause: Cause | None = None  # from the job's receipt, which takes precedence
        self._after_failure = False  # whether anything was printed after the first failure
        self._stdin_explained = False

    def event(self, event: Event) -> None:
        """Print one event; unknown kinds (from a newer agent) are ignored."""
        answer = self._listener(event) if self._listener is not None else False
        if isinstance(answer, Mapping):
            event = answer
        kind = event.get("event")
        handler = getattr(self, f"_on_{kind}", None) if isinstance(kind, str) else None
        if answer is True:
            self._progress.finish()
        elif handler is not None:
            try:
                handler(event)
            except _MALFORMED as error:
                why = f"{type(error).__name__}: {printable(str(error), 200)}"
                self._say(f"malformed event ({why}): {reprlib.repr(event)}", "warning")
            if kind != "phase" and not self._quiet:
                self._progress.redraw()
        self.tick()

    def notice(self, text: str, level: str = "info") -> None:
        """Print a message of the launcher. Levels are those of agents: info, warning, error."""
        self.event({"event": "notice", "node": None, "level": level, "text": text})

    def tick(self) -> None:
        """Show progress bars that are due, and report broken streams; call it regularly, such as every 0.1 s."""
        self._lines.tick()
        for broken, other in ((self._out, self._err), (self._err, self._out)):
            error = broken.failed_now()
            if error is not None:
                name = "standard output" if broken is self._out else "standard error"
                why = getattr(error, "strerror", None) or error
                other.line(self._own(f"writing to {name} failed, so its output is dropped: {why}", "warning"))

    @property
    def pending(self) -> int:
        """Bytes that the readers have not taken yet; callers should pause while this is large."""
        return sum(surface.pending for surface in self._surfaces())

    def waiting(self) -> list[int]:
        """Return the descriptors to poll for writability; call :meth:`push` when one is writable."""
        return [fd for surface in self._surfaces() if (fd := surface.waiting) is not None]

    def push(self) -> None:
        """Write pending bytes, as many as the readers take without blocking."""
        for surface in self._surfaces():
            surface.push()

    def finish(self) -> None:
        """End unfinished lines and repeat the root cause if the job failed; does not block."""
        self._lines.flush()
        self._progress.finish()
        for stream in (self._err, self._out):
            stream.close_line()
        failures, self._failures = self._failures, []
        cause, self._cause = self._cause, None
        cause = cause or min(failures, key=lambda failure: failure.at, default=None)
        if cause is not None and (self._after_failure or cause.tail or not failures):
            self._root_cause(cause)

    def close(self, patience: float | None = None) -> None:
        """Call `finish` and write everything that is pending; idempotent.

        Args:
            patience: Seconds to wait for a reader that does not read; None waits without limit.
        """
        self.finish()
        for surface in self._surfaces():
            surface.push(patience)
            if surface.pending:
                surface.give_up()
        self.tick()
        self.push()

    def _surfaces(self) -> list[Surface]:
        """The distinct surfaces, standard error's first: messages about standard output go there."""
        return list(dict.fromkeys((self._err.surface, self._out.surface)))

    def _on_phase(self, event: Event) -> None:
        if not self._quiet:
            self._progress.phase(int(event["node"]), str(event["phase"]), str(event.get("text", "")))

    def _on_notice(self, event: Event) -> None:
        level = str(event.get("level", "info"))
        if self._quiet and level == "info":
            return
        node = event.get("node")
        self._say(f"{'' if node is None else f'node {node}: '}{event.get('text', '')}", level)

    def _on_started(self, event: Event) -> None:
        self._progress.finish()
        if int(event.get("attempt", 0)) > 0:  # a restart supersedes earlier failures
            self._failures.clear()

    def _on_output(self, event: Event) -> None:
        rank = int(event["rank"])
        if self._ranks and rank not in self._ranks:
            return
        self._progress.finish()
        name, end = event.get("stream"), str(event.get("end", "\n"))
        self._after_failure = self._after_failure or bool(self._failures)
        self._lines.write(rank, "stdout" if name == "stdout" else "stderr", str(event.get("data", "")), end)

    def _on_raw(self, event: Event) -> None:
        if self._ranks and int(event["rank"]) not in self._ranks:
            return
        self._progress.finish()
        self._after_failure = self._after_failure or bool(self._failures)
        data = b64decode(str(event["data"]))
        self._lines.write_raw("stdout" if event.get("stream") == "stdout" else "stderr", data)

    def _on_failure(self, event: Event) -> None:
        self._progress.finish()
        cause = Cause.read(event)
        if event.get("restart"):
            self._say(cause.text, "warning")
        elif cause not in self._failures:
            self._say(cause.text, "error")
            self._after_failure = self._after_failure or bool(self._failures)
            self._failures.append(cause)

    def _on_stdin(self, event: Event) -> None:
        """Explain, once, why a rank finds no standard input. Where there is nothing to read, nothing is missed."""
        if self._stdin_explained or is_null(0):
            return
        self._stdin_explained = True
        rank = _whole(event.get("rank"))
        who, whose = ("a rank", "RANK") if rank is None else (f"rank {rank}", str(rank))
        self._say(
            f"{who} reads its standard input, which is empty: with several processes, --stdin-rank {whose} gives it "
            "torchnet's",
            "warning",
        )

    def _on_stall(self, event: Event) -> None:
        self._say(str(event.get("text", "")), "warning")

    def _on_receipt(self, event: Event) -> None:
        from torchnet.receipt.receipt_model import Receipt, ValidationError
        from torchnet.receipt.table import render, started

        self._progress.finish()
        try:
            read = Receipt.model_validate(event["receipt"])
        except ValidationError as error:
            self._say(f"malformed receipt: {_wrong(error)}", "error")
            return
        if (
            read.failure is not None and "attempt" not in event
        ):  # the failure of an earlier attempt is not the job's
            self._cause = Cause.read(vars(read.failure))
        if self._quiet:
            # A failure is reported as the root cause. A share below --min-share is not a failure: report it here.
            if read.exit_code and read.failure is None:
                self._say(read.reason, "error")
            return
        columns = self._err.columns if self._err.tty else None
        for line in render(read, columns=columns, color=self._err.color).splitlines():
            self._err.line(clean(line, colour=self._err.color))
        # Where nothing started, the receipt is one line and the error is still in sight: do not repeat the cause.
        self._after_failure = self._after_failure or started(read)

    def _say(self, text: str, level: str = "info") -> None:
        """Print a message of torchnet: each line escaped, further lines indented below the first."""
        self._after_failure = self._after_failure or bool(self._failures)
        first, *others = text.splitlines() or [""]
        self._err.line(self._own(printable(first), level))
        for line in others:
            self._err.line(self._own("  " + printable(line.expandtabs())))

    def _own(self, text: str, level: str = "info") -> str:
        word = "" if level == "info" else f"{printable(level, 20)}: "
        if not self._err.color:
            return f"torchnet: {word}{text}"
        if word:
            word = f"{_RED if level == 'error' else _YELLOW}{word}{RESET}"
        return f"{_BOLD}torchnet:{RESET} {word}{text}"

    def _root_cause(self, cause: Cause) -> None:
        self._say(f"root cause: {cause.whole}", "error")
        rank, prefix, whose = cause.rank, "", "its last lines:"
        if rank is not None:
            prefix, whose = self._lines.prefix(rank, self._err), f"the last lines of rank {rank}:"
        if cause.tail:
            self._err.line(self._own(whose))
        for line in cause.tail:
            self._err.line(prefix + clean(line, colour=self._err.color))


def _wrong(error: ValidationError) -> str:
    """Describe the first validation error, and count the others."""
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(map(str, first["loc"])) or "document"
    return f"{where}: {first['msg']}" + (f" (and {len(others)} more)" if others else "")
