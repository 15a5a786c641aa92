"""``torchnet bench``: runs the job, prints the results, and writes the files.

Results that cannot be stored are printed to standard output as JSON, once.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, TextIO

from torchnet.ansi import clean
from torchnet.bench import interruption, relaunch
from torchnet.bench.aggregation import RunContext, RunEnding, results
from torchnet.bench.bench_options import BenchOptions
from torchnet.bench.collector import Collector
from torchnet.bench.job import BenchJob, check_script, planned
from torchnet.bench.rerun import look
from torchnet.bench.results import Finding, Lacking, Results
from torchnet.bench.summary import FINDINGS, render
from torchnet.bench.tuning import tuning
from torchnet.bench.worker.messages import Lacks, Setup, Tried
from torchnet.config.model import JobSpec
from torchnet.config.validation_errors import FieldProblem
from torchnet.console.files import problem, show, store, write_json
from torchnet.console.terminal import Stream, streams
from torchnet.constants import TUNE_PREFIX
from torchnet.errors import NetworkError, TorchnetError
from torchnet.text import printable


def save(
    results: Results,
    json_path: str | None,
    html_path: str | None,
    *,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> list[str]:
    """Write what was asked for; the files that hold it, each with what it is.

    Nothing is raised, and the exit code stays the job's, as with a launch's receipt: whoever asked for a file sees the
    line on standard error, and has the results on standard output.
    """
    written: list[str] = []
    known = False  # the results are stored, or on standard output
    document: dict[str, Any] = results.model_dump(mode="json", by_alias=True)
    if json_path is not None:
        failed = write_json(json_path, document, stdout=stdout, stderr=stderr)
        known = True
        if failed is None and json_path != "-":
            written.append(f"{json_path} (results)")
    if html_path is not None:
        reason = _html(results, html_path)
        if reason is None:
            written.append(f"{html_path} (report)")
        else:
            where = "" if known else "; the results are on standard output"
            show(
                f"torchnet: error: {printable(html_path)} could not be written: {reason}{where}\n",
                stderr or sys.stderr,
            )
            if not known:
                show(json.dumps(document, indent=2, allow_nan=False) + "\n", stdout or sys.stdout)
    return written


def _html(results: Results, path: str) -> str | None:
    try:
        from torchnet.bench.html import html

        page = html(results)
    except Exception as error:  # a plotting library may raise anything, and the figures are not lost for it
        return f"the report cannot be made ({type(error).__name__}: {printable(str(error), 300)})"
    reason = store(path, page.encode("utf-8", "backslashreplace"))
    return None if reason is None else printable(reason)


INTERNAL, WRONG = 70, 1
_KINDS = {2: "usage", 3: "cluster", 4: "network"}  # of failures, by the exit codes of torchnet's own errors
_TRACEBACK = "TORCHNET_TRACEBACK"  # set to 1, it has an own error told in full, as of any command


def plan(
    asked: BenchOptions,
    problems: list[FieldProblem],
    flags: Mapping[str, object],
    cwd: str,
    config: str | None,
) -> BenchJob:
    """See :func:`torchnet.bench.job.planned`."""
    return planned(asked, problems, flags, os.environ, cwd, config, secrets.token_hex(3))


def run(wish: BenchJob, cwd: str, words: Sequence[str], version: str) -> int:
    """Run it, print the summary and write the files; the job's exit code, or 1 where a result was wrong.

    ``words``: the command line, as it was typed.

    Raises:
        UsageError, ClusterError: nothing was measured, since nothing could be started.
    """
    asked, job = wish.asked, wish.resolved.job
    err, out = streams(sys.stderr, sys.stdout, environ=os.environ, tty=None, color=None)
    check_script()
    if asked.html:
        from torchnet.bench import html

        html.check()
    for line in (*wish.notices, *_unwritable(asked)):
        err.line(f"torchnet: {line}")
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = ("torchnet", "bench", *_without_values(words))
    context = RunContext(
        on=job.on,
        command=command,
        look=look(job, command),
        date=date,
        version=version,
        line=asked.line,
        rate=job.network.rate,
        compare=asked.compare,
        image=_image(job),
        tune=asked.tune,
    )
    collector = Collector(None if job.output.quiet else err, aside=asked.json == "-")
    deadline = None if job.run.timeout is None else time.monotonic() + job.run.timeout
    if asked.tune:
        # Local workers have this process's variables, and a tuning begins without them.
        for name in [name for name in os.environ if name.startswith(TUNE_PREFIX)]:
            del os.environ[name]
    signals = interruption.BenchSignals()
    ending = _ended(wish, cwd, collector, err, signals)
    if asked.tune and not ending.code:
        ending = _tried(wish, cwd, collector, ending, deadline, signals)
    found = _judged(results(collector.messages, context, ending), asked, collector)
    code = found.exit_code
    _show(found, asked, err, out)
    return code


def _ended(
    wish: BenchJob, cwd: str, collector: Collector, err: Stream, signals: interruption.BenchSignals
) -> RunEnding:
    """The job run to its end, however it ends.

    Raises:
        TorchnetError: it could not be started, and that is nothing about the network.
        Exception: torchnet's own error, before anything was measured.
    """
    failure: dict[str, Any] | None = None
    try:
        with signals.listening():
            code = _launch(wish, cwd, collector)
            signals.check()
    except KeyboardInterrupt as error:
        code = interruption.code_of(error)
        failure = _interrupted(code)
    except TorchnetError as error:
        if not collector.messages and not isinstance(error, NetworkError):
            raise
        collector.finish()
        err.line(f"torchnet: {error}")
        kind = _KINDS.get(error.exit_code, "internal")
        code, failure = error.exit_code, {"kind": kind, "text": str(error)}
    except Exception as error:
        # The figures of a long run are not lost for a defect here.
        if not collector.messages:
            raise
        if os.environ.get(_TRACEBACK) == "1":
            traceback.print_exc()
        text = _own_text(error)
        collector.finish()
        err.line(f"torchnet: error: {text}")
        code, failure = INTERNAL, {"kind": "internal", "text": text}
    collector.finish()
    failure = failure or collector.failure
    return RunEnding(code, collector.receipt, failure, tuple(collector.unreadable))


def _tried(
    wish: BenchJob,
    cwd: str,
    collector: Collector,
    ending: RunEnding,
    deadline: float | None,
    signals: interruption.BenchSignals,
) -> RunEnding:
    """After a tuning by the ranks came to its end: what needs a start of its own."""
    setup = next((one for one in collector.messages if isinstance(one, Setup)), None)
    tried = [one for one in collector.messages if isinstance(one, Tried)]
    if setup is None or not tried:
        return ending

    def launch(job: BenchJob, own: Collector) -> int:
        code = _launch(job, cwd, own)
        signals.check()
        return code

    try:
        if collector.signalled:
            raise KeyboardInterrupt(collector.signalled)
        found = tuning(tried, numerics=wish.asked.tune_numerics, about="")
        chosen = found.chosen if found else {}
        with signals.listening():
            relaunch.measure(wish, setup.backend, chosen, launch, collector, deadline)
    except KeyboardInterrupt as error:
        code = interruption.code_of(error)
        ending = replace(ending, code=code, failure=_interrupted(code))
    except relaunch.Stopped as error:
        ending = replace(ending, code=error.code, failure=error.failure)
    except Exception as error:
        # The figures until then are not lost for it.
        collector.messages.append(Lacks("the rest of the tuning", _own_text(error)))
    collector.finish()
    return ending


def _interrupted(code: int) -> dict[str, Any]:
    return {"kind": "interrupted", "text": f"stopped by {interruption.name_of(code)}"}


def _launch(wish: BenchJob, cwd: str, collector: Collector) -> int:
    job, origins = wish.resolved.job, wish.resolved.origins
    if job.on == "kubernetes":
        from torchnet.k8s.run.launch import launch as on_kubernetes

        return int(on_kubernetes(job, origins, cwd, collector))
    from torchnet.local.launch import launch

    return int(launch(job, origins, collector))


def _judged(found: Results, asked: BenchOptions, collector: Collector) -> Results:
    """With what a tuning chose, and the findings."""
    if any(one.wrong for one in found.collectives) and not found.exit_code:
        found = found.model_copy(update={"exit_code": WRONG})
    lacking: list[Lacking] = []
    findings: tuple[Finding, ...] = ()
    # Whatever is wrong with what judges: the figures of a long run are not lost for it.
    try:
        found = _tuned(found, asked, collector)
    except Exception as error:
        lacking.append(_own("what the tuning chose", error))
    try:
        from torchnet.bench.findings import find

        findings = find(found)
    except Exception as error:
        lacking.append(_own(FINDINGS, error))
    kinds = {one.kind for one in found.findings}
    findings = (*found.findings, *(one for one in findings if one.kind not in kinds))
    return found.model_copy(update={"findings": findings, "lacks": (*found.lacks, *lacking)})


def _tuned(found: Results, asked: BenchOptions, collector: Collector) -> Results:
    tried = [one for one in collector.messages if isinstance(one, Tried)]
    setup = found.setup
    if not tried or setup is None:
        return found
    about = f"{setup.nodes} nodes, {setup.ranks} ranks, {setup.backend} over {setup.interface}, {found.date}"
    return found.model_copy(update={"tuning": tuning(tried, numerics=asked.tune_numerics, about=about)})


def _own(what: str, error: Exception) -> Lacking:
    return Lacking(what=what, why=_own_text(error))


def _own_text(error: Exception) -> str:
    return f"torchnet's own error: {type(error).__name__}: {printable(str(error), 300)}"


def _show(found: Results, asked: BenchOptions, err: Stream, out: Stream) -> None:
    """The summary; on standard error where standard output is the JSON's."""
    written = save(found, asked.json, asked.html)
    stream = err if asked.json == "-" else out
    for line in render(found, color=stream.color, written=written).splitlines():
        stream.line(clean(line, colour=stream.color))
    for one in (err, out):
        one.surface.push(None)


def _unwritable(asked: BenchOptions) -> list[str]:
    """Said before anything runs, not after an hour."""
    found = []
    for flag, path in (("--json", asked.json), ("--html", asked.html)):
        wrong = problem(path) if path else None
        if wrong:
            # Results that are asked for as JSON have their place, and once is enough.
            without = flag == "--html" and asked.json is not None
            where = "there will be no report" if without else "the results will go to standard output"
            found.append(f"warning: {flag} {printable(str(path), 200)}: {wrong}; {where}")
    return found


def _without_values(words: Sequence[str]) -> tuple[str, ...]:
    """The command line without the values of variables, which may be secrets: the results are passed around."""
    kept: list[str] = []
    for word in words:
        named = kept and kept[-1] == "--env"
        if named or word.startswith("--env="):
            head, equals, rest = word.removeprefix("--env=").partition("=")
            prefix = "" if named else "--env="
            kept.append(f"{prefix}{head}={'…' if rest else ''}" if equals else word)
        else:
            kept.append(word)
    return tuple(kept)


def _image(job: JobSpec) -> str:
    return job.kubernetes.image or "" if job.on == "kubernetes" else ""
