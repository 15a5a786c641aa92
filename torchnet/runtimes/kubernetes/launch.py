"""``torchnet launch --on kubernetes``: the job rendered, made, watched to its end, and removed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from queue import SimpleQueue

from torchnet.names import STORE_PORTS
from torchnet.network.text import printable
from torchnet.render.command import processes
from torchnet.render.objects import pod_of
from torchnet.render.prepared import prepare
from torchnet.runtimes.kubernetes.door import Door, connect
from torchnet.runtimes.kubernetes.following import allow
from torchnet.runtimes.kubernetes.interruptible import ask
from torchnet.runtimes.kubernetes.launching import see
from torchnet.runtimes.kubernetes.signals import Signals
from torchnet.runtimes.kubernetes.starting import start
from torchnet.runtimes.kubernetes.wishes import Wishes
from torchnet.spec.layers import Origin
from torchnet.spec.model import JobSpec
from torchnet.ui.console import Console, Listener
from torchnet.ui.save import problem


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
        door: Door = ask(lambda: connect(group.kubeconfig, group.context), signals, "nothing was made")
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
        wishes = Wishes(
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
        code = see(door, known, console, wishes, signals, json_path=path, told=told)
        if signals.last and listener is not None:  # it may have come at the end, and only shortened that
            listener({"event": "signal", "number": signals.last})
        return code


def remains_open(job: JobSpec) -> str:
    """What no policy of the run closes, in one line: NetworkPolicy ends at eth0. "" where nothing is open."""
    if job.nnodes == 1 or job.kubernetes.multi_network_policy:
        return ""
    who, fix = "any host on the backend network", "--multi-network-policy closes them"
    if job.kubernetes.network_policy == "none":
        who, fix = f"any pod of the cluster and {who}", "--network-policy none leaves them open"
    ports = f"{STORE_PORTS[0]}-{STORE_PORTS[-1]}"
    return f"open: the PyTorch store has no authentication, and {who} can reach its ports ({ports}); {fix}"
