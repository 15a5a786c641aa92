"""The Kubernetes section of a job. Constructing it validates it, without any API call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from torchnet.config import k8s_syntax, k8s_values, parsing, volume_syntax
from torchnet.config.pod_user import PodUser, parse_id, parse_run_as, pod_user
from torchnet.constants import (
    COMMON_LABELS,
    INSTANCE_LABEL,
    LABEL_PREFIX,
    NETWORKS_ANNOTATION,
    OLD_LABEL_PREFIX,
    POLICY_ANNOTATION,
    STATUS_ANNOTATION,
)
from torchnet.network.attachment import NetworkAttachment

Whole = Annotated[int, BeforeValidator(parsing.parse_whole)]
Switch = Annotated[bool, BeforeValidator(parsing.parse_switch)]
Text = Annotated[str, PlainValidator(parsing.parse_nonempty)]
Label = Annotated[str, PlainValidator(parsing.parse_label)]
Subdomain = Annotated[str, PlainValidator(k8s_syntax.parse_subdomain)]
Quantity = Annotated[str, PlainValidator(k8s_syntax.parse_quantity)]
Span = Annotated[str, PlainValidator(k8s_syntax.parse_span)]
Labels = Annotated[dict[str, str], PlainValidator(k8s_syntax.parse_labels)]
Annotations = Annotated[dict[str, str], PlainValidator(k8s_syntax.parse_annotations)]
# Labels by which torchnet finds its objects.
OWN_LABELS = (INSTANCE_LABEL, *COMMON_LABELS)
OWN_PREFIXES = (LABEL_PREFIX, OLD_LABEL_PREFIX)
OWN_ANNOTATIONS = (NETWORKS_ANNOTATION, STATUS_ANNOTATION, POLICY_ANNOTATION)


_DETACHED = (
    "--detach does not write it; afterwards, use torchnet attach RUN --json FILE for the receipt and torchnet logs RUN "
    "for the output"
)


def _each(parse: Callable[[str], Any]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Return a validator that parses every text of a list but leaves the texts as they were written."""

    def check(texts: tuple[str, ...]) -> tuple[str, ...]:
        problems = []
        for text in texts:
            try:
                parse(text)
            except ValueError as error:
                problems.append(f"contains {parsing.quote(text)}, which {error}")
        if problems:
            raise ValueError("; ".join(problems))
        return texts

    return check


def _texts(parse: Callable[[str], Any]) -> Any:
    return Annotated[tuple[str, ...], PlainValidator(parsing.parse_list), AfterValidator(_each(parse))]


def _rails(value: object) -> tuple[str, ...]:
    """Parse one text per rail; a variable separates them by semicolons, since an address list contains commas."""
    items = value.split(";") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ValueError("is not a list of addresses")
    return _each(lambda text: k8s_values.parse_addresses(text, 1))(
        tuple(item.strip() for item in items if item.strip())
    )


def _not_own(pairs: dict[str, str]) -> dict[str, str]:
    taken = [key for key in pairs if key.startswith(OWN_PREFIXES) or key in (*OWN_LABELS, *OWN_ANNOTATIONS)]
    if taken:
        raise ValueError(f"contains {', '.join(taken)}, which torchnet sets itself")
    return pairs


def _code(text: str) -> str:
    k8s_values.parse_code(text)
    return text


def _ttl(value: object) -> float:
    seconds = parsing.parse_duration(value)
    if seconds < 60:
        raise ValueError("is below 1min: the launcher and torchnet attach read the results from the pods")
    return seconds


def _topology(text: str) -> str:
    k8s_values.parse_topology(text)
    return text


class Kubernetes(BaseModel):
    """Settings of the workers' pods. They have no effect locally."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    namespace: Label | None = None
    """None: the kubeconfig context's, else ``default``."""
    context: Text | None = None
    kubeconfig: Text | None = None
    image: Annotated[str, PlainValidator(k8s_syntax.parse_image)] | None = None
    workload: Literal["job", "jobset", "pods"] | None = Field(default=None, alias="kind")
    """None: job; pods with ``static_ips``."""
    gpus: Annotated[Whole, Field(ge=0, le=64)] = 0
    """Per worker."""
    gpu_resource: Annotated[str, PlainValidator(k8s_syntax.parse_resource)] = "nvidia.com/gpu"
    cpus: Span | None = None
    """``REQUEST[:LIMIT]``. None: from the number of processes and GPUs."""
    memory: Span | None = None
    shm_size: Quantity | None = None
    """None: the memory limit."""
    ephemeral_storage: Span | None = None
    """None: `torchnet.constants.EPHEMERAL_STORAGE`, and the sizes of the emptyDir volumes."""
    volumes: Annotated[
        tuple[str, ...],
        PlainValidator(volume_syntax.parse_volume_list),
        AfterValidator(_each(volume_syntax.parse_volume)),
    ] = ()
    secrets: _texts(k8s_values.parse_secret) = ()  # type: ignore[valid-type]
    node_selector: Labels = Field(default_factory=dict)
    tolerations: _texts(k8s_values.parse_toleration) = ()  # type: ignore[valid-type]
    queue: Subdomain | None = None
    workload_priority: Subdomain | None = None
    topology: Annotated[str, PlainValidator(parsing.parse_nonempty), AfterValidator(_topology)] | None = None
    """Read by `torchnet.config.k8s_values.parse_topology`."""
    max_infra_restarts: Annotated[Whole, Field(ge=0, le=1000)] = 0
    priority_class: Subdomain | None = None
    spread: Literal["none", "pack", "soft", "hard"] | None = None
    """None: `placement`."""
    image_pull_secrets: _texts(k8s_syntax.parse_subdomain) = ()  # type: ignore[valid-type]
    pod_template: Text | None = None
    job_template: Text | None = None
    ttl: Annotated[float, BeforeValidator(_ttl), Field(le=366 * 86400)] | None = None
    """Seconds."""
    labels: Annotated[Labels, AfterValidator(_not_own)] = Field(default_factory=dict)
    annotations: Annotated[Annotations, AfterValidator(_not_own)] = Field(default_factory=dict)
    code: Annotated[str, PlainValidator(parsing.parse_nonempty), AfterValidator(_code)] = "configmap"
    token_secret: Subdomain | None = None
    service_account: Subdomain | None = None
    static_ips: Annotated[tuple[str, ...], PlainValidator(_rails)] = ()
    """One range or list for each rail."""
    run_as: Annotated[str, PlainValidator(parse_run_as)] | None = None
    fs_group: Annotated[int, PlainValidator(parse_id)] | None = None
    rdma: Switch = False
    network_policy: Literal["isolate", "none"] = "isolate"
    multi_network_policy: Switch = False
    detach: Switch = False
    keep: Switch = False

    @property
    def user(self) -> PodUser:
        """The user of the pods' processes, by ``run_as`` and ``fs_group``."""
        return pod_user(self.run_as, self.fs_group)

    @property
    def placement(self) -> str:
        """How the workers are placed: ``spread`` or its default.

        Workers with GPUs are packed: spread over many nodes, they would leave each node too few GPUs for a job that
        needs all of them. A worker that has all GPUs of its node is not affected.
        """
        return self.spread or ("pack" if self.gpus else "soft")

    @property
    def form(self) -> str:
        """The workload: job, jobset or pods. Static addresses need pods: all pods of a Job have the same annotation."""
        return self.workload or ("pods" if self.static_ips else "job")


def processes(group: Kubernetes, nproc_per_node: int | str | None) -> int:
    """Return the number of processes per worker.

    Args:
        nproc_per_node: The value of ``--nproc-per-node``.
    """
    if isinstance(nproc_per_node, int):
        return nproc_per_node
    if nproc_per_node == "cpu" or (nproc_per_node == "auto" and not group.gpus):
        return max(1, int(k8s_syntax.amount(group.cpus.partition(":")[0]))) if group.cpus else 1
    return max(1, group.gpus)


def find_problems(
    group: Kubernetes,
    attachments: Sequence[NetworkAttachment],
    nnodes: int,
    run_id: str | None,
    written: tuple[str, ...],
) -> list[str]:
    """Check that the settings of a job on Kubernetes fit together.

    Args:
        attachments: One per rail; () if ``--network`` is invalid.
        written: Paths of the fields that make the launcher write a file or a folder.

    Returns:
        One line per problem, beginning with the field's path.
    """
    found = []
    if group.detach:
        found += [f"{path}: {_DETACHED}" for path in written]
    if group.image is None:
        found.append("kubernetes.image: is required: an image with Python and PyTorch")
    if run_id is not None:
        found += find_run_id_problems(run_id, group.form, nnodes)
    if group.form == "pods":
        reasons = {
            "ttl": "no controller deletes plain pods after their end",
            "job_template": "plain pods have no Job; --pod-template changes them",
        }
        found += [
            f"kubernetes.{name}: needs --kind job or jobset: {reason}"
            for name, reason in reasons.items()
            if getattr(group, name) is not None
        ]
    if group.multi_network_policy and group.network_policy == "none":
        found.append("kubernetes.multi_network_policy: needs --network-policy isolate")
    found += _find_queue_problems(group)
    if group.static_ips:
        found += _find_address_problems(group, len(attachments), nnodes)
    volumes = volume_syntax.parse_volumes(group.volumes)
    found += [f"kubernetes.volumes: duplicate name {name}" for name in volume_syntax.duplicate_names(volumes)]
    found += _find_mount_problems(group, volumes)
    if group.gpus and group.gpu_resource in [one.resource for one in attachments]:
        found.append("kubernetes.gpu_resource: is also the resource of a network")
    return found


def _find_queue_problems(group: Kubernetes) -> list[str]:
    found = []
    if group.max_infra_restarts and group.form != "jobset":
        found.append(
            "kubernetes.max_infra_restarts: needs --kind jobset: a Job replaces workers only before the start, and "
            "nothing replaces plain pods"
        )
    for name in ("workload_priority", "topology"):
        if getattr(group, name) is not None and group.queue is None:
            found.append(f"kubernetes.{name}: needs --queue: Kueue reads it only for the jobs of its queues")
    if group.topology and group.topology.startswith("required:") and group.spread == "hard":
        found.append(
            "kubernetes.topology: required contradicts --spread hard, which places the workers on different nodes; use "
            "--spread none"
        )
    return found


def _find_mount_problems(group: Kubernetes, volumes: list[volume_syntax.Volume]) -> list[str]:
    mounts = [
        ("kubernetes.volumes", text, volume.path) for text, volume in zip(group.volumes, volumes, strict=True)
    ]
    secrets = [(text, k8s_values.parse_secret(text).path) for text in group.secrets]
    return k8s_values.find_mount_problems(
        mounts + [("kubernetes.secrets", text, path) for text, path in secrets if path]
    )


def find_run_id_problems(run_id: str, form: str, nnodes: int) -> list[str]:
    """Return why the run cannot have this name: all names derived from it must be DNS labels of up to 63 characters."""
    # JobSet's webhook checks the length of pod names including five random characters: RUN-w-0-INDEX-xxxxx.
    tail = len(f"-{nnodes - 1}") + (len("-w-0") + 6 if form == "jobset" else 0)
    found = []
    if len(run_id) + tail > 63:
        found.append(
            f"run_id: has {len(run_id)} characters; with {nnodes} workers the limit is {63 - tail}, since the workers' "
            "hostnames contain it"
        )
    elif form != "jobset" and not run_id[0].isalpha() and len(run_id) > 63 - len("run-"):
        found.append(
            f"run_id: has {len(run_id)} characters and begins with a digit, so that its Service is named run-RUN_ID; "
            f"the limit is {63 - len('run-')}"
        )
    if form == "jobset" and not run_id[0].isalpha():
        found.append(
            "run_id: begins with a digit; JobSet creates a Service with this name, which must begin with a letter"
        )
    return found


def _find_address_problems(group: Kubernetes, rails: int, nnodes: int) -> list[str]:
    found = []
    if group.form != "pods":
        found.append(
            f"kubernetes.static_ips: needs --kind pods: all pods of a {group.form} have the same annotations, so they "
            "would all request the same address"
        )
    if rails and len(group.static_ips) != rails:
        found.append(
            f"kubernetes.static_ips: is given {len(group.static_ips)} times, but the number of rails is {rails}; "
            "repeat it once per rail, in order"
        )
    seen: set[str] = set()
    for text in group.static_ips:
        try:
            addresses = k8s_values.parse_addresses(text, nnodes)
        except ValueError as error:
            found.append(f"kubernetes.static_ips: {parsing.quote(text)} {error}")
            continue
        again = [one for one in addresses if one.partition("/")[0] in seen]
        if again:
            found.append(f"kubernetes.static_ips: {again[0]} is used on two rails")
        seen |= {one.partition("/")[0] for one in addresses}
    return found
