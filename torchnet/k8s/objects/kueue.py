"""What Kueue reads of a run's objects: labels of the workload, annotations of its pods (pure).

Sources: "Labels and Annotations", "Run Plain Pods" and "Topology Aware Scheduling" in Kueue's documentation.
"""

from __future__ import annotations

from torchnet.config.job_spec import JobSpec
from torchnet.config.k8s_values import parse_topology
from torchnet.constants import NODE_RANK_LABEL, PRIORITY_LABEL, QUEUE_LABEL

_GROUP_LABEL, _GROUP_COUNT = "kueue.x-k8s.io/pod-group-name", "kueue.x-k8s.io/pod-group-total-count"
# Without it, a group with a failed pod keeps its quota and waits for somebody to create a replacement.
_RETRIABLE = "kueue.x-k8s.io/retriable-in-group"
_INDEX_LABEL = "kueue.x-k8s.io/pod-group-pod-index-label"
_TOPOLOGY = "kueue.x-k8s.io/podset-{}-topology"


def workload_labels(job: JobSpec, group: str = "") -> dict[str, str]:
    """Return the labels of a Job, a JobSet, or each plain pod; {} without a queue.

    Args:
        group: the name of the group of plain pods.
    """
    if not job.kubernetes.queue:
        return {}
    priority = job.kubernetes.workload_priority
    return {
        QUEUE_LABEL: job.kubernetes.queue,
        **({PRIORITY_LABEL: priority} if priority else {}),
        **({_GROUP_LABEL: group} if group else {}),
    }


def group_annotations(job: JobSpec) -> dict[str, str]:
    """Return the annotations that make plain pods one group; {} without a queue."""
    if not job.kubernetes.queue:
        return {}
    ranks = {_INDEX_LABEL: NODE_RANK_LABEL} if job.kubernetes.topology else {}
    return {_GROUP_COUNT: str(job.nnodes), _RETRIABLE: "false", **ranks}


def pod_annotations(job: JobSpec) -> dict[str, str]:
    """Return the annotations of the pod template that ask for a place in the topology."""
    if not job.kubernetes.topology:
        return {}
    strength, level = parse_topology(job.kubernetes.topology)
    return {_TOPOLOGY.format(strength): level or "true"}
