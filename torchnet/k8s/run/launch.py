"""``torchnet launch --on kubernetes``: renders the job, submits it, monitors it to its end, and removes it."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping, Sequence
from functools import partial
from queue import SimpleQueue

from torchnet.config.model import JobSpec
from torchnet.config.sources import Origin
from torchnet.console.console import Console, Listener
from torchnet.console.files import problem, write_json
from torchnet.constants import STORE_PORTS
from torchnet.errors import ClusterError, TorchnetError
from torchnet.k8s.client.api import ApiClient, connect
from torchnet.k8s.objects.pod import processes
from torchnet.k8s.objects.run_objects import pod_of, prepare
from torchnet.k8s.run.deletion import clear
from torchnet.k8s.run.interruptible import ask
from torchnet.k8s.run.log_stream import allow
from torchnet.k8s.run.monitor import RunMonitor, RunOptions
from torchnet.k8s.run.run_info import RunInfo
from torchnet.k8s.run.submission import start
from torchnet.receipt.step_timing import summed
from torchnet.signals import Signals
from torchnet.text import printable

_STOPPED_SECONDS = 2.0  # for a reader who does not read, where the job or its launcher was to end
_LEAVE_SECONDS = 0.3  # the same after a second signal
_LOOK_MILLISECONDS = 50  # between two looks for signals


def close(console: Console, signals: Signals, *, stopped: bool = False) -> None:
    """Close it when all is read. After a signal, be it before or meanwhile, and if ``stopped``, after two seconds."""
    console.finish()
    while console.pending and not signals.came and not stopped:
        ready = select.poll()
        for descriptor in console.waiting():
            ready.register(descriptor, select.POLLOUT)
        ready.poll(_LOOK_MILLISECONDS)
        console.push()
    patience = _LEAVE_SECONDS if signals.count > 1 else _STOPPED_SECONDS
    console.close(patience if signals.came or stopped else None)


def see(
    door: ApiClient,
    known: RunInfo,
    console: Console,
    wishes: RunOptions,
    signals: Signals,
    *,
    json_path: str | None,
    told: SimpleQueue[str] | None = None,
) -> int:
    """Watch a run to its end (or until all have started), tell of it, and remove it where that is wished.

    A run that was to be detached stays, too, where it has ended by itself before that. ``told``: as Session has it.

    Raises:
        ClusterError: the cluster cannot be asked any more while the job goes on. A removal that fails is only told.
        TorchnetError: the same for a defect of torchnet's own.
    """
    try:
        outcome = RunMonitor(door, known, console, wishes, signals, told).run()
    except TorchnetError as error:
        close(console, signals)
        raise (ClusterError if isinstance(error, ClusterError) else TorchnetError)(
            f"{error.text}\n  the run {known.run} goes on",
            fix=f"torchnet attach {known.command}, or torchnet down {known.command}"
            + (f"; {error.fix}" if error.fix else ""),
        ) from None
    door.stop.set()
    if outcome.receipt is None:
        level = "warning" if outcome.stopped else "info"
        _next_commands(console, known, f"{known.run}: {outcome.left}; next", outcome.commands, level)
        close(console, signals)
        return outcome.code
    receipt = summed(outcome.receipt, asked=wishes.measure)
    console.event({"event": "receipt", "receipt": receipt})
    failure = receipt["failure"]
    stopped = failure is not None and failure["kind"] in ("interrupted", "timeout")
    detached = wishes.detach and not outcome.stopped
    removes = wishes.stops and not outcome.kept and not detached
    # Whether one that somebody else has stopped is still there, who only looks on does not know.
    if outcome.kept or (not removes and (detached or not stopped)):
        _next_commands(console, known, f"the run {known.run} is still there", ("logs", "down"))
    console.finish()
    # Before the removal, which can take long. On standard output it goes behind all that waits there.
    if json_path and json_path != "-":
        write_json(json_path, receipt)
    if removes:
        clear(door.access, known.namespace, known.run, console, signals)
    close(console, signals, stopped=stopped)
    if json_path == "-":
        write_json(json_path, receipt)
    return outcome.code


def _next_commands(
    console: Console, known: RunInfo, said: str, words: Sequence[str], level: str = "info"
) -> None:
    """The commands that go on with a run that is left."""
    commands = "\n".join(f"torchnet {word} {known.command}" for word in words)
    console.notice(f"{said}:\n{commands}", level)


def launch(
    job: JobSpec,
    origins: Mapping[str, Origin],  # noqa: ARG001  # what a runtime gets
    cwd: str,
    listener: Listener | None = None,
) -> int:
    """Run the job on the cluster; prints, writes the receipt, and returns the exit code.

    ``listener`` is the console's.

    Raises:
        UsageError: what was asked for cannot be, or the run's name is taken.
        NetworkError: an attachment does not exist.
        ClusterError: the cluster cannot be reached, or refuses; nothing is left there then, or what is left was told.
    """
    group = job.kubernetes
    with Signals() as signals:
        door: ApiClient = ask(lambda: connect(group.kubeconfig, group.context), signals, "nothing was made")
        prepared = prepare(job, cwd, group.namespace or door.access.namespace, os.environ)
        nproc = processes(job)
        console = Console(
            world_size=job.nnodes * nproc, ranks=job.output.ranks, quiet=job.output.quiet, listener=listener
        )
        door.access.silence.say = partial(console.notice, level="warning")
        for line in prepared.left_out:
            console.notice(f"does not travel: {printable(line)}", "warning")
        allow(job.nnodes, nproc, job.output.ranks, everybody=False, files=bool(job.output.log_dir))
        unwritable = problem(job.output.json_path) if job.output.json_path else None
        if unwritable:
            text = f"--json {job.output.json_path}: {unwritable}; the receipt will go to standard output"
            console.notice(text, "warning")
        told: SimpleQueue[str] = SimpleQueue()
        known = start(door, prepared.objects, pod_of(prepared.objects), console, signals, told.put)
        if isinstance(known, int):
            return known
        console.notice(f"run {known.run} in namespace {known.namespace}")
        if text := remains_open(job):
            console.notice(text)
        wishes = RunOptions(
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
        return see(door, known, console, wishes, signals, json_path=path, told=told)


def remains_open(job: JobSpec) -> str:
    """What no policy of the run closes, in one line: NetworkPolicy ends at eth0. "" where nothing is open."""
    if job.nnodes == 1 or job.kubernetes.multi_network_policy:
        return ""
    who, fix = "any host on the backend network", "--multi-network-policy closes them"
    if job.kubernetes.network_policy == "none":
        who, fix = (
            f"any pod that the namespace's policies admit and {who}",
            "--network-policy none leaves them open",
        )
    ports = f"{STORE_PORTS[0]}-{STORE_PORTS[-1]}"
    return f"open: the PyTorch store has no authentication, and {who} can reach its ports ({ports}); {fix}"
