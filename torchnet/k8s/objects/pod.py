"""The pod template of a worker: a container that prepares, one that joins and trains, and their commands."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torchnet import constants
from torchnet.config import kubernetes
from torchnet.config.job_spec import JobSpec
from torchnet.config.k8s_syntax import amount
from torchnet.config.k8s_values import SECRET_VOLUME, parse_code, parse_secret, parse_toleration
from torchnet.config.volume_syntax import parse_volume
from torchnet.constants import (
    AGENT_ZIP,
    ATTEMPT_LABEL,
    CODE_DIR,
    CODE_ZIP,
    RUN_LABEL,
    SPEC_JSON,
    START_VARIABLE,
    STATE_DIR,
    WORK_DIR,
)
from torchnet.k8s.objects import kueue, user_volumes
from torchnet.k8s.objects.builders import api_access, from_field, mount
from torchnet.k8s.objects.code_bundle import CodeBundle
from torchnet.k8s.objects.network_annotation import device_resources, fixed_addresses, networks
from torchnet.k8s.objects.pod_template import DEFAULT_CONTAINER, apply
from torchnet.k8s.objects.rank0_service import rank0_names, rank_label, service_name
from torchnet.k8s.objects.security_context import RESTRICTED, container_context, pod_context, secret_mode
from torchnet.network.attachment import NetworkAttachment

# The Job controller sets this variable in each container; the kubelet expands $(NAME) in commands and arguments.
INDEX = "$(JOB_COMPLETION_INDEX)"


def literal(text: str) -> str:
    """Escape ``text`` so that Kubernetes does not expand it in a variable.

    There, ``$(NAME)`` is a reference and ``$$`` an escaped dollar sign, even if no variable has that name.

    Source:
        k8s.io/kubernetes/third_party/forked/golang/expansion
    """
    return re.sub(r"\$(?=[($])", "$$", text)


def processes(job: JobSpec) -> int:
    """Return the number of processes that each worker starts."""
    return kubernetes.processes(job.kubernetes, job.nproc_per_node)


def command(job: JobSpec, run_id: str, phase: str, code: CodeBundle) -> list[str]:
    """Return the command of the container for ``phase`` (prepare or work), the same for every worker."""
    words = ["python3", f"{CODE_DIR}/{AGENT_ZIP}", "agent", "--phase", phase, "--state", STATE_DIR]
    words += ["--spec", f"{CODE_DIR}/{SPEC_JSON}", "--node-rank", INDEX]
    if _reads_status(job):
        words += ["--status-dir", constants.STATUS_DIR]
    return words + (_own_flags(job, code) if phase == "prepare" else _rank0_flags(job, run_id))


def _own_flags(job: JobSpec, code: CodeBundle) -> list[str]:
    """Return the flags about the code and this worker's own addresses."""
    words = []
    if code.code_zip is not None:
        words += ["--code", f"{CODE_DIR}/{CODE_ZIP}", "--workdir", WORK_DIR]
    if job.kubernetes.static_ips:
        return words  # the variable TORCHNET_ADDRESS_SOURCE holds each worker's own addresses
    if job.host_network:
        hosts = [str(one) for one in job.network.host_networks if one.kind == "host"]
        return words + [word for host in hosts for word in ("--network", host)]
    return [*words, "--address-source", "multus-status"]


def _rank0_flags(job: JobSpec, run_id: str) -> list[str]:
    """Return the flags that tell how rank 0 is found."""
    if job.kubernetes.static_ips:
        rank0 = [address.partition("/")[0] for address in fixed_addresses(job)[0]]
        return ["--rank0", ",".join(rank0)]
    words = ["--rank0-names", ",".join(rank0_names(job, run_id))]
    # With an account of the user's, the agent may ask the API where there is no DNS.
    return words + (["--rank0-labels", _rank0_labels(job, run_id)] if job.kubernetes.service_account else [])


def _rank0_labels(job: JobSpec, run_id: str) -> str:
    """Return a label selector for rank 0's pod.

    Without it, a worker would have to read its own pod first and derive the selector from the labels.
    """
    # During a restart of a JobSet, pods of two attempts exist side by side for a moment.
    start = f",{ATTEMPT_LABEL}=$({START_VARIABLE})" if job.kubernetes.form == "jobset" else ""
    return f"{RUN_LABEL}={run_id},{rank_label(job)}=0{start}"


def _reads_status(job: JobSpec) -> bool:
    """Return whether Multus gives the pods their addresses, and tells them in network-status."""
    return not job.host_network and not job.kubernetes.static_ips


def _asks_api(job: JobSpec) -> bool:
    return bool(job.kubernetes.service_account) and not job.kubernetes.static_ips


# Seconds in addition to --grace, which the worker's processes get after SIGTERM: for the other workers' receipts and
# the last log lines.
_GRACE_MARGIN = 10
_DEADLINE_MARGIN = 60


def template(
    job: JobSpec,
    run_id: str,
    code: CodeBundle,
    code_maps: Sequence[str],
    attachments: Sequence[NetworkAttachment],
    labels: Mapping[str, str],
    patch: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a PodTemplateSpec, the same for every worker.

    Args:
        code_maps: The names of the ConfigMaps with the code.
        labels: The pods' labels, including the run's own.
        patch: The user's template, merged over the result.

    Raises:
        UsageError: The user's template cannot be merged, or the merged pod is no longer a worker of the run.
    """
    whole = {
        "metadata": {
            "labels": dict(labels),
            "annotations": {
                **job.kubernetes.annotations,
                **kueue.pod_annotations(job),
                DEFAULT_CONTAINER: constants.WORKER,
                **({constants.NETWORKS_ANNOTATION: networks(attachments)} if attachments else {}),
            },
        },
        "spec": _spec(job, run_id, code, code_maps, attachments),
    }
    if not patch:
        return whole
    return apply(whole, patch, job.kubernetes.pod_template or "the pod template")


def _spec(
    job: JobSpec,
    run_id: str,
    code: CodeBundle,
    code_maps: Sequence[str],
    attachments: Sequence[NetworkAttachment],
) -> dict[str, Any]:
    group = job.kubernetes
    spec: dict[str, Any] = {"restartPolicy": "Never"}
    if job.run.timeout:
        # The launcher enforces the time-out while it runs; this deadline applies when it does not. A Job's own deadline
        # would delete the pods, and with them their logs. It counts from the pod's scheduling, image pulls included.
        seconds = (
            constants.COLD_START_SECONDS
            + job.run.start_timeout
            + job.run.timeout
            + job.run.grace
            + _DEADLINE_MARGIN
        )
        spec["activeDeadlineSeconds"] = math.ceil(seconds)
    spec |= {
        "terminationGracePeriodSeconds": math.ceil(job.run.grace) + _GRACE_MARGIN,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
    }
    if job.kubernetes.form != "jobset" and not group.static_ips:
        spec["subdomain"] = service_name(run_id)
    if group.service_account:
        spec["serviceAccountName"] = group.service_account
    # By default the kubelet changes the group of all files at each start: minutes for a large volume.
    changes = {} if group.user.is_root else {"fsGroupChangePolicy": "OnRootMismatch"}
    spec["securityContext"] = pod_context(group.user) | changes
    if group.node_selector:
        spec["nodeSelector"] = dict(sorted(group.node_selector.items()))
    if group.tolerations:
        spec["tolerations"] = [parse_toleration(text) for text in group.tolerations]
    if group.priority_class:
        spec["priorityClassName"] = group.priority_class
    if group.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in group.image_pull_secrets]
    if job.host_network:
        # The pods' ports are the host's, so a host can have one worker of a run.
        one_per_host = {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {constants.RUN_LABEL: run_id}},
        }
        spec |= {
            "hostNetwork": True,
            "dnsPolicy": "ClusterFirstWithHostNet",
            "affinity": {
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [one_per_host]}
            },
        }
    else:
        spec |= _placement(group.placement, run_id)
    return spec | {
        "initContainers": [_prepare(job, run_id, code)],
        "containers": [_worker(job, run_id, code, attachments)],
        "volumes": _volumes(job, run_id, code_maps),
    }


def _placement(how: str, run_id: str) -> dict[str, Any]:
    own = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {RUN_LABEL: run_id}}}
    if how == "none":
        return {}
    if how == "pack":
        preferred = [{"weight": 100, "podAffinityTerm": own}]
        return {"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}
    action = "ScheduleAnyway" if how == "soft" else "DoNotSchedule"
    return {"topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": action, **own}]}


def _prepare(job: JobSpec, run_id: str, code: CodeBundle) -> dict[str, Any]:
    mounts = [
        mount("code", constants.CODE_DIR, readOnly=True),
        mount("state", constants.STATE_DIR),
        mount("work", constants.WORK_DIR),
        *_status_mounts(job),
    ]
    return {
        "name": constants.PREPARE,
        "image": job.kubernetes.image,
        "command": command(job, run_id, "prepare", code),
        "env": _own_variables(job),
        # The same as the worker's, so that the pod requests no more than the worker, and keeps its QoS class.
        "resources": _resources(job),
        "securityContext": RESTRICTED,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }


def _worker(
    job: JobSpec, run_id: str, code: CodeBundle, attachments: Sequence[NetworkAttachment]
) -> dict[str, Any]:
    group = job.kubernetes
    place = parse_code(group.code)
    container: dict[str, Any] = {
        "name": constants.WORKER,
        "image": group.image,
        "command": command(job, run_id, "work", code),
    }
    if place.kind != "image":
        container["workingDir"] = constants.WORK_DIR if place.kind == "configmap" else constants.SCRIPT_DIR
    secrets = [parse_secret(text) for text in group.secrets]
    sources = [{"secretRef": {"name": secret.name}} for secret in secrets if not secret.path]
    if sources:
        container["envFrom"] = sources
    return container | {
        "env": [*_own_variables(job), *_join_variables(), *_variables(job)],
        "resources": _resources(job, {**_gpus(job), **device_resources(attachments)}),
        "securityContext": container_context(group.user, locks_memory=group.rdma),
        "startupProbe": _STARTED,
        "terminationMessagePolicy": "File",
        "volumeMounts": _worker_mounts(job),
    }


# The container counts as started (containerStatuses[].started) once its script has: the probe waits until the agent has
# opened the named pipe. It needs no shell, and Python starts in 0.01 s without its site and user packages. To ask for a
# file every second was rejected: each of the processes would take more time than the agent does by then. The delay
# keeps the runtime, which takes longer, from slowing down a quick start. No limit may end the container, because the
# agents have their own (--start-timeout).
_STARTED = {
    "exec": {"command": ["python3", "-I", "-S", "-c", f"open('{STATE_DIR}/{constants.STARTED_FILE}')"]},
    "initialDelaySeconds": 1,
    "periodSeconds": 1,
    "timeoutSeconds": 86_400,
    "failureThreshold": 86_400,
}


def _own_variables(job: JobSpec) -> list[dict[str, Any]]:
    """Return what both containers need to know of their pod."""
    # The attempt of the JobSet: during a restart, pods of two attempts exist side by side for a moment.
    attempt = f"metadata.labels['{constants.ATTEMPT_LABEL}']"
    ignored = f"metadata.annotations['{constants.IGNORED_ANNOTATION}']"
    return [
        *([from_field(constants.REPLACED_VARIABLE, ignored)] if job.kubernetes.form != "pods" else []),
        *([from_field(constants.START_VARIABLE, attempt)] if job.kubernetes.form == "jobset" else []),
        from_field("POD_NAME", "metadata.name"),
        from_field("POD_NAMESPACE", "metadata.namespace"),
        from_field("POD_UID", "metadata.uid"),
    ]


def _join_variables() -> list[dict[str, Any]]:
    return [
        from_field(constants.POD_IP_VARIABLE, "status.podIP"),
        from_field(constants.HOST_VARIABLE, "spec.nodeName"),
        {"name": constants.TOKEN_VARIABLE, "value": f"{constants.TOKEN_DIR}/{constants.TOKEN_KEY}"},
    ]


def _variables(job: JobSpec) -> list[dict[str, Any]]:
    """Return the script's environment variables.

    In most images an ordinary uid has no home directory and no user name, and PyTorch's caches need both.
    """
    variables = {} if job.kubernetes.user.is_root else {"HOME": constants.WORK_DIR, "USER": "torchnet"}
    variables |= job.tune.variables() | job.env
    return [{"name": name, "value": literal(value)} for name, value in sorted(variables.items())]


def _gpus(job: JobSpec) -> dict[str, str]:
    group = job.kubernetes
    return {group.gpu_resource: str(group.gpus)} if group.gpus else {}


def memory(job: JobSpec) -> str:
    """Return a worker's memory, as one quantity or as REQUEST:LIMIT."""
    group = job.kubernetes
    return group.memory or (f"{16 * group.gpus}Gi" if group.gpus else f"{2 * processes(job)}Gi")


def ephemeral_storage(job: JobSpec) -> str:
    """Return a worker's local disk as REQUEST:LIMIT or one quantity.

    The kubelet counts emptyDir volumes, so the default limit leaves room for those of ``--volume``.
    """
    if job.kubernetes.ephemeral_storage:
        return job.kubernetes.ephemeral_storage
    volumes = [parse_volume(text) for text in job.kubernetes.volumes]
    sizes = [amount(one.source) for one in volumes if one.kind == "emptydir" and one.source]
    request, _, limit = constants.EPHEMERAL_STORAGE.partition(":")
    return f"{request}:{math.ceil(amount(limit) + sum(sizes))}" if sizes else constants.EPHEMERAL_STORAGE


def _limit(span: str) -> str:
    request, _, limit = span.partition(":")
    return limit or request


def _resources(job: JobSpec, devices: Mapping[str, str] | None = None) -> dict[str, Any]:
    group = job.kubernetes
    count = max(1, group.gpus) * (4 if group.gpus else processes(job))
    cpus = group.cpus or str(count)
    spans = {"cpu": cpus, "memory": memory(job)}
    if (
        group.ephemeral_storage or not group.queue
    ):  # Kueue admits no resource that its ClusterQueue does not cover
        spans["ephemeral-storage"] = ephemeral_storage(job)
    parts = {name: span.partition(":") for name, span in spans.items()}
    extra = dict(sorted((devices or {}).items()))
    return {
        "requests": {name: request for name, (request, _, _) in parts.items()} | extra,
        "limits": {name: limit or request for name, (request, _, limit) in parts.items()} | extra,
    }


def _worker_mounts(job: JobSpec) -> list[dict[str, Any]]:
    place = parse_code(job.kubernetes.code)
    mounts = [
        mount("code", constants.CODE_DIR, readOnly=True),
        mount("token", constants.TOKEN_DIR, readOnly=True),
        mount("state", constants.STATE_DIR),
        mount("work", constants.WORK_DIR),
        # The kubelet does not manage /etc/hosts if it is mounted, so that the agent can add the peers without root.
        mount("state", "/etc/hosts", subPath="hosts"),
        mount("shm", "/dev/shm"),
        *_status_mounts(job),
    ]
    if _asks_api(job):
        mounts.append(mount("api", constants.API_DIR, readOnly=True))
    if place.kind == "pvc":
        mounts.append(
            mount("script", constants.SCRIPT_DIR, **({"subPath": place.path} if place.path else {}))
        )
    mounts += user_volumes.mounts(job.kubernetes.volumes, _claims(job))
    for number, secret in enumerate(parse_secret(text) for text in job.kubernetes.secrets):
        if secret.path:
            mounts.append(mount(f"{SECRET_VOLUME}{number}", secret.path, readOnly=True))
    return mounts


def _claims(job: JobSpec) -> dict[str, str]:
    """Return the claim of ``--code``, if it has one, with the name of its volume."""
    place = parse_code(job.kubernetes.code)
    return {place.claim: "script"} if place.kind == "pvc" else {}


def _volumes(job: JobSpec, run_id: str, code_maps: Sequence[str]) -> list[dict[str, Any]]:
    group = job.kubernetes
    place = parse_code(group.code)
    secret = group.token_secret or f"{run_id}-token"
    mode = secret_mode(group.user)
    shm = {"medium": "Memory", "sizeLimit": group.shm_size or _limit(memory(job))}
    volumes: list[dict[str, Any]] = [
        {"name": "code", **_directory(code_maps)},
        {
            "name": "token",
            "secret": {
                "secretName": secret,
                "defaultMode": mode,
                "items": [{"key": constants.TOKEN_KEY, "path": constants.TOKEN_KEY}],
            },
        },
        {"name": "state", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "work", "emptyDir": {"sizeLimit": _limit(ephemeral_storage(job))}},
        {"name": "shm", "emptyDir": shm},
    ]
    if _reads_status(job):
        volumes.append({"name": "status", "downwardAPI": {"items": [_annotation(*one) for one in _STATUS]}})
    if _asks_api(job):
        volumes.append(api_access("api", defaultMode=mode))
    if place.kind == "pvc":
        volumes.append({"name": "script", "persistentVolumeClaim": {"claimName": place.claim}})
    volumes += user_volumes.volumes(group.volumes, _claims(job), mode)
    for number, one in enumerate(parse_secret(text) for text in group.secrets):
        if one.path:
            volumes.append(
                {
                    "name": f"{SECRET_VOLUME}{number}",
                    "secret": {"secretName": one.name, "defaultMode": mode},
                }
            )
    return volumes


# File -> annotation.
_STATUS = (
    (constants.STATUS_FILE, constants.STATUS_ANNOTATION),
    (constants.NETWORKS_FILE, constants.NETWORKS_ANNOTATION),
)


def _annotation(file: str, name: str) -> dict[str, Any]:
    return {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{name}']"}}


def _status_mounts(job: JobSpec) -> list[dict[str, Any]]:
    return [mount("status", constants.STATUS_DIR, readOnly=True)] if _reads_status(job) else []


def _directory(code_maps: Sequence[str]) -> dict[str, Any]:
    """Return the source of a volume that has the files of all these ConfigMaps."""
    if len(code_maps) == 1:
        return {"configMap": {"name": code_maps[0]}}
    return {"projected": {"sources": [{"configMap": {"name": name}} for name in code_maps]}}
