"""The local runtime: two networks on this machine, an agent in each node, and the same code as in a pod.

gpus ── workers (what each agent is told) ── sandbox (namespaces, fabric, nodes) ── session (events, signals, end)
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping

from torchnet.agent import main as agent
from torchnet.errors import UsageError
from torchnet.network.sources import AddressSource, MultusStatus
from torchnet.runtimes import descriptors
from torchnet.runtimes.local import gpus, loopback, places, plan, sandbox, workers
from torchnet.runtimes.local.faults import Planted
from torchnet.runtimes.local.internet import Internet
from torchnet.runtimes.local.link import Links, Reporter
from torchnet.runtimes.local.session import Session
from torchnet.spec.faults import parse
from torchnet.spec.layers import Origin
from torchnet.spec.model import LOOPBACK, JobSpec
from torchnet.ui.console import Console, Listener
from torchnet.ui.save import problem, write_json

_FILES = 6  # open ones for each node, in the launcher and in the process that builds the networks
_STOPPED_SECONDS = 2.0  # for a reader who does not read, where the job was to end now


def launch(
    job: JobSpec,
    origins: Mapping[str, Origin],  # noqa: ARG001  # what a runtime gets
    listener: Listener | None = None,
) -> int:
    """Run the job on this machine; prints, writes the receipt, and returns the exit code.

    ``listener`` is the console's.

    Raises:
        UsageError: the job asks for what this machine does not have.
        RefusedError: namespaces are refused; the message names the mechanism and a fix.
    """
    on_loopback = job.network.networks == (LOOPBACK,)
    cpus = len(os.sched_getaffinity(0))
    shares = gpus.share(job.nnodes, job.nproc_per_node, gpus.visible({**os.environ, **job.env}), cpus)
    _check_ranks(job, job.nnodes * shares.nproc)
    if not on_loopback:
        places.check(job)
    run_id = job.run_id or workers.run_name(job.script, secrets.token_hex(3))
    specs = workers.agent_specs(
        job,
        run_id=run_id,
        token=secrets.token_hex(16),
        shares=shares,
        python=sys.executable,
        cpus=cpus,
        loopback=on_loopback,
    )
    planted = tuple(parse(text) for text in job.network.faults)
    descriptors.allow(_FILES * job.nnodes, f"{job.nnodes} nodes", "fewer nodes")
    links = Links(job.nnodes)
    internet = Internet(wanted=not on_loopback)
    ipv4 = job.network.family == "ipv4"
    planned = [plan.node(rank, job.network.rails, ipv4=ipv4) for rank in range(job.nnodes)]
    nodes = Planted(planted).readdressed(planned)

    block = loopback.free_block() if on_loopback else 0

    def main(rank: int) -> int:
        mine = links.in_node(rank)
        source = (
            loopback.Source(rank, block) if on_loopback else _source(nodes, rank, specs[rank].attachments)
        )
        return agent.run(specs[rank], source, lambda loop, worker: Reporter(loop, mine, worker))

    console = Console(
        world_size=specs[0].world_size, ranks=job.output.ranks, quiet=job.output.quiet, listener=listener
    )
    running: sandbox.Sandbox | loopback.Loopback
    if on_loopback:
        running = loopback.Loopback(job.nnodes, main)
    else:
        shape = sandbox.Shape(job.network.rate, job.network.mtu, internet.available, planted)
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
        receipt = Session(specs, running, links, console).run(job.run.timeout, internet.trouble)
    finally:
        internet.close()
    if job.output.measure:
        # It loads pydantic's model of a receipt, which a start need not wait for.
        from torchnet.ui.measured import summed

        rate = job.network.rate
        receipt = summed(receipt, rate * job.network.rails if rate else None, asked=True)
    console.event({"event": "receipt", "receipt": receipt})
    stopped = receipt["failure"] is not None and receipt["failure"]["kind"] in ("interrupted", "timeout")
    console.close(_STOPPED_SECONDS if stopped else None)
    code = int(receipt["exit_code"])
    if job.output.json_path:
        write_json(job.output.json_path, receipt)
    return code


def _source(nodes: list[plan.Node], rank: int, attachments: tuple[str, ...]) -> AddressSource:
    """What Multus would have written for this node's pod, and for rank 0's."""
    return MultusStatus(plan.network_status(nodes[rank]), plan.network_status(nodes[0]), attachments)


def _check_ranks(job: JobSpec, world_size: int) -> None:
    """The specification could not: how many processes a node runs may depend on the machine's GPUs."""
    stdin = () if job.run.stdin_rank is None else (job.run.stdin_rank,)
    asked = max((*job.output.ranks, *stdin), default=0)
    if asked >= world_size:
        raise UsageError(
            f"rank {asked} is asked for, and the job's are 0 to {world_size - 1}", fix="--nproc-per-node N"
        )
