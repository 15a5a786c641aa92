"""Facts about a run apart from its pods: names and, from its workload's annotation, its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from torchnet.constants import JOBSET_JOB, QUEUE_LABEL, RUN_LABEL, SPEC_ANNOTATION
from torchnet.errors import UsageError
from torchnet.k8s.client.kinds import JOBSET, Kind, kind_of, own, run_of, selector
from torchnet.k8s.run.worker_set import seconds
from torchnet.network.address_sources import AddressSourceKind
from torchnet.text import loads, printable

_LONGEST, _DEEPEST = 256 << 10, 8  # bytes (the API server's limit) and levels (torchnet's own has one)


@dataclass(frozen=True)
class RunInfo:
    """One run.

    Attributes:
        name: the name of its workload: the JobSet, the Job, or the first plain pod.
        created: the creation time of the workload, as unix time.
        uid: the UID of the workload.
        network: where the workers' addresses come from.
        label: the key of the label with the run's name, which all of its objects have.
        queue: the LocalQueue of Kueue; "" if the run is in none.
    """

    run: str
    namespace: str
    kind: Kind
    name: str
    nnodes: int
    nproc_per_node: int
    created: float = 0.0
    uid: str = ""
    network: AddressSourceKind = "multus-status"
    label: str = RUN_LABEL
    queue: str = ""

    @property
    def selector(self) -> str:
        """The label selector that finds all objects of the run."""
        return selector(self.run, self.label)

    @property
    def restarts(self) -> bool:
        """Whether the cluster can restart all workers after a failure: only a JobSet does."""
        return self.kind == JOBSET

    @property
    def pod_creator(self) -> str:
        """The name of the object that creates the pods; its Events say why it cannot."""
        return f"{self.name}-{JOBSET_JOB}-0" if self.restarts else self.name

    def node(self, rank: int) -> str:
        """The name of a worker in all output."""
        return f"{self.run}-{rank}"

    @property
    def command(self) -> str:
        """The arguments that name this run to torchnet's commands."""
        return f"{self.run} -n {self.namespace}"


def read_run_info(workload: dict[str, Any]) -> RunInfo:
    """Read the facts of a run from its workload: a Job, a JobSet or a plain Pod.

    Raises:
        UsageError: the annotation is missing, or is not torchnet's.
    """
    meta = workload["metadata"]
    run, label = run_of(meta)
    run = run or str(meta["name"])
    text = own(meta.get("annotations"), SPEC_ANNOTATION)
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
            f"{workload['kind']} {meta['name']}: invalid annotation {SPEC_ANNOTATION} ({printable(str(text), 80)})",
            fix=f"kubectl get {kind_of(workload).resource} {meta['name']} -n {meta['namespace']} -o yaml",
        ) from None
    created = seconds(meta.get("creationTimestamp"))
    uid = str(meta.get("uid") or "")
    queue = printable(str((meta.get("labels") or {}).get(QUEUE_LABEL) or ""), 253)
    return RunInfo(
        run,
        meta["namespace"],
        kind_of(workload),
        meta["name"],
        nnodes,
        nproc,
        created,
        uid,
        network,
        label,
        queue,
    )
