"""From the job to what each local node's agent is told (pure, apart from what is passed in)."""

from __future__ import annotations

import os
import re

from torchnet import names
from torchnet.agent.spec import AgentSpec
from torchnet.runtimes.local.gpus import Shares
from torchnet.spec.model import JobSpec


def run_name(script: str, random: str) -> str:
    """A run id of the script's name and some randomness: a DNS-1123 label, as Kubernetes will want it."""
    stem = re.sub(r"[^a-z0-9]+", "-", os.path.splitext(os.path.basename(script))[0].lower()).strip("-")
    return f"{stem[:40].rstrip('-') or 'run'}-{random}"


def agent_specs(
    job: JobSpec, *, run_id: str, token: str, shares: Shares, python: str, cpus: int, loopback: bool
) -> list[AgentSpec]:
    """One specification for each node."""
    entry = "module" if job.module else "program" if job.no_python else "script"
    processes = job.nnodes * shares.nproc
    return [
        AgentSpec(
            run_id=run_id,
            nnodes=job.nnodes,
            node_rank=rank,
            nproc_per_node=shares.nproc,
            command=(job.script, *job.args),
            token=token,
            python=python,
            name=f"node-{rank}",
            entry=entry,  # type: ignore[arg-type]
            network="loopback" if loopback else "namespaces",
            runtime="local",
            attachments=() if loopback else names.LOCAL_ATTACHMENTS[: job.network.rails],
            family="auto" if loopback else job.network.family,
            preflight=job.network.preflight,
            loopback=loopback,
            max_restarts=job.run.max_restarts,
            grace=job.run.grace,
            link_grace=job.run.link_grace,
            stall_timeout=job.run.stall_timeout,
            stall_action=job.run.stall_action,
            start_timeout=job.run.start_timeout,
            log_dir=os.path.abspath(job.output.log_dir) if job.output.log_dir else "",
            tee=job.output.tee,
            redirects=job.output.redirects,
            stdin_rank=job.run.stdin_rank,
            env={**job.tune.variables(), **job.env},
            gpus=shares.gpus[rank] if shares.gpus is not None else None,
            hostid=f"{run_id}-{rank}",
            cpus=cpus / processes if processes > 1 else None,
            min_share=job.output.min_share,
            measure=job.output.measure,
        )
        for rank in range(job.nnodes)
    ]
