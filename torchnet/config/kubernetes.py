"""The Kubernetes section of a job. Constructing it validates it, without any API call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from torchnet.config import k8s_syntax, k8s_values, parsing
from torchnet.constants import (
    COMMON_LABELS,
    NETWORKS_ANNOTATION,
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
OWN_LABELS = tuple(COMMON_LABELS)
OWN_PREFIX = "torchnet/"
OWN_ANNOTATIONS = (NETWORKS_ANNOTATION, STATUS_ANNOTATION, POLICY_ANNOTATION)


_DETACHED = (
    "with --detach nobody is there to write it; torchnet attach RUN --json FILE gets the receipt afterwards, "
    "torchnet logs RUN the output"
)


def _each(parse: Callable[[str], Any]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    """Return a validator that parses every text of a list but leaves the texts as they were written."""

    def check(texts: tuple[str, ...]) -> tuple[str, ...]:
        said = []
        for text in texts:
            try:
                parse(text)
            except ValueError as error:
                said.append(f"holds {parsing.quote(text)}, which {error}")
        if said:
            raise ValueError("; ".join(said))
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
    taken = [key for key in pairs if key.startswith(OWN_PREFIX) or key in (*OWN_LABELS, *OWN_ANNOTATIONS)]
    if taken:
        raise ValueError(f"holds {', '.join(taken)}, which torchnet sets itself")
    return pairs


def _code(text: str) -> str:
    k8s_values.parse_code(text)
    return text


class Kubernetes(BaseModel):
    """How the workers' pods are made. None of it has a meaning locally."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Label | None = None
    """None: the kubeconfig context's, else ``default``."""
    context: Text | None = None
    kubeconfig: Text | None = None
    image: Annotated[str, PlainValidator(k8s_syntax.parse_image)] | None = None
    workload: Literal["job", "jobset", "pods"] | None = None
    """None: job; pods with ``static_ips``."""
    gpus: Annotated[Whole, Field(ge=0, le=64)] = 0
    """Of each worker."""
    gpu_resource: Annotated[str, PlainValidator(k8s_syntax.parse_resource)] = "nvidia.com/gpu"
    cpus: Span | None = None
    """``REQUEST[:LIMIT]``. None: by the number of processes and GPUs."""
    memory: Span | None = None
    shm_size: Quantity | None = None
    """None: as far as the memory's limit goes."""
    volumes: _texts(k8s_values.parse_volume) = ()  # type: ignore[valid-type]
    secrets: _texts(k8s_values.parse_secret) = ()  # type: ignore[valid-type]
    node_selector: Labels = Field(default_factory=dict)
    tolerations: _texts(k8s_values.parse_toleration) = ()  # type: ignore[valid-type]
    queue: Subdomain | None = None
    priority_class: Subdomain | None = None
    spread: Literal["none", "soft", "hard"] = "soft"
    image_pull_secrets: _texts(k8s_syntax.parse_subdomain) = ()  # type: ignore[valid-type]
    pod_template: Text | None = None
    labels: Annotated[Labels, AfterValidator(_not_own)] = Field(default_factory=dict)
    annotations: Annotated[Annotations, AfterValidator(_not_own)] = Field(default_factory=dict)
    code: Annotated[str, PlainValidator(parsing.parse_nonempty), AfterValidator(_code)] = "configmap"
    token_secret: Subdomain | None = None
    service_account: Subdomain | None = None
    static_ips: Annotated[tuple[str, ...], PlainValidator(_rails)] = ()
    """One range or list for each rail."""
    security: Literal["restricted", "rdma"] = "restricted"
    network_policy: Literal["isolate", "none"] = "isolate"
    multi_network_policy: Switch = False
    detach: Switch = False
    keep: Switch = False

    @property
    def form(self) -> str:
        """The workload: job, jobset or pods. Static addresses need pods: all pods of a Job have the same annotation."""
        return self.workload or ("pods" if self.static_ips else "job")


def processes(group: Kubernetes, asked: int | str | None) -> int:
    """Return the number of processes per worker.

    Args:
        asked: The value of ``--nproc-per-node``.
    """
    if isinstance(asked, int):
        return asked
    if asked == "cpu" or (asked == "auto" and not group.gpus):
        return max(1, int(k8s_syntax.amount(group.cpus.partition(":")[0]))) if group.cpus else 1
    return max(1, group.gpus)


def wrong(
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
        found.append("kubernetes.image: is missing: the pods need an image with Python and PyTorch")
    if run_id is not None:
        found += wrong_run_id(run_id, group.form, nnodes)
    if group.multi_network_policy and group.network_policy == "none":
        found.append("kubernetes.multi_network_policy: needs --network-policy isolate")
    if group.static_ips:
        found += _wrong_addresses(group, len(attachments), nnodes)
    volumes = [k8s_values.parse_volume(text) for text in group.volumes]
    if group.security == "restricted":
        found += [
            f"kubernetes.volumes: {parsing.quote(text)} is on the node, which Pod Security restricted forbids; "
            "--security rdma allows it"
            for text, volume in zip(group.volumes, volumes, strict=True)
            if volume.kind == "hostpath"
        ]
    called = [volume.name for volume in volumes]
    found += [
        f"kubernetes.volumes: two are called {name}" for name in sorted(set(called)) if called.count(name) > 1
    ]
    found += _wrong_places(group, volumes)
    if group.gpus and group.gpu_resource in [one.resource for one in attachments]:
        found.append("kubernetes.gpu_resource: is a network's resource, too")
    return found


def _wrong_places(group: Kubernetes, volumes: list[k8s_values.Volume]) -> list[str]:
    mounts = [
        ("kubernetes.volumes", text, volume.path) for text, volume in zip(group.volumes, volumes, strict=True)
    ]
    secrets = [(text, k8s_values.parse_secret(text).path) for text in group.secrets]
    return k8s_values.wrong_places(
        mounts + [("kubernetes.secrets", text, path) for text, path in secrets if path]
    )


def wrong_run_id(run_id: str, form: str, nnodes: int) -> list[str]:
    """Return why the run cannot have this name: all names derived from it must be DNS labels of up to 63 characters."""
    # JobSet's webhook checks the length of pod names including five random characters: RUN-w-0-INDEX-xxxxx.
    tail = len(f"-{nnodes - 1}") + (len("-w-0") + 6 if form == "jobset" else 0)
    found = []
    if len(run_id) + tail > 63:
        found.append(
            f"run_id: has {len(run_id)} characters, and with {nnodes} workers {63 - tail} are the most: a worker's "
            "hostname is made of it"
        )
    if form == "jobset" and not run_id[0].isalpha():
        found.append("run_id: begins with a digit, and JobSet makes a Service of this name, which cannot")
    return found


def _wrong_addresses(group: Kubernetes, rails: int, nnodes: int) -> list[str]:
    found = []
    if group.form != "pods":
        found.append(
            f"kubernetes.static_ips: needs --as pods: the pods of a {group.form} share one template, and with it one "
            "annotation, so they would all ask for the same address"
        )
    if rails and len(group.static_ips) != rails:
        found.append(
            f"kubernetes.static_ips: is for {len(group.static_ips)} rails, and there are {rails}; "
            "may repeat, in their order"
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
            found.append(f"kubernetes.static_ips: {again[0]} is on two rails")
        seen |= {one.partition("/")[0] for one in addresses}
    return found
