"""``torchnet launch --on kubernetes``: render the job, submit it, monitor it to its end, and remove it."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

from torchnet.config.job_spec import JobSpec
from torchnet.console.console import Console, Listener
from torchnet.console.files import problem, write_json
from torchnet.constants import STORE_PORTS
from torchnet.errors import ClusterError, TorchnetError
from torchnet.k8s.client.api_client import ApiClient, connect
from torchnet.k8s.objects.pod import processes
from torchnet.k8s.objects.run_objects import pod_of, prepare
from torchnet.k8s.run.cleanup import clear
from torchnet.k8s.run.interruptible import ask
from torchnet.k8s.run.log_stream import allow
from torchnet.k8s.run.monitor import RunMonitor, RunOptions
from torchnet.k8s.run.network_policies import policy_warning
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.submission import NOTHING_CREATED, start
from torchnet.receipt.step_timing import summarize_samples
from torchnet.signals import Signals

_STOPPED_SECONDS = 2.0  # for a slow reader of the console, once the job or its launcher has been stopped
_LEAVE_SECONDS = 0.3  # the same after a second signal
_POLICY_SECONDS = 2.0  # for the response about policies, which only explain a failure
_LOOK_MILLISECONDS = 50  # between two checks for signals


def close(console: Console, signals: Signals, *, stopped: bool = False) -> None:
    """Close the console once its reader has taken all output.

    With ``stopped``, or once a signal has come, the reader gets 2 s, and 0.3 s after a second signal.
    """
    console.finish()
    while console.pending and not signals.received and not stopped:
        ready = select.poll()
        for descriptor in console.waiting():
            ready.register(descriptor, select.POLLOUT)
        ready.poll(_LOOK_MILLISECONDS)
        console.push()
    patience = _LEAVE_SECONDS if signals.count > 1 else _STOPPED_SECONDS
    console.close(patience if signals.received or stopped else None)


def monitor_and_report(
    client: ApiClient,
    known: RunInfo,
    console: Console,
    options: RunOptions,
    signals: Signals,
    *,
    json_path: str | None,
    warnings: SimpleQueue[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> int:
    """Monitor a run to its end, report it, and remove it if that is requested.

    With ``detach``, monitoring ends once all workers have started. A detached run stays even if it ends before that.

    Args:
        json_path: file for the receipt; "-" is standard output.
        warnings: for the console, from threads of the launcher.
        labels: of the run's pods; None if they are not known, so that a pod is read where they matter.

    Returns:
        The exit code.

    Raises:
        ClusterError: the cluster is no longer reachable; the job continues. A failed removal is only reported.
        TorchnetError: an internal error ended the monitoring; the job continues.
    """

    def report_attempt(number: int, receipt: dict[str, Any]) -> None:
        """Print the receipt of an attempt that is not the last, and write it beside the last one's."""
        body = summarize_samples(receipt, requested=options.measure)
        console.notice(f"attempt {number} of {known.run} is over")
        console.event({"event": "receipt", "receipt": body, "attempt": number})
        if json_path and json_path != "-":
            write_json(attempt_path(json_path, number), body)

    try:
        outcome = RunMonitor(client, known, console, options, signals, warnings, report_attempt).run()
    except TorchnetError as error:
        close(console, signals)
        raise (ClusterError if isinstance(error, ClusterError) else TorchnetError)(
            f"{error.text}\n  the run {known.run} continues",
            fix=f"torchnet attach {known.command}, or torchnet down {known.command}"
            + (f"; {error.fix}" if error.fix else ""),
        ) from None
    client.stop.set()
    if outcome.receipt is None:
        level = "warning" if outcome.stopped else "info"
        _next_commands(console, known, f"{known.run}: {outcome.left}; next", outcome.commands, level)
        close(console, signals)
        return outcome.code
    receipt = summarize_samples(outcome.receipt, requested=options.measure)
    console.event({"event": "receipt", "receipt": receipt})
    failure = receipt["failure"]
    stopped = failure is not None and failure["kind"] in ("interrupted", "timeout")
    if failure is not None and failure["kind"] == "timeout" and not outcome.started:
        # `torchnet attach` has not read the policies before.
        text = policy_warning(ApiClient(client.access, timeout=_POLICY_SECONDS), known, labels)
        if text:
            console.notice(text, "warning")
    detached = options.detach and not outcome.stopped
    removes = options.stops and not outcome.kept and not detached and not outcome.left
    if outcome.left:
        _next_commands(console, known, f"{known.run}: {outcome.left}; next", outcome.commands)
    # `torchnet attach` does not know whether a run that somebody else has stopped still exists.
    elif outcome.kept or (not removes and (detached or not stopped)):
        _next_commands(console, known, f"the run {known.run} is still there", ("logs", "down"))
    console.finish()
    # Before the removal, which can take long. On standard output, the receipt follows all pending output (below).
    if json_path and json_path != "-":
        write_json(json_path, receipt)
    if removes:
        clear(client.access, known.namespace, known.run, console, signals)
    close(console, signals, stopped=stopped)
    if json_path == "-":
        write_json(json_path, receipt)
    return outcome.code


def attempt_path(path: str, number: int) -> str:
    """Return the path of an earlier attempt's receipt: ``r.attempt-1.json`` beside ``r.json``."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.attempt-{number}{suffix}"


def _next_commands(
    console: Console, known: RunInfo, text: str, words: Sequence[str], level: str = "info"
) -> None:
    """Print the commands for a run that is left on the cluster."""
    commands = "\n".join(f"torchnet {word} {known.command}" for word in words)
    console.notice(f"{text}:\n{commands}", level)


def launch(job: JobSpec, cwd: str, listener: Listener | None = None) -> int:
    """Run the job on the cluster, print its output, and write its receipt.

    Args:
        cwd: directory that relative paths start from.
        listener: the console's listener.

    Returns:
        The exit code.

    Raises:
        UsageError: the options cannot be satisfied, or the run's name is in use.
        NetworkError: a network attachment does not exist, or has too few addresses.
        ClusterError: the cluster cannot be reached, or rejects an object. Objects that remain on it have been
            reported.
    """
    group = job.kubernetes
    with Signals() as signals:
        client: ApiClient = ask(lambda: connect(group.kubeconfig, group.context), signals, NOTHING_CREATED)
        prepared = prepare(job, cwd, group.namespace or client.access.namespace, os.environ)
        nproc = processes(job)
        console = Console(
            world_size=job.nnodes * nproc, ranks=job.output.ranks, quiet=job.output.quiet, listener=listener
        )
        client.access.silence.say = partial(console.notice, level="warning")
        for line in prepared.warnings:
            console.notice(line, "warning")
        allow(job.nnodes, nproc, job.output.ranks, everybody=False, files=bool(job.output.log_dir))
        unwritable = problem(job.output.json_path) if job.output.json_path else None
        if unwritable:
            text = f"--json {job.output.json_path}: {unwritable}; the receipt will go to standard output"
            console.notice(text, "warning")
        warnings: SimpleQueue[str] = SimpleQueue()
        known = start(
            client,
            prepared.objects,
            pod_of(prepared.objects),
            prepared.attachments,
            console,
            signals,
            warnings.put,
            job.nnodes,
        )
        if isinstance(known, int):
            return known
        console.notice(f"run {known.run} in namespace {known.namespace}")
        if text := open_ports_notice(job):
            console.notice(text)
        labels = pod_of(prepared.objects)["metadata"]["labels"]
        _check_policies(client, known, labels, warnings.put)
        options = RunOptions(
            start_timeout=job.run.start_timeout,
            timeout=job.run.timeout,
            grace=job.run.grace,
            ranks=job.output.ranks,
            log_dir=os.path.join(cwd, job.output.log_dir) if job.output.log_dir else None,
            keep=group.keep,
            detach=group.detach,
            measure=job.output.measure,
        )
        path = job.output.json_path
        return monitor_and_report(
            client, known, console, options, signals, json_path=path, warnings=warnings, labels=labels
        )


def _check_policies(
    client: ApiClient, known: RunInfo, labels: Mapping[str, str], warn: Callable[[str], None]
) -> None:
    """Warn of NetworkPolicies that keep the workers from joining. In the background, while the pods start."""

    def check() -> None:
        if text := policy_warning(client, known, labels):
            warn(text)

    threading.Thread(target=check, name="policies", daemon=True).start()


def open_ports_notice(job: JobSpec) -> str:
    """Return a line about the ports that no policy of the run closes; "" if all are closed.

    A NetworkPolicy applies only to a pod's primary interface (eth0), not to the backend network.
    """
    if job.nnodes == 1 or job.kubernetes.multi_network_policy:
        return ""
    who = "any host on the backend network"
    fix = "--multi-network-policy closes all ports there, if a controller enforces it"
    if job.host_network:
        who = "any machine that reaches the workers' hosts"
        fix = "no NetworkPolicy applies in the hosts' network; torchnet.init() opens the store on the backend only"
    elif job.kubernetes.network_policy == "none":
        who, fix = (
            f"any pod that the namespace's policies admit and {who}",
            "--network-policy none leaves them open",
        )
    ports = f"{STORE_PORTS[0]}-{STORE_PORTS[-1]}"
    return (
        f"the PyTorch store (ports {ports}), Gloo and NCCL (any port) have no authentication, and {who} can connect to "
        f"them; {fix}"
    )
