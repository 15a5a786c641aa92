"""The headless Service by whose name the workers find rank 0's pod on the primary network, without the API."""

from __future__ import annotations

from typing import Any

from torchnet import constants
from torchnet.config.job_spec import JobSpec
from torchnet.constants import INDEX_LABEL, JOBSET_JOB, NODE_RANK_LABEL, RUN_LABEL

_PORT = "join"


def service_name(run_id: str) -> str:
    """Return the name of the run's Service, which must begin with a letter. A JobSet creates one with its own name."""
    return run_id if run_id[0].isalpha() else f"run-{run_id}"


def service(job: JobSpec, run_id: str) -> dict[str, Any] | None:
    """Return the Service without its metadata; None if the run needs none of its own.

    It selects rank 0 alone, so that the name servers do not have to follow all pods.
    """
    if job.kubernetes.static_ips or job.kubernetes.form == "jobset":
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "spec": {
            "clusterIP": "None",
            # The workers look for rank 0 before any of them is Ready.
            "publishNotReadyAddresses": True,
            # In a cluster with two families the pods' first address may be of either.
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {RUN_LABEL: run_id, rank_label(job): "0"},
            "ports": [{"name": _PORT, "port": constants.JOIN_PORT}],
        },
    }


def rank0_names(job: JobSpec, run_id: str) -> tuple[str, ...]:
    """Return the names of rank 0, relative to the domain of the namespace's Services; () with fixed addresses."""
    if job.kubernetes.static_ips:
        return ()
    if job.kubernetes.form == "jobset":  # its Service has all pods
        return (f"{run_id}-{JOBSET_JOB}-0-0.{run_id}",)
    name = service_name(run_id)
    return (name, f"{run_id}-0.{name}", f"_{_PORT}._tcp.{name}")


def rank_label(job: JobSpec) -> str:
    """Return the label of a pod that holds its worker's number."""
    return NODE_RANK_LABEL if job.kubernetes.form == "pods" else INDEX_LABEL
