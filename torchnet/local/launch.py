"""The local launch: the agents' specifications, the sandbox around the nodes, and the job's monitor.

gpus ── agent specifications ── sandbox (namespaces, fabric, nodes) ── monitor (events, signals, end)
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import replace

from torchnet import rlimits
from torchnet.agent import agent
from torchnet.agent.spec import AgentSpec
from torchnet.config.agent_spec import agent_spec
from torchnet.config.fault_syntax import parse
from torchnet.config.job_spec import LOOPBACK, JobSpec
from torchnet.config.sources import Origin
from torchnet.console.console import Console, Listener
from torchnet.console.files import problem, write_json
from torchnet.errors import UsageError
from torchnet.local import gpus, loopback, node, sandbox, topology
from torchnet.local.agent_channel import AgentChannels, ChannelReporter
from torchnet.local.faults import PlantedFault
from torchnet.local.gpus import Shares
from torchnet.local.internet_access import Internet
from torchnet.local.monitor import LocalMonitor
from torchnet.network.address_sources import AddressSource, MultusStatus
from torchnet.network.attachment import NetworkAttachment


def run_name(script: str, random: str) -> str:
    """Return a run ID from the script's name and ``random``: a DNS-1123 label, as Kubernetes requires."""
    stem = re.sub(r"[^a-z0-9]+", "-", os.path.splitext(os.path.basename(script))[0].lower()).strip("-")
    return f"{stem[:40].rstrip('-') or 'run'}-{random}"


def agent_specs(
    job: JobSpec, *, run_id: str, token: str, shares: Shares, python: str, cpus: int
) -> list[AgentSpec]:
    """Return one specification per node."""
    common = agent_spec(job, run_id, shares.nproc, job.script, job.attachments)
    return [
        replace(
            common,
            node_rank=rank,
            name=f"node-{rank}",
            token=token,
            python=python,
            gpus=shares.gpus[rank] if shares.gpus is not None else None,
            hostid=f"{run_id}-{rank}",
            cpus=cpus / common.world_size if common.world_size > 1 else None,
        )
        for rank in range(job.nnodes)
    ]


_FILES = 6  # open files per node, in the launcher and in the process that builds the networks
_STOPPED_SECONDS = 2.0  # how long to wait for a reader that does not read, if the job was stopped


def launch(
    job: JobSpec,
    origins: Mapping[str, Origin],  # noqa: ARG001  # every runtime gets it
    listener: Listener | None = None,
) -> int:
    """Run the job on this machine, print its output, write the receipt and return the exit code.

    Args:
        origins: unused here.
        listener: the console's.

    Raises:
        UsageError: the job needs something that this machine does not have.
        RefusedError: the machine refuses namespaces (names the mechanism and a fix), or no loopback address is free.
    """
    on_loopback = job.network.networks == (LOOPBACK,)
    cpus = len(os.sched_getaffinity(0))
    shares = gpus.share(job.nnodes, job.nproc_per_node, gpus.visible({**os.environ, **job.env}), cpus)
    _check_ranks(job, job.nnodes * shares.nproc)
    if not on_loopback:
        node.check(job)
    run_id = job.run_id or run_name(job.script, secrets.token_hex(3))
    specs = agent_specs(
        job,
        run_id=run_id,
        token=secrets.token_hex(16),
        shares=shares,
        python=sys.executable,
        cpus=cpus,
    )
    planted = tuple(parse(text) for text in job.network.faults)
    rlimits.allow(_FILES * job.nnodes, f"{job.nnodes} nodes", "fewer nodes")
    links = AgentChannels(job.nnodes)
    internet = Internet(wanted=not on_loopback)
    ipv4 = job.network.family == "ipv4"
    planned = [topology.node(rank, job.network.rails, ipv4=ipv4) for rank in range(job.nnodes)]
    nodes = PlantedFault(planted).readdressed(planned)

    block = loopback.free_block() if on_loopback else 0

    def main(rank: int) -> int:
        mine = links.in_node(rank)
        source = (
            loopback.LoopbackSource(rank, block)
            if on_loopback
            else _source(nodes, rank, specs[rank].attachments)
        )
        return agent.run(specs[rank], source, lambda loop, worker: ChannelReporter(loop, mine, worker))

    console = Console(
        world_size=specs[0].world_size, ranks=job.output.ranks, quiet=job.output.quiet, listener=listener
    )
    running: sandbox.Sandbox | loopback.Loopback
    if on_loopback:
        running = loopback.Loopback(job.nnodes, main)
    else:
        shape = sandbox.SandboxShape(job.network.rate, job.network.mtu, internet.available, planted)
        running = sandbox.start(nodes, main, shape, node_files=links.descriptors())
        internet.attach(running.init_pid)
    notes = [shares.note] if shares.note else []
    unwritable = problem(job.output.json_path) if job.output.json_path else None
    if unwritable:
        text = f"--json {job.output.json_path}: {unwritable}; the receipt will go to standard output"
        console.notice(text, "warning")
    if on_loopback:
        notes.append("on loopback, as asked: no second network is used, and nothing is proved")
    elif internet.note:
        notes.append(internet.note)
    for note in notes:
        console.notice(note)
    try:
        receipt = LocalMonitor(specs, running, links, console).run(job.run.timeout, internet.trouble)
    finally:
        internet.close()
    if job.output.measure:
        # Imported here, because loading the receipt's pydantic model would delay the start.
        from torchnet.receipt.step_timing import summarize_samples

        rate = job.network.rate
        receipt = summarize_samples(receipt, rate * job.network.rails if rate else None, requested=True)
    console.event({"event": "receipt", "receipt": receipt})
    stopped = receipt["failure"] is not None and receipt["failure"]["kind"] in ("interrupted", "timeout")
    console.close(_STOPPED_SECONDS if stopped else None)
    code = int(receipt["exit_code"])
    if job.output.json_path:
        write_json(job.output.json_path, receipt)
    return code


def _source(
    nodes: list[topology.NodePlan], rank: int, attachments: tuple[NetworkAttachment, ...]
) -> AddressSource:
    """Return the node's address source: what Multus would write for its pod, and for rank 0's."""
    return MultusStatus(
        topology.network_status_annotation(nodes[rank]),
        topology.network_status_annotation(nodes[0]),
        attachments,
    )


def _check_ranks(job: JobSpec, world_size: int) -> None:
    """Check the ranks in the job's options.

    The job specification cannot: the number of processes per node may depend on the machine's GPUs.
    """
    stdin = () if job.run.stdin_rank is None else (job.run.stdin_rank,)
    asked = max((*job.output.ranks, *stdin), default=0)
    if asked >= world_size:
        raise UsageError(
            f"rank {asked} is asked for, and the job's are 0 to {world_size - 1}", fix="--nproc-per-node N"
        )
