"""All objects of a run: reads the inputs, and renders the same bytes for the same arguments."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torchnet import constants
from torchnet.config.agent_spec import agent_spec
from torchnet.config.job_spec import JobSpec
from torchnet.config.k8s_values import parse_code
from torchnet.config.kubernetes import find_run_id_problems
from torchnet.config.script_check import require_script
from torchnet.errors import UsageError
from torchnet.k8s.objects import job_template, pod_template, workloads
from torchnet.k8s.objects.builders import MAP_LIMIT
from torchnet.k8s.objects.code_bundle import CodeBundle, gather
from torchnet.k8s.objects.network_policy import policies
from torchnet.k8s.objects.pod import processes, template
from torchnet.k8s.objects.rank0_service import service, service_name
from torchnet.k8s.objects.run_identity import new_run_name, token, user_key
from torchnet.network.attachment import NetworkAttachment
from torchnet.text import printable

WORKLOADS = ("Job", "JobSet", "Pod")


def attachments_of(job: JobSpec, namespace: str) -> tuple[NetworkAttachment, ...]:
    """Return the job's attachments; those that name no namespace are in the run's."""
    return tuple(replace(one, namespace=one.namespace or namespace) for one in job.attachments)


def objects(
    job: JobSpec,
    run_id: str,
    namespace: str,
    token: str,
    code: CodeBundle,
    pod_patch: Mapping[str, Any] | None = None,
    job_fields: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return every object of the run in the order of creation; the workload (with plain Pods, all of them) comes last.

    Args:
        token: The workers' shared secret; unused with ``--token-secret``.
        code: The result of `torchnet.k8s.objects.code_bundle.gather`.
        pod_patch: The result of `torchnet.k8s.objects.pod_template.load`.
        job_fields: The result of `torchnet.k8s.objects.job_template.load`.

    Raises:
        UsageError: The run's name or one of the user's templates is invalid, or a ConfigMap cannot hold the arguments.
    """
    group = job.kubernetes
    if problems := find_run_id_problems(run_id, group.form, job.nnodes):
        raise UsageError("\n  ".join(["the run cannot be called so:", *problems]), fix="--run-id NAME")
    attachments = attachments_of(job, namespace)
    spec = agent_spec(job, run_id, processes(job), code.script, attachments)
    labels = dict(sorted(group.labels.items()))
    labels |= {constants.RUN_LABEL: run_id, constants.INSTANCE_LABEL: run_id, **constants.COMMON_LABELS}
    notes = dict(sorted(group.annotations.items()))

    def named(name: str, body: Mapping[str, Any], more: Mapping[str, str] | None = None) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": dict(labels)}
        if notes or more:
            metadata["annotations"] = {**notes, **(more or {})}
        head = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}
        return head | {key: value for key, value in body.items() if key not in head}

    found = [named(name, body) for name, body in _code(run_id, code, spec.dumps()).items()]
    code_maps = [body["metadata"]["name"] for body in found]
    if not group.token_secret:
        data = {constants.TOKEN_KEY: base64.b64encode(token.encode()).decode()}
        found.append(
            named(
                f"{run_id}-token",
                {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": True, "data": data},
            )
        )
    if (own := service(job, run_id)) is not None:
        found.append(named(service_name(run_id), own))
    if group.network_policy == "isolate" and not job.host_network:  # it would not apply to their pods
        for name, body, more in policies(run_id, attachments, on_rails=group.multi_network_policy):
            found.append(named(name, body, more))
    pods = template(job, run_id, code, code_maps, attachments, labels, pod_patch or {})
    return found + workloads.of(job, run_id, pods, attachments, named, job_fields or {})


def workload(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the Job, the JobSet, or the first of the plain Pods."""
    return next(one for one in found if one["kind"] in WORKLOADS)


def pod_of(found: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """Return worker ``index``'s Pod as the controller would create it.

    The server's dry run needs it: admission policies and quotas that apply to Pods do not see them in a workload.
    """
    return workloads.pod_of([one for one in found if one["kind"] in WORKLOADS], index)


def _code(run_id: str, code: CodeBundle, spec: str) -> dict[str, dict[str, Any]]:
    """Return the ConfigMaps by name: one if it can hold all, else further ones for the parts of the code's archive.

    The pods see them as one directory, and the agent joins the parts (`torchnet.agent.code_extraction`).
    """
    first = {constants.AGENT_ZIP: code.torchnet_zip}
    size = len(spec.encode()) + len(code.torchnet_zip)
    if size > MAP_LIMIT:
        raise UsageError(
            f"the script's arguments, with the agent, take {size:,} bytes; a ConfigMap holds {MAP_LIMIT:,}",
            fix="long arguments in a file",
        )
    archive, parts = code.code_zip or b"", []
    if size + len(archive) > MAP_LIMIT:
        parts = [archive[at : at + MAP_LIMIT] for at in range(0, len(archive), MAP_LIMIT)]
    elif code.code_zip is not None:
        first[constants.CODE_ZIP] = archive
    found = {f"{run_id}-code": _config_map(first, {constants.SPEC_JSON: spec})}
    for number, part in enumerate(parts, 1):
        found[f"{run_id}-code-{number}"] = _config_map({f"{constants.CODE_ZIP}.{number}": part})
    return found


def _config_map(files: Mapping[str, bytes], texts: Mapping[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "immutable": True}
    if texts:
        found["data"] = dict(texts)
    return found | {
        "binaryData": {name: base64.b64encode(content).decode() for name, content in files.items()}
    }


@dataclass(frozen=True)
class RenderedRun:
    """The objects of a run; ``warnings`` has lines for the user, such as the files that were not bundled."""

    run_id: str
    namespace: str
    attachments: tuple[NetworkAttachment, ...]
    objects: list[dict[str, Any]]
    warnings: tuple[str, ...]


def check_bundled_script(job: JobSpec, cwd: str) -> None:
    """Check the script if it is bundled; a module or program may exist only in the image.

    Raises:
        UsageError: It cannot be run.
    """
    if parse_code(job.kubernetes.code).kind == "configmap" and not job.module and not job.no_python:
        require_script(job, cwd)


def prepare(job: JobSpec, cwd: str, namespace: str, environ: Mapping[str, str]) -> RenderedRun:
    """Read the script's folder, the templates and the user's key, and render the objects.

    A run without a name gets one. Relative paths are relative to ``cwd``. No request is sent.

    Raises:
        UsageError: The script, its folder, a template or the user's key cannot be used.
    """
    run_id = job.run_id or new_run_name(job.script)
    check_bundled_script(job, cwd)
    group = job.kubernetes
    patch = pod_template.load(os.path.join(cwd, group.pod_template)) if group.pod_template else None
    fields = job_template.load(os.path.join(cwd, group.job_template)) if group.job_template else None
    code = gather(job, cwd, environ)
    secret = "" if group.token_secret else token(user_key(environ), run_id, namespace)
    found = objects(job, run_id, namespace, secret, code, patch, fields)
    warnings = [f"not bundled: {printable(line)}" for line in code.left_out]
    if group.queue and group.form == "pods":
        warnings.append(
            f"if the queue {group.queue} preempts the run, it ends: nothing recreates plain pods; a Job and a "
            "JobSet start again"
        )
    return RenderedRun(run_id, namespace, attachments_of(job, namespace), found, tuple(warnings))
