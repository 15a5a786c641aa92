"""Convert a job to the specification of its agents, locally and on Kubernetes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torchnet.agent.spec import AgentSpec
from torchnet.config.job_spec import JobSpec
from torchnet.constants import COLD_START_SECONDS
from torchnet.network.address_sources import NetworkKind
from torchnet.network.attachment import NetworkAttachment


def network_kind(job: JobSpec) -> NetworkKind:
    """Return the job's kind of network, as in the receipt."""
    if job.on == "kubernetes":
        if job.host_network:
            return "host"
        return "static" if job.kubernetes.static_ips else "multus-status"
    if job.on == "hosts":
        return "host"
    return "namespaces" if job.attachments else "loopback"


def agent_spec(
    job: JobSpec, run_id: str, nproc_per_node: int, script: str, attachments: Sequence[NetworkAttachment]
) -> AgentSpec:
    """Return the specification of the job's agents; fields that differ between workers keep their defaults.

    Args:
        script: The path of the script for the workers; in a pod it can differ from ``job.script``.
        attachments: The job's attachments, with their namespaces.
    """
    local = job.on != "kubernetes"
    loopback = network_kind(job) == "loopback"
    alone = local and job.nnodes * nproc_per_node == 1  # it has standard input, as any single program has
    return AgentSpec(
        run_id=run_id,
        nnodes=job.nnodes,
        nproc_per_node=nproc_per_node,
        command=(script, *job.args),
        entry="module" if job.module else "program" if job.no_python else "script",
        network=network_kind(job),
        runtime="agent" if job.on == "hosts" else job.on,
        attachments=tuple(attachments),
        devices=tuple(one.name for one in job.network.host_networks if one.kind == "rdma"),
        family="auto" if loopback else job.network.family,
        preflight=job.network.preflight,
        loopback=loopback,
        max_restarts=job.run.max_restarts,
        grace=job.run.grace,
        link_grace=job.run.link_grace,
        stall_timeout=job.run.stall_timeout,
        stall_action=job.run.stall_action,
        start_timeout=job.run.start_timeout + (0.0 if local else COLD_START_SECONDS),
        # On Kubernetes the launcher writes the files, and the pod's containers have the variables.
        log_dir=os.path.abspath(job.output.log_dir) if local and job.output.log_dir else "",
        env={**job.tune.variables(), **job.env} if local else {},
        raw=job.output.no_prefix,
        own_console=local,
        rdzv_id=job.rdzv_id or "",
        role=job.role,
        virtual_local_rank=job.virtual_local_rank,
        signals=job.run.signals,
        tee=job.output.tee,
        redirects=job.output.redirects,
        stdin_rank=0 if alone else job.run.stdin_rank,
        min_share=job.output.min_share,
        measure=job.output.measure,
        full_receipt=job.output.full_receipt,
    )
