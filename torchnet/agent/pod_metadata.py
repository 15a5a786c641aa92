"""A pod's metadata as far as it counts for discovery: which pod is rank 0's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.errors import ClusterError
from torchnet.names import ATTEMPT_LABEL, INDEX_LABEL, NODE_RANK_LABEL, RUN_LABEL

# The first that the own pod has is used; those without a prefix are older than the index's label (Kubernetes 1.28).
_JOB_LABELS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")


@dataclass(frozen=True)
class Pod:
    """The part of a pod's metadata that counts here."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    created: str
    ending: bool

    @classmethod
    def read(cls, value: Any) -> Pod:
        """Of one object of an answer. Raises ClusterError where it is none."""
        data = value.get("metadata") if isinstance(value, dict) else None
        if not isinstance(data, dict) or not isinstance(data.get("name"), str):
            raise ClusterError("the API server's answer holds something that is no pod")
        return cls(
            name=data["name"],
            labels=_texts(data.get("labels")),
            annotations=_texts(data.get("annotations")),
            created=str(data.get("creationTimestamp") or ""),
            ending=bool(data.get("deletionTimestamp")),
        )


def selector(own: Pod) -> str:
    """The labels by which rank 0's pod is found, given the own pod. Raises ClusterError where nothing tells."""
    rank = NODE_RANK_LABEL if NODE_RANK_LABEL in own.labels else INDEX_LABEL
    for label in (RUN_LABEL, *_JOB_LABELS):
        if own.labels.get(label) and (rank in own.labels or label == RUN_LABEL):
            return f"{label}={own.labels[label]},{rank}=0"
    raise ClusterError(
        f"nothing tells which pod is rank 0: {own.name} is of no Indexed Job, and has no labels {RUN_LABEL} and "
        f"{NODE_RANK_LABEL}",
        fix=f"label the pods {RUN_LABEL}=NAME and {NODE_RANK_LABEL}=0, 1, …, or give the agents --rank0 ADDRESS",
    )


def newest(own: Pod | None, pods: Sequence[Pod]) -> Pod | None:
    """Rank 0's pod among those found: of the own restart attempt, not on its way out, the last that was made."""
    live = [pod for pod in pods if not pod.ending]
    if own is not None:
        attempt = own.labels.get(ATTEMPT_LABEL)
        live = [pod for pod in live if pod.labels.get(ATTEMPT_LABEL) == attempt]
    return max(live, key=lambda pod: (pod.created, pod.name), default=None)


def _texts(value: Any) -> dict[str, str]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in items if isinstance(text, str)}
