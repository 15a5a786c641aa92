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
from torchnet.k8s.objects import workloads
from torchnet.k8s.objects.builders import MAP_LIMIT, binding, discovery_rules, role, service_account
from torchnet.k8s.objects.code_bundle import CodeBundle, gather
from torchnet.k8s.objects.network_policy import policies
from torchnet.k8s.objects.pod import processes, template
from torchnet.k8s.objects.pod_template import load
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
    pod_template: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return every object of the run in the order of creation; the workload (with plain Pods, all of them) comes last.

    Args:
        token: The workers' shared secret; unused with ``--token-secret``.
        code: The result of `torchnet.k8s.objects.code_bundle.gather`.
        pod_template: The result of `torchnet.k8s.objects.pod_template.load`.

    Raises:
        UsageError: The run's name or the user's template is invalid, or a ConfigMap cannot hold the code.
    """
    group = job.kubernetes
    if problems := find_run_id_problems(run_id, group.form, job.nnodes):
        raise UsageError("\n  ".join(["the run cannot be called so:", *problems]), fix="--run-id NAME")
    attachments = attachments_of(job, namespace)
    spec = agent_spec(job, run_id, processes(job), code.script, attachments)
    labels = {**dict(sorted(group.labels.items())), constants.RUN_LABEL: run_id, **constants.COMMON_LABELS}
    notes = dict(sorted(group.annotations.items()))

    def named(name: str, body: Mapping[str, Any], more: Mapping[str, str] | None = None) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": dict(labels)}
        if notes or more:
            metadata["annotations"] = {**notes, **(more or {})}
        head = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}
        return head | {key: value for key, value in body.items() if key not in head}

    found = [named(f"{run_id}-code", _code(code, spec.dumps()))]
    if not group.token_secret:
        data = {constants.TOKEN_KEY: base64.b64encode(token.encode()).decode()}
        found.append(
            named(
                f"{run_id}-token",
                {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": True, "data": data},
            )
        )
    if not group.service_account and not group.static_ips:
        found += [named(run_id, body) for body in _rights(run_id, namespace)]
    if group.network_policy == "isolate" and not job.host_network:  # it would not apply to their pods
        for name, body, more in policies(run_id, attachments, on_rails=group.multi_network_policy):
            found.append(named(name, body, more))
    pods = template(job, run_id, code, attachments, labels, pod_template or {})
    return found + workloads.of(job, run_id, pods, attachments, named)


def workload(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the Job, the JobSet, or the first of the plain Pods."""
    return next(one for one in found if one["kind"] in WORKLOADS)


def pod_of(found: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """Return worker ``index``'s Pod as the controller would create it.

    The server's dry run needs it: admission policies and quotas that apply to Pods do not see them in a workload.
    """
    return workloads.pod_of([one for one in found if one["kind"] in WORKLOADS], index)


def _code(code: CodeBundle, spec: str) -> dict[str, Any]:
    files = {constants.AGENT_ZIP: code.torchnet_zip, constants.CODE_ZIP: code.code_zip}
    size = len(spec) + sum(len(zipped) for zipped in files.values() if zipped is not None)
    if size > MAP_LIMIT:
        raise UsageError(
            f"the script's folder and arguments, with the agent, take {size:,} bytes; a ConfigMap holds {MAP_LIMIT:,}",
            fix="--code image or --code pvc:NAME/PATH; long arguments in a file",
        )
    data = {name: base64.b64encode(zipped).decode() for name, zipped in files.items() if zipped is not None}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "immutable": True,
        "data": {constants.SPEC_JSON: spec},
        "binaryData": data,
    }


def _rights(run_id: str, namespace: str) -> list[dict[str, Any]]:
    return [
        service_account(run_id, namespace) | {"automountServiceAccountToken": False},
        role(run_id, discovery_rules(), namespace),
        binding(run_id, run_id, (run_id, namespace), namespace),
    ]


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
    """Read the script's folder, the pod template and the user's key, and render the objects.

    A run without a name gets one. Relative paths are relative to ``cwd``. No request is sent.

    Raises:
        UsageError: The script, its folder, the template or the user's key cannot be used.
    """
    run_id = job.run_id or new_run_name(job.script)
    check_bundled_script(job, cwd)
    path = job.kubernetes.pod_template
    patch = load(os.path.join(cwd, path)) if path else None
    code = gather(job, cwd, environ)
    secret = "" if job.kubernetes.token_secret else token(user_key(environ), run_id, namespace)
    found = objects(job, run_id, namespace, secret, code, patch)
    warnings = [f"not bundled: {printable(line)}" for line in code.left_out]
    if job.kubernetes.queue and job.kubernetes.form == "pods":
        warnings.append(
            f"if the queue {job.kubernetes.queue} preempts the run, it ends: nothing recreates plain pods; a Job and a "
            "JobSet start again"
        )
    return RenderedRun(run_id, namespace, attachments_of(job, namespace), found, tuple(warnings))
