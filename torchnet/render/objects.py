"""A job as the objects that Kubernetes is given: pure, and the same bytes for the same arguments."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from torchnet import names
from torchnet.errors import UsageError
from torchnet.manifests.parts import binding, discovery_rules, role, service_account
from torchnet.render import workloads
from torchnet.render.attachments import rails_of
from torchnet.render.code import Code
from torchnet.render.pod import template
from torchnet.render.policies import policies
from torchnet.spec.kubernetes import wrong_run_id
from torchnet.spec.model import JobSpec

WORKLOADS = ("Job", "JobSet", "Pod")


def objects(
    job: JobSpec,
    run_id: str,
    namespace: str,
    token: str,
    code: Code,
    pod_template: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Every object of the run, in the order of creation; the workload (of plain Pods: all of them) comes last.

    Args:
        token: the workers' common secret; not used with ``--token-secret``.
        code: what `torchnet.render.code.gather` read.
        pod_template: what `torchnet.render.template.load` read.

    Raises:
        UsageError: the run's name or the user's template cannot be used.
    """
    group = job.kubernetes
    if problems := wrong_run_id(run_id, group.form, job.nnodes):
        raise UsageError("\n  ".join(["the run cannot be called so:", *problems]), fix="--run-id NAME")
    rails = rails_of(job, namespace)
    labels = {**dict(sorted(group.labels.items())), names.RUN_LABEL: run_id, **names.COMMON_LABELS}
    notes = dict(sorted(group.annotations.items()))

    def named(name: str, body: Mapping[str, Any], more: Mapping[str, str] | None = None) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": dict(labels)}
        if notes or more:
            metadata["annotations"] = {**notes, **(more or {})}
        head = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}
        return head | {key: value for key, value in body.items() if key not in head}

    found = [named(f"{run_id}-code", _code(code))]
    if not group.token_secret:
        data = {names.TOKEN_KEY: base64.b64encode(token.encode()).decode()}
        found.append(
            named(
                f"{run_id}-token",
                {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": True, "data": data},
            )
        )
    if not group.service_account and not group.static_ips:
        found += [named(run_id, body) for body in _rights(run_id, namespace)]
    if group.network_policy == "isolate":
        for name, body, more in policies(run_id, rails, on_rails=group.multi_network_policy):
            found.append(named(name, body, more))
    pods = template(job, run_id, code, rails, labels, pod_template or {})
    return found + workloads.of(job, run_id, pods, rails, named)


def workload(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The Job, the JobSet, or the first of the plain Pods."""
    return next(one for one in found if one["kind"] in WORKLOADS)


def pod_of(found: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """Worker ``index``'s Pod as the controller would make it, for a dry run: policies and quotas judge Pods alone."""
    return workloads.pod_of([one for one in found if one["kind"] in WORKLOADS], index)


def _code(code: Code) -> dict[str, Any]:
    files = {names.AGENT_ZIP: code.torchnet_zip, names.CODE_ZIP: code.code_zip}
    data = {name: base64.b64encode(zipped).decode() for name, zipped in files.items() if zipped is not None}
    return {"apiVersion": "v1", "kind": "ConfigMap", "immutable": True, "binaryData": data}


def _rights(run_id: str, namespace: str) -> list[dict[str, Any]]:
    return [
        service_account(run_id, namespace) | {"automountServiceAccountToken": False},
        role(run_id, discovery_rules(), namespace),
        binding(run_id, run_id, (run_id, namespace), namespace),
    ]
