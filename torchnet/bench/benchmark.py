"""``torchnet bench``: run the job, print the results and write the files.

Results that cannot be written to a file are printed to standard output as JSON, once.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TextIO

from torchnet.ansi import clean
from torchnet.bench import interruption
from torchnet.bench.aggregation import RunContext, RunEnding, results
from torchnet.bench.bench_options import BenchOptions
from torchnet.bench.collector import Collector
from torchnet.bench.job import BenchJob, Placed, check_script, plan_job
from torchnet.bench.rerun import network_check
from torchnet.bench.results import Finding, Lacking, Results
from torchnet.bench.summary import FINDINGS, render
from torchnet.config.job_spec import JobSpec
from torchnet.config.validation_errors import FieldProblem
from torchnet.console.files import problem, show, store, write_json
from torchnet.console.terminal import Stream, streams
from torchnet.errors import NetworkError, TorchnetError
from torchnet.runtime import runtime_of
from torchnet.text import printable


def save(
    results: Results,
    json_path: str | None,
    html_path: str | None,
    *,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> list[str]:
    """Write the requested files.

    Never raises, and does not change the exit code, as with a launch's receipt: a failed write is reported on standard
    error, and the results go to standard output.

    Returns:
        Each file written, with what it holds.
    """
    written: list[str] = []
    known = False  # whether the results are in a file or on standard output
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
    except Exception as error:  # a plotting library may raise anything; keep the figures
        return f"the report cannot be created ({type(error).__name__}: {printable(str(error), 300)})"
    reason = store(path, page.encode("utf-8", "backslashreplace"))
    return None if reason is None else printable(reason)


INTERNAL, WRONG = 70, 1
_KINDS = {2: "usage", 3: "cluster", 4: "network"}  # kinds of failures, by exit code
_TRACEBACK = "TORCHNET_TRACEBACK"  # set to 1 to print the traceback of an internal error, as in any command


def plan(
    options: BenchOptions,
    problems: list[FieldProblem],
    flags: Mapping[str, object],
    cwd: str,
    config: str | None,
    placed: Placed = lambda resolve: resolve({}, {}),
) -> BenchJob:
    """Plan the job; see :func:`torchnet.bench.job.plan_job`."""
    return plan_job(options, problems, flags, os.environ, cwd, config, secrets.token_hex(3), placed)


def run(bench_job: BenchJob, cwd: str, words: Sequence[str], version: str) -> int:
    """Run the benchmark, print the summary and write the files.

    Args:
        bench_job: The planned job.
        cwd: The working directory.
        words: The command line as typed.
        version: The version of torchnet.

    Returns:
        The job's exit code, or 1 if a result was wrong.

    Raises:
        UsageError, ClusterError: The job could not be started, so nothing was measured.
    """
    options, job = bench_job.options, bench_job.resolved.job
    err, out = streams(sys.stderr, sys.stdout, environ=os.environ, tty=None, color=None)
    check_script()
    if options.html:
        from torchnet.bench import html

        html.check()
    for line in (*bench_job.notices, *_warn_unwritable(options)):
        err.line(f"torchnet: {line}")
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    command = ("torchnet", "bench", *_mask_values(words))
    context = RunContext(
        on=job.on,
        command=command,
        look=network_check(job, command),
        date=date,
        version=version,
        line=options.line,
        rate=job.network.rate,
        compare=options.compare,
        image=_image(job),
    )
    collector = Collector(None if job.output.quiet else err, aside=options.json == "-")
    ending = _run_job(bench_job, cwd, collector, err)
    if job.on == "hosts" and ending.receipt is None and not collector.messages:
        return ending.code  # the results are on node 0's host
    found = _add_findings(results(collector.messages, context, ending))
    _show(found, options, err, out)
    return found.exit_code


def _run_job(bench_job: BenchJob, cwd: str, collector: Collector, err: Stream) -> RunEnding:
    """Run the job to its end, whatever ends it.

    Raises:
        TorchnetError: The job could not be started, for a reason other than the network.
        Exception: An internal error before anything was measured.
    """
    failure: dict[str, Any] | None = None
    signals = interruption.BenchSignals()
    try:
        with signals:
            job = bench_job.resolved.job
            runtime = runtime_of(job)
            runtime.validate(job, cwd)
            code = runtime.launch(job, cwd, collector)
            signals.check()
    except KeyboardInterrupt as error:
        code = interruption.exit_code_of(error)
        failure = {"kind": "interrupted", "text": f"stopped by {interruption.signal_name(code)}"}
    except TorchnetError as error:
        if not collector.messages and not isinstance(error, NetworkError):
            raise
        collector.finish()
        err.line(f"torchnet: {error}")
        kind = _KINDS.get(error.exit_code, "internal")
        code, failure = error.exit_code, {"kind": kind, "text": str(error)}
    except Exception as error:
        # Keep the figures of a long run in spite of a defect here.
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


def _add_findings(found: Results) -> Results:
    """Return the results with their findings."""
    if any(one.wrong for one in found.collectives) and not found.exit_code:
        found = found.model_copy(update={"exit_code": WRONG})
    lacking: list[Lacking] = []
    findings: tuple[Finding, ...] = ()
    # Keep the figures of a long run in spite of a defect in the findings.
    try:
        from torchnet.bench.findings import find

        findings = find(found)
    except Exception as error:
        lacking.append(Lacking(what=FINDINGS, why=_own_text(error)))
    kinds = {one.kind for one in found.findings}
    findings = (*found.findings, *(one for one in findings if one.kind not in kinds))
    return found.model_copy(update={"findings": findings, "lacks": (*found.lacks, *lacking)})


def _own_text(error: Exception) -> str:
    return f"internal error: {type(error).__name__}: {printable(str(error), 300)}"


def _show(found: Results, options: BenchOptions, err: Stream, out: Stream) -> None:
    """Print the summary, to standard error if the JSON goes to standard output."""
    written = save(found, options.json, options.html)
    stream = err if options.json == "-" else out
    for line in render(found, color=stream.color, written=written).splitlines():
        stream.line(clean(line, colour=stream.color))
    for one in (err, out):
        one.surface.push(None)


def _warn_unwritable(options: BenchOptions) -> list[str]:
    """Warn about files that cannot be written before the run starts, rather than after an hour."""
    found = []
    for flag, path in (("--json", options.json), ("--html", options.html)):
        wrong = problem(path) if path else None
        if wrong:
            # With --json the results are in a file already, or on standard output.
            without = flag == "--html" and options.json is not None
            where = "there will be no report" if without else "the results will go to standard output"
            found.append(f"warning: {flag} {printable(str(path), 200)}: {wrong}; {where}")
    return found


def _mask_values(words: Sequence[str]) -> tuple[str, ...]:
    """Return the command line without the values of environment variables: they may be secrets, and results get
    shared."""
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
