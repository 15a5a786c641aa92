"""What is to be known of a run besides its pods: its size, from the annotation that every workload carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from torchnet.constants import JOBSET_JOB, RUN_LABEL, SPEC_ANNOTATION
from torchnet.errors import UsageError
from torchnet.k8s.client.kinds import JOBSET, Kind, kind_of
from torchnet.k8s.run.worker_set import seconds
from torchnet.network.address_sources import AddressSourceKind
from torchnet.text import loads, printable

_LONGEST, _DEEPEST = 256 << 10, 8  # what the API server allows of annotations; torchnet's own has one level


@dataclass(frozen=True)
class RunInfo:
    """One run. ``made`` is unix time; ``name`` and ``uid`` the workload's (a JobSet's, a Job's, or the first pod's)."""

    run: str
    namespace: str
    kind: Kind
    name: str
    nnodes: int
    nproc_per_node: int
    made: float = 0.0
    uid: str = ""
    network: AddressSourceKind = "multus-status"

    @property
    def restarts(self) -> bool:
        """Whether the cluster starts the gang again after a failure."""
        return self.kind == JOBSET

    @property
    def maker(self) -> str:
        """The object that makes the pods, and whose events say why it cannot."""
        return f"{self.name}-{JOBSET_JOB}-0" if self.restarts else self.name

    def node(self, rank: int) -> str:
        """A worker's name in all output."""
        return f"{self.run}-{rank}"

    @property
    def command(self) -> str:
        """The run as the commands take it."""
        return f"{self.run} -n {self.namespace}"


def facts(workload: dict[str, Any]) -> RunInfo:
    """Of a Job, a JobSet or a plain Pod that bears a run's label.

    Raises:
        UsageError: its annotation is missing, or none of torchnet's.
    """
    meta = workload["metadata"]
    run = str((meta.get("labels") or {}).get(RUN_LABEL) or meta["name"])
    text = (meta.get("annotations") or {}).get(SPEC_ANNOTATION)
    try:
        data = loads(text or "{}", max_size=_LONGEST, max_depth=_DEEPEST)
        nnodes, nproc = int(data["nnodes"]), int(data["nproc_per_node"])
        if not (1 <= nnodes <= 10_000 and 1 <= nproc <= 1024):
            raise ValueError("a number is out of range")
        network = data["network"]
        if network not in get_args(AddressSourceKind):
            raise ValueError("an unknown address source")
    except (ValueError, TypeError, KeyError):
        raise UsageError(
            f"{workload['kind']} {meta['name']} has no annotation {SPEC_ANNOTATION} that can be read"
            f" ({printable(str(text), 80)}): torchnet cannot tell the run's size",
            fix=f"kubectl get {kind_of(workload).resource} {meta['name']} -n {meta['namespace']} -o yaml",
        ) from None
    made = seconds(meta.get("creationTimestamp"))
    uid = str(meta.get("uid") or "")
    return RunInfo(run, meta["namespace"], kind_of(workload), meta["name"], nnodes, nproc, made, uid, network)
