"""The workload that starts the pods: an Indexed Job, a JobSet around one, or plain Pods."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torchnet
from torchnet import constants
from torchnet.config.agent_spec import network_kind
from torchnet.config.job_spec import JobSpec
from torchnet.k8s.objects import kueue
from torchnet.k8s.objects.job_template import apply
from torchnet.k8s.objects.network_annotation import fixed_addresses, networks, source
from torchnet.k8s.objects.pod import processes
from torchnet.network.attachment import NetworkAttachment

# With this exit code an agent asks for a replacement of its pod before the start: another machine uses its address, or
# it received SIGTERM. Agents use it for no other reason, whatever a script's exit code is (torchnet.agent.worker).
_REPLACED = [
    {
        "action": "Ignore",
        "onExitCodes": {"containerName": name, "operator": "In", "values": [constants.REPLACE_CODE]},
    }
    for name in (constants.PREPARE, constants.WORKER)
]
_TRAINED = {"containerName": constants.WORKER, "operator": "NotIn", "values": [0]}
# The agents' exit codes if the cluster is the cause: the backend failed, or a worker was lost. Not 143, with which
# agents exit that are told to stop: for a moment, the pods that a suspension has deleted still exist, and the Job
# controller applies this rule to them, too (getFailJobMessage in pkg/controller/job).
_INFRA_CODES = [constants.NETWORK_CODE, constants.LOST_CODE]
_INFRA = {"containerName": constants.WORKER, "operator": "In", "values": _INFRA_CODES}
# The reasons of a failed Job that no rule with the action FailJob has ended: the script's own failures.
_SCRIPT_REASONS = ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded"]
_TAKEN_AWAY = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"

Named = Callable[..., dict[str, Any]]


def of(
    job: JobSpec,
    run_id: str,
    pods: dict[str, Any],
    attachments: Sequence[NetworkAttachment],
    named: Named,
    job_template: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the workload's objects; ``named`` adds the metadata of each.

    Raises:
        UsageError: The user's template of the Job or JobSet sets what torchnet needs.
    """
    form = job.kubernetes.form
    about = {
        "nnodes": job.nnodes,
        "nproc_per_node": processes(job),
        "network": network_kind(job),
        "version": torchnet.__version__,
    }
    notes = {constants.SPEC_ANNOTATION: json.dumps(about)}
    if form == "pods":
        return _pods(job, run_id, pods, attachments, notes, named)
    if form == "job":
        body: dict[str, Any] = {"apiVersion": "batch/v1", "kind": "Job", "spec": _job(job, pods)}
    else:
        body = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": _jobset(job, pods)}
    whole = named(run_id, body, notes)
    if job.kubernetes.queue:
        whole["metadata"]["labels"] |= kueue.workload_labels(job)
        # Kueue's webhook suspends it, too. Without that webhook, it would run past its queue.
        whole["spec"]["suspend"] = True
    if job.kubernetes.ttl is not None:
        whole["spec"]["ttlSecondsAfterFinished"] = math.ceil(job.kubernetes.ttl)
    if job_template:
        whole = apply(whole, job_template, job.kubernetes.job_template or "the job template")
    return [whole]


def _job(job: JobSpec, pods: dict[str, Any]) -> dict[str, Any]:
    return {
        "completionMode": "Indexed",
        "completions": job.nnodes,
        "parallelism": job.nnodes,
        # `backoffLimit: 0` would delete the other pods at the first failure, with their logs and receipts.
        "backoffLimitPerIndex": 0,
        # A pod is replaced only after it has ended: two workers must not have the same index.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _rules(job)},
        "template": pods,
    }


def _rules(job: JobSpec) -> list[dict[str, Any]]:
    """Return the rules of the pod failure policy: the first match decides; without one, the worker's index fails."""
    # A worker that has trained is not replaced: the new one would wait for a rank 0 that is about to end. The other
    # workers lose the connection to it and end; `FailJob` would delete their pods, with their logs and receipts.
    trained = {"action": "FailIndex", "onExitCodes": _TRAINED}
    if job.kubernetes.form != "jobset":
        # An evicted worker is replaced; until the start, the others find the new one.
        return [*_REPLACED, trained, {"action": "Ignore", **_TAKEN_AWAY}]
    # A pod that is disrupted and has no exit code may have trained: its node is gone. The JobSet restarts all pods.
    disrupted = {"action": "FailJob", **_TAKEN_AWAY}
    if not job.kubernetes.max_infra_restarts:
        return [*_REPLACED, trained, disrupted]
    # FailJob gives the Job the reason PodFailurePolicy, by which the JobSet knows a failure that is not the script's.
    # The pods that it deletes would be deleted by the restart, too.
    return [*_REPLACED, disrupted, {"action": "FailJob", "onExitCodes": _INFRA}, trained]


def _jobset(job: JobSpec, pods: dict[str, Any]) -> dict[str, Any]:
    return {
        # The defaults that JobSet's webhooks would add: without webhooks, the controller fails on missing fields.
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "successPolicy": {"operator": "All"},
        "failurePolicy": _failure_policy(job.kubernetes.max_infra_restarts),
        "replicatedJobs": [
            {
                "name": constants.JOBSET_JOB,
                "replicas": 1,
                "template": {
                    "metadata": {"labels": dict(pods["metadata"]["labels"])},
                    "spec": _job(job, pods),
                },
            }
        ],
    }


def _failure_policy(restarts: int) -> dict[str, Any]:
    """Return the JobSet's failure policy; the agents themselves restart a script that fails (``--max-restarts``).

    A failure that no rule names has the action RestartJobSet, up to maxRestarts times. The action
    RestartJobSetAndIgnoreMaxRestarts was rejected: a job whose nodes keep failing would start again without end.
    """
    policy: dict[str, Any] = {"maxRestarts": restarts, "restartStrategy": "BlockingRecreate"}
    if restarts:
        script = {"name": "script", "action": "FailJobSet", "onJobFailureReasons": _SCRIPT_REASONS}
        policy["rules"] = [script]
    return policy


def _pods(
    job: JobSpec,
    run_id: str,
    pods: dict[str, Any],
    attachments: Sequence[NetworkAttachment],
    notes: dict[str, str],
    named: Named,
) -> list[dict[str, Any]]:
    labels, annotations = pods["metadata"]["labels"], pods["metadata"].get("annotations", {})
    labels = labels | kueue.workload_labels(job, group=run_id)
    annotations = annotations | kueue.group_annotations(job)
    # The pods share the dicts of their common parts, so that the YAML writer renders each of these only once.
    namespace = named(run_id, {"apiVersion": "v1", "kind": "Pod"})["metadata"]["namespace"]
    addresses = fixed_addresses(job)
    found = []
    for index in range(job.nnodes):
        variables = {_INDEX_VARIABLE: str(index)}
        own = annotations
        if addresses:
            variables["TORCHNET_ADDRESS_SOURCE"] = source(attachments, addresses[index])
            own = own | {constants.NETWORKS_ANNOTATION: networks(attachments, addresses[index])}
        metadata = {
            "name": f"{run_id}-{index}",
            "namespace": namespace,
            "labels": {**labels, constants.NODE_RANK_LABEL: str(index)},
            "annotations": own if index else own | notes,
        }
        spec = _with_variables(pods["spec"], variables)
        if "subdomain" in spec:  # as the Job controller does
            spec["hostname"] = f"{run_id}-{index}"
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return found


def _with_variables(spec: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """Return ``spec`` with more variables in torchnet's two containers; the unchanged parts are shared, not copied."""
    more = [{"name": name, "value": value} for name, value in variables.items()]
    changed = {}
    for key in ("initContainers", "containers"):
        changed[key] = [
            one | {"env": [*more, *one.get("env", ())]}
            if one["name"] in (constants.PREPARE, constants.WORKER)
            else one
            for one in spec[key]
        ]
    return spec | changed


def pod_of(found: list[dict[str, Any]], index: int) -> dict[str, Any]:
    """See `torchnet.k8s.objects.run_objects.pod_of`."""
    first = found[0]
    if first["kind"] == "Pod":
        return found[index]
    spec, run_id, hostname = first["spec"], first["metadata"]["name"], first["metadata"]["name"]
    labels: dict[str, str] = {}
    if first["kind"] == "JobSet":
        job = spec["replicatedJobs"][0]
        hostname = f"{run_id}-{job['name']}-0"
        labels = {
            "jobset.sigs.k8s.io/jobset-name": run_id,
            "jobset.sigs.k8s.io/replicatedjob-name": job["name"],
        }
        spec = job["template"]["spec"]
    pods = spec["template"]
    labels |= {constants.INDEX_LABEL: str(index), "batch.kubernetes.io/job-name": hostname}
    metadata = pods["metadata"] | {
        "name": f"{hostname}-{index}-00000",
        "namespace": first["metadata"]["namespace"],
        "labels": {**pods["metadata"]["labels"], **labels},
    }
    made = _with_variables(pods["spec"], {_INDEX_VARIABLE: str(index)}) | {"hostname": f"{hostname}-{index}"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made}
