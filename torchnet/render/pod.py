"""The template of a worker's pod: an init container that prepares, and the one that trains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torchnet import names
from torchnet.manifests.parts import RESTRICTED, RESTRICTED_POD, api_access, from_field, mount
from torchnet.render.attachments import Rail, device_resources, networks
from torchnet.render.code import Code
from torchnet.render.command import command, literal, processes
from torchnet.render.merge import merge
from torchnet.render.template import DEFAULT_CONTAINER, check_merged
from torchnet.spec.model import JobSpec
from torchnet.spec.pods import SECRET_VOLUME, parse_code, parse_secret, parse_toleration, parse_volume

# Between SIGTERM and the agent's own end: its processes' grace, the others' receipts, the last lines.
_GRACE_MARGIN = 10
_DEADLINE_MARGIN = 60


def template(
    job: JobSpec,
    run_id: str,
    code: Code,
    rails: list[Rail],
    labels: Mapping[str, str],
    patch: Mapping[str, Any],
) -> dict[str, Any]:
    """A PodTemplateSpec, the same for every worker.

    Args:
        labels: of the pods, the run's own among them.
        patch: the user's template, merged over it.

    Raises:
        UsageError: what is left after the merge is no worker any more.
    """
    whole = {
        "metadata": {
            "labels": dict(labels),
            "annotations": {
                **job.kubernetes.annotations,
                DEFAULT_CONTAINER: names.WORKER,
                names.NETWORKS_ANNOTATION: networks(rails),
            },
        },
        "spec": _spec(job, run_id, code, rails),
    }
    if not patch:
        return whole
    merged: dict[str, Any] = merge(whole, patch)
    check_merged(whole, merged, job.kubernetes.pod_template or "the pod template")
    return merged


def _spec(job: JobSpec, run_id: str, code: Code, rails: list[Rail]) -> dict[str, Any]:
    group = job.kubernetes
    spec: dict[str, Any] = {"restartPolicy": "Never"}
    if job.run.timeout:
        # The launcher keeps the time while it is there. This is for when it is not; a Job's own deadline would
        # delete the pods, and with them their logs.
        seconds = job.run.start_timeout + job.run.timeout + job.run.grace + _DEADLINE_MARGIN
        spec["activeDeadlineSeconds"] = math.ceil(seconds)
    spec |= {
        "terminationGracePeriodSeconds": math.ceil(job.run.grace) + _GRACE_MARGIN,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
    }
    if not group.static_ips:
        spec["serviceAccountName"] = group.service_account or run_id
    elif group.service_account:
        spec["serviceAccountName"] = group.service_account
    spec["securityContext"] = _pod_security(group.security)
    if group.node_selector:
        spec["nodeSelector"] = dict(sorted(group.node_selector.items()))
    if group.tolerations:
        spec["tolerations"] = [parse_toleration(text) for text in group.tolerations]
    if group.priority_class:
        spec["priorityClassName"] = group.priority_class
    if group.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in group.image_pull_secrets]
    if group.spread != "none":
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway" if group.spread == "soft" else "DoNotSchedule",
                "labelSelector": {"matchLabels": {names.RUN_LABEL: run_id}},
            }
        ]
    return spec | {
        "initContainers": [_prepare(job, run_id, code, rails)],
        "containers": [_worker(job, run_id, code, rails)],
        "volumes": _volumes(job, run_id),
    }


def _pod_security(profile: str) -> dict[str, Any]:
    if profile == "restricted":
        # Chowning a large volume at each start takes minutes.
        return RESTRICTED_POD | {"fsGroupChangePolicy": "OnRootMismatch"}
    return {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}


def _prepare(job: JobSpec, run_id: str, code: Code, rails: list[Rail]) -> dict[str, Any]:
    mounts = [
        mount("code", names.CODE_DIR, readOnly=True),
        mount("token", names.TOKEN_DIR, readOnly=True),
        mount("state", names.STATE_DIR),
        mount("work", names.WORK_DIR),
    ]
    if not job.kubernetes.static_ips:
        mounts.append(mount("api", names.API_DIR, readOnly=True))
    return {
        "name": names.PREPARE,
        "image": job.kubernetes.image,
        "command": command(job, run_id, "prepare", rails, code),
        "env": _own_variables(job),
        # The worker's own, so that the pod asks for no more than the worker, and its class of service stays.
        "resources": _resources(job),
        "securityContext": RESTRICTED,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }


def _worker(job: JobSpec, run_id: str, code: Code, rails: list[Rail]) -> dict[str, Any]:
    group = job.kubernetes
    place = parse_code(group.code)
    container: dict[str, Any] = {
        "name": names.WORKER,
        "image": group.image,
        "command": command(job, run_id, "work", rails, code),
    }
    if place.kind != "image":
        container["workingDir"] = names.WORK_DIR if place.kind == "configmap" else names.SCRIPT_DIR
    secrets = [parse_secret(text) for text in group.secrets]
    sources = [{"secretRef": {"name": secret.name}} for secret in secrets if not secret.path]
    if sources:
        container["envFrom"] = sources
    security: dict[str, Any] = RESTRICTED
    if group.security == "rdma":
        # Pinned memory. Only root gets an added capability into its effective set.
        security = {"allowPrivilegeEscalation": False, "capabilities": {"add": ["IPC_LOCK"]}}
    return container | {
        "env": [*_own_variables(job), *_variables(job)],
        "resources": _resources(job, {**_gpus(job), **device_resources(rails)}),
        "securityContext": security,
        "terminationMessagePolicy": "File",
        "volumeMounts": _worker_mounts(job),
    }


def _own_variables(job: JobSpec) -> list[dict[str, Any]]:
    # Which start of the gang this is: pods of two starts are there side by side for a moment.
    attempt = f"metadata.labels['{names.ATTEMPT_LABEL}']"
    ignored = f"metadata.annotations['{names.IGNORED_ANNOTATION}']"
    return [
        *([from_field(names.REPLACED_VARIABLE, ignored)] if job.kubernetes.form != "pods" else []),
        *([from_field(names.START_VARIABLE, attempt)] if job.kubernetes.form == "jobset" else []),
        from_field("POD_NAME", "metadata.name"),
        from_field("POD_NAMESPACE", "metadata.namespace"),
        from_field("POD_UID", "metadata.uid"),
        from_field(names.HOST_VARIABLE, "spec.nodeName"),
        {"name": names.TOKEN_VARIABLE, "value": f"{names.TOKEN_DIR}/{names.TOKEN_KEY}"},
    ]


def _variables(job: JobSpec) -> list[dict[str, Any]]:
    """The script's. An ordinary uid has no home and no name in most images, and PyTorch's caches ask for both."""
    variables = {} if job.kubernetes.security == "rdma" else {"HOME": names.WORK_DIR, "USER": "torchnet"}
    told = job.tune.variables() | job.env
    return [{"name": name, "value": literal(value)} for name, value in sorted((variables | told).items())]


def _gpus(job: JobSpec) -> dict[str, str]:
    group = job.kubernetes
    return {group.gpu_resource: str(group.gpus)} if group.gpus else {}


def memory(job: JobSpec) -> str:
    """A worker's, as a quantity or two: REQUEST:LIMIT."""
    group = job.kubernetes
    return group.memory or (f"{16 * group.gpus}Gi" if group.gpus else f"{2 * processes(job)}Gi")


def _resources(job: JobSpec, devices: Mapping[str, str] | None = None) -> dict[str, Any]:
    group = job.kubernetes
    count = max(1, group.gpus) * (4 if group.gpus else processes(job))
    cpus = group.cpus or str(count)
    parts = {"cpu": cpus.partition(":"), "memory": memory(job).partition(":")}
    extra = dict(sorted((devices or {}).items()))
    return {
        "requests": {name: request for name, (request, _, _) in parts.items()} | extra,
        "limits": {name: limit or request for name, (request, _, limit) in parts.items()} | extra,
    }


def _worker_mounts(job: JobSpec) -> list[dict[str, Any]]:
    place = parse_code(job.kubernetes.code)
    mounts = [
        mount("code", names.CODE_DIR, readOnly=True),
        mount("token", names.TOKEN_DIR, readOnly=True),
        mount("state", names.STATE_DIR),
        mount("work", names.WORK_DIR),
        # The kubelet leaves a path alone that is mounted; so the peers' names are there without root.
        mount("state", "/etc/hosts", subPath="hosts", readOnly=True),
        mount("shm", "/dev/shm"),
    ]
    if place.kind == "pvc":
        mounts.append(mount("script", names.SCRIPT_DIR, **({"subPath": place.path} if place.path else {})))
    for text in job.kubernetes.volumes:
        volume = parse_volume(text)
        mounts.append(mount(volume.name, volume.path, **({"readOnly": True} if volume.read_only else {})))
    for number, secret in enumerate(parse_secret(text) for text in job.kubernetes.secrets):
        if secret.path:
            mounts.append(mount(f"{SECRET_VOLUME}{number}", secret.path, readOnly=True))
    return mounts


def _volumes(job: JobSpec, run_id: str) -> list[dict[str, Any]]:
    group = job.kubernetes
    place = parse_code(group.code)
    secret = group.token_secret or f"{run_id}-token"
    shm: dict[str, Any] = {"medium": "Memory"} | ({"sizeLimit": group.shm_size} if group.shm_size else {})
    volumes: list[dict[str, Any]] = [
        {"name": "code", "configMap": {"name": f"{run_id}-code"}},
        {
            "name": "token",
            "secret": {
                "secretName": secret,
                "defaultMode": 0o440,
                "items": [{"key": names.TOKEN_KEY, "path": names.TOKEN_KEY}],
            },
        },
        {"name": "state", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "work", "emptyDir": {}},
        {"name": "shm", "emptyDir": shm},
    ]
    if not group.static_ips:
        volumes.append(api_access("api", defaultMode=0o440))
    if place.kind == "pvc":
        volumes.append({"name": "script", "persistentVolumeClaim": {"claimName": place.claim}})
    volumes += [_user_volume(text) for text in group.volumes]
    for number, one in enumerate(parse_secret(text) for text in group.secrets):
        if one.path:
            volumes.append(
                {
                    "name": f"{SECRET_VOLUME}{number}",
                    "secret": {"secretName": one.name, "defaultMode": 0o440},
                }
            )
    return volumes


def _user_volume(text: str) -> dict[str, Any]:
    volume = parse_volume(text)
    if volume.kind == "pvc":
        claim: dict[str, Any] = {"claimName": volume.source}
        return {
            "name": volume.name,
            "persistentVolumeClaim": claim | ({"readOnly": True} if volume.read_only else {}),
        }
    if volume.kind == "configmap":
        return {"name": volume.name, "configMap": {"name": volume.source}}
    if volume.kind == "secret":
        return {"name": volume.name, "secret": {"secretName": volume.source, "defaultMode": 0o440}}
    if volume.kind == "hostpath":
        return {"name": volume.name, "hostPath": {"path": volume.source}}
    return {"name": volume.name, "emptyDir": {"sizeLimit": volume.source} if volume.source else {}}
