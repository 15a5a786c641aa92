"""The local launch: the agents' specifications, the supervisor that holds the nodes, and the job's monitor.

gpus ── agent specifications ── supervisor (namespaces, fabric, nodes) ── monitor (events, signals, end)
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
from dataclasses import replace

from torchnet.agent.spec import AgentSpec
from torchnet.config.agent_spec import agent_spec
from torchnet.config.fault_syntax import parse
from torchnet.config.job_spec import LOOPBACK, JobSpec
from torchnet.console.console import Console, Listener
from torchnet.console.files import problem, write_json
from torchnet.launcher import error_file, output_choice
from torchnet.launcher.console_feed import patience
from torchnet.launcher.gpus import Shares
from torchnet.launcher.run_name import run_name
from torchnet.local import supervisor_process
from torchnet.local.agent_channel import AgentChannels
from torchnet.local.internet_access import Internet
from torchnet.local.monitor import LocalMonitor
from torchnet.local.supervisor_input import SupervisorInput
from torchnet.local.supervisor_process import Supervisor
from torchnet.local.topology import SandboxShape
from torchnet.local.validation import is_hidden, shares_of


def agent_specs(
    job: JobSpec, *, run_id: str, token: str, start: str, shares: Shares, python: str, cpus: int
) -> list[AgentSpec]:
    """Return one specification per node; ``start`` distinguishes this start from others of the same run."""
    common = agent_spec(job, run_id, shares.nproc, job.script, job.attachments)
    return [
        replace(
            common,
            node_rank=rank,
            name=f"node-{rank}",
            token=token,
            uid=f"{start}/{rank}",
            python=python,
            gpus=shares.gpus[rank] if shares.gpus is not None else None,
            hostid=f"{run_id}-{rank}",
            cpus=cpus / common.world_size if common.world_size > 1 else None,
        )
        for rank in range(job.nnodes)
    ]


def run(job: JobSpec, listener: Listener | None, channels: AgentChannels, supervisor: Supervisor) -> int:
    """Run the job, print its output, write the receipt and return the exit code.

    Args:
        listener: the console's.
        supervisor: Waits for its input.

    Raises:
        UsageError: see :func:`torchnet.local.validation.shares_of`.
        RefusedError: the machine refuses namespaces (names the mechanism and a fix), or no loopback address is free.
    """
    on_loopback = job.network.networks == (LOOPBACK,)
    shares = shares_of(job)
    specs = agent_specs(
        job,
        run_id=job.run_id or run_name(job.script, secrets.token_hex(3)),
        token=secrets.token_hex(16),
        start=secrets.token_hex(4),
        shares=shares,
        python=os.environ.get("PYTHON_EXEC") or sys.executable,  # torchrun's variable
        cpus=len(os.sched_getaffinity(0)),
    )
    place = "/tmp" if not on_loopback and is_hidden(tempfile.gettempdir()) else None
    specs = output_choice.with_log_dir(specs, place)
    console = output_choice.console_of(job.output, specs[0], listener)
    internet = Internet(wanted=not on_loopback)
    with contextlib.ExitStack() as cleanup:
        if on_loopback:
            from torchnet.local.loopback import reserve_block

            shape = None
            block, reservation = reserve_block()
            cleanup.enter_context(reservation)
        else:
            faults = tuple(parse(text) for text in job.network.faults)
            shape, block = SandboxShape(job.network.rate, job.network.mtu, internet.available, faults), 0
        given = SupervisorInput(os.getpid(), tuple(specs), shape, block)
        supervisor_process.start(supervisor, given.dumps(), channels.theirs, sandbox=not on_loopback)
        cleanup.callback(internet.close)
        internet.attach(supervisor.init_pid)
        _show_notes(job, console, shares.note, internet.note)
        monitor = LocalMonitor(specs, supervisor, channels, console)
        receipt = monitor.run(job.run.timeout, internet.failure)
    if job.output.measure:
        # Imported here, because loading the receipt's pydantic model would delay the start.
        from torchnet.receipt.step_timing import summarize_samples

        rate = job.network.rate
        receipt = summarize_samples(receipt, rate * job.network.rails if rate else None, requested=True)
    console.event({"event": "receipt", "receipt": receipt})
    failure = receipt["failure"]
    if failure is not None:
        error_file.report(console, os.environ, monitor.error_file(failure["rank"]), failure["code"])
    if failure is not None and failure["kind"] == "script":
        console.finish()  # after the root cause
        for line in monitor.refused():
            console.notice(line, "warning")
    console.close(patience(failure))
    code = int(receipt["exit_code"])
    if job.output.json_path:
        write_json(job.output.json_path, receipt)
    return code


def _show_notes(job: JobSpec, console: Console, gpu_note: str, internet_note: str) -> None:
    unwritable = problem(job.output.json_path) if job.output.json_path else None
    if unwritable:
        text = f"--json {job.output.json_path}: {unwritable}; the receipt will go to standard output"
        console.notice(text, "warning")
    on_loopback = job.network.networks == (LOOPBACK,)
    no_proof = "running on loopback: no backend network is used, so the receipt proves nothing"
    for note in filter(None, (gpu_note, no_proof if on_loopback else internet_note)):
        console.notice(note)
