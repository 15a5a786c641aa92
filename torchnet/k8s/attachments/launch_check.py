"""What a launch checks about its attachments before it creates anything: all rules, and free addresses.

Only what no pod can work with stops a launch. Other faults are reported: the workers' preflight decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchnet.constants import NETWORKS_ANNOTATION, QUEUE_LABEL
from torchnet.errors import NetworkError
from torchnet.k8s.attachments.address_pool import Pool, RangeUse, pool_name, range_uses
from torchnet.k8s.attachments.address_table import AddressTable, address_table
from torchnet.k8s.attachments.cluster_state import ClusterState
from torchnet.k8s.attachments.cni_config import text_of
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.lint import Lint, lint
from torchnet.k8s.attachments.request_rules import Request
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.network.attachment import NetworkAttachment
from torchnet.text import printable
from torchnet.units import counted

Object = dict[str, Any]
# Whereabouts frees an address when the kubelet has removed the pod's sandbox, some seconds after the pod's end.
ATTEMPTS, PAUSE = 3, 3.0


def check_launch(
    client: ApiClient, objects: Sequence[Object], pod: Object, attachments: Sequence[NetworkAttachment]
) -> list[str]:
    """Check the attachments of a launch.

    Args:
        objects: All objects of the run.
        pod: One pod of the workload.
        attachments: Those of each pod.

    Returns:
        A line for each fault that does not stop the launch, and for what could not be read.

    Raises:
        NetworkError: No pod can get a usable interface, or there are fewer free addresses than workers.
    """
    if not attachments:
        return []
    state = ClusterState(client)
    paths = [one.path for one in attachments]
    try:
        definitions = _definitions(state, attachments)
        if not definitions:
            return []
        found = _lint(state, definitions, paths, pod)
        _refuse_faults(found)
        lines = [*_fault_lines(found), *_resource_lines(definitions, attachments)]
        # With fixed addresses, pods take none of a pool.
        if not _requested_addresses(pod):
            lines += _check_addresses(state, client, objects, definitions, Counter(paths))
    except ApiRefusal as error:
        return [f"the network attachments are not checked: {error.text}"]
    # In one line: a user with the role edit sees it at each launch.
    skipped = dict.fromkeys((*found.skipped, *state.skipped))
    return lines + (["not checked before the start: " + "; ".join(skipped)] if skipped else [])


def _definitions(state: ClusterState, attachments: Sequence[NetworkAttachment]) -> list[Definition]:
    """Return all attachments that may be read; the pods' own in any case, if they may be read at all."""
    found = {}
    try:
        paths = {one.path for one in attachments}
        found = {one.path: one for one in state.definitions(attachments[0].namespace, paths)}
    except ApiRefusal:
        pass
    for one in attachments:
        if one.path not in found:
            try:
                found[one.path] = state.definition(one.namespace, one.name)
            except ApiRefusal:
                continue  # the check of its existence has said so
    return list(found.values())


def _lint(state: ClusterState, definitions: Sequence[Definition], paths: Sequence[str], pod: Object) -> Lint:
    text = _requested_addresses(pod)
    where = f"the annotation {NETWORKS_ANNOTATION}"
    requests = [Request(where, pod["metadata"].get("namespace") or "", text)] if text else []
    found = lint(definitions, requests, concerns=paths)
    if any(not one.blocks for one in found.faults):
        # Some of these are none on a single node.
        nodes = state.nodes()
        found = lint(definitions, requests, concerns=paths, nodes=nodes)
    return found


def _requested_addresses(pod: Object) -> str:
    """Return the annotation of a pod with fixed addresses; "" for other pods."""
    annotations = pod["metadata"].get("annotations") or {}
    text = str(annotations.get(NETWORKS_ANNOTATION) or "")
    return text if '"ips"' in text else ""


def _refuse_faults(found: Lint) -> None:
    blocking = [one for one in found.faults if one.blocks]
    if not blocking:
        return
    where = blocking[0].where
    lines = [f"{one.where}: {one.sentence}" for one in blocking]
    if len(lines) == 1:
        text = f"network attachment {lines[0]}"
    else:
        text = "\n  ".join([f"the network attachments have {len(lines)} faults", *lines])
    raise NetworkError(text, fix=_next_command(where))


def _next_command(where: str) -> str:
    namespace, slash, _ = where.partition("/")
    return f"torchnet network lint -n {namespace}" if slash and " " not in where else "torchnet network lint"


def _fault_lines(found: Lint) -> list[str]:
    return [
        f"network attachment {one.where}: {one.sentence}\n  fix: {one.fix or _next_command(one.where)}"
        for one in found.faults
        if not one.blocks
    ]


def _resource_lines(
    definitions: Sequence[Definition], attachments: Sequence[NetworkAttachment]
) -> Iterator[str]:
    """Name the device resources that the pods do not request; an admission webhook may add them."""
    resources = {one.path: one.resource for one in definitions if one.resource}
    for path in dict.fromkeys(one.path for one in attachments if not one.resource):
        if path in resources:
            yield (
                f"network attachment {path}: its pods must request {printable(resources[path], 200)}; these do not, "
                "unless a webhook of the cluster adds it\n"
                f"  fix: --network {path}={printable(resources[path], 200)}"
            )


# -- addresses ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shortage:
    """A range with fewer free addresses than the workers need.

    Attributes:
        path: An attachment that allocates from it.
        rails: How many interfaces of each worker get an address from it.
    """

    path: str
    use: RangeUse
    rails: int


def _check_addresses(
    state: ClusterState,
    client: ApiClient,
    objects: Sequence[Object],
    definitions: Sequence[Definition],
    rails: Mapping[str, int],
) -> list[str]:
    workers, waits = worker_count(objects), _is_queued(objects)
    attempt = 0
    while True:
        attempt += 1
        pools = state.pools() if _uses_whereabouts(definitions, rails) else []
        shortage = next(_shortages(definitions, rails, pools or (), workers), None)
        if shortage is None:
            return []
        pods = state.pods_of({lease.pod.partition("/")[0] for lease in shortage.use.leases if lease.pod})
        table = address_table(shortage.path, [shortage.use], pods)
        may_end = any(row.state in ("gone", "terminating", "ended") for row in table.rows)
        if not may_end or attempt == ATTEMPTS or client.stop.wait(PAUSE):
            break
        state.skipped.clear()
    text = f"network attachment {shortage.path}: {_describe(shortage, table, workers)}"
    fix = f"torchnet network show {shortage.path}"
    if waits and shortage.use.range.capacity >= workers * shortage.rails:
        return [f"{text}\n  fix: {fix}"]  # the pods are created later
    raise NetworkError(text, fix=f"{fix}; a larger range, or fewer workers (--nnodes)")


def _uses_whereabouts(definitions: Sequence[Definition], rails: Mapping[str, int]) -> bool:
    return any(
        one.path in rails and one.parsed is not None and one.parsed.ipam_type == "whereabouts"
        for one in definitions
    )


def _shortages(
    definitions: Sequence[Definition], rails: Mapping[str, int], pools: Sequence[Pool], workers: int
) -> Iterator[_Shortage]:
    needs: Counter[str] = Counter()
    uses: dict[str, tuple[str, RangeUse]] = {}
    for one in definitions:
        if one.path in rails and one.parsed is not None:
            for use in range_uses(one.parsed, pools):
                key = pool_name(use.range, text_of(one.parsed.ipam, "network_name"))
                needs[key] += rails[one.path]
                uses.setdefault(key, (one.path, use))
    for key, count in needs.items():
        path, use = uses[key]
        if use.free < workers * count:
            yield _Shortage(path, use, count)


def _describe(shortage: _Shortage, table: AddressTable, workers: int) -> str:
    """The holders by what is known of them: ``16 workers, 6 addresses free, 10 held by pods that are gone``."""
    states = Counter("gone" if row.is_stale else "running" for row in table.rows if row.state != "unknown")
    states["unknown"] = sum(row.state == "unknown" for row in table.rows)
    parts = [counted(workers, "worker")]
    if shortage.rails > 1:
        parts[0] += f" with {shortage.rails} interfaces each"
    use = shortage.use
    parts.append(f"{counted(use.free, 'address')} free of {use.range.capacity} in {use.range}")
    for state, words in (
        ("gone", "pods that are gone"),
        ("running", "running pods"),
        ("unknown", "other pods"),
    ):
        if states[state]:
            parts.append(f"{states[state]} held by {words}")
    return printable(", ".join(parts), 400)


def _is_queued(objects: Sequence[Object]) -> bool:
    return any(QUEUE_LABEL in (one["metadata"].get("labels") or {}) for one in objects)


def worker_count(objects: Sequence[Object]) -> int:
    """Return how many pods the objects of a run are, or create."""
    count = 0
    for one in objects:
        spec = one.get("spec") or {}
        if one["kind"] == "Pod":
            count += 1
        elif one["kind"] == "Job":
            count += int(spec.get("completions") or 1)
        elif one["kind"] == "JobSet":
            for job in spec.get("replicatedJobs") or ():
                template = (job.get("template") or {}).get("spec") or {}
                count += int(job.get("replicas") or 1) * int(template.get("completions") or 1)
    return count
