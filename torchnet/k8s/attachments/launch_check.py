"""What a launch checks about its attachments before it creates anything: all rules, and free addresses.

Only what no pod can work with stops a launch. Other faults are reported: the workers' preflight decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torchnet.constants import NETWORKS_ANNOTATION, QUEUE_LABEL
from torchnet.errors import NetworkError
from torchnet.k8s.attachments.cluster_state import ClusterState
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.finding import Finding
from torchnet.k8s.attachments.free_addresses import Need, check_addresses
from torchnet.k8s.attachments.lint import Lint, lint
from torchnet.k8s.attachments.request_rules import Request
from torchnet.k8s.attachments.shared_rules import check_rails
from torchnet.k8s.client.api_client import ApiClient
from torchnet.k8s.client.api_errors import ApiRefusal
from torchnet.network.attachment import NetworkAttachment
from torchnet.text import printable

Object = dict[str, Any]


def check_launch(
    client: ApiClient,
    objects: Sequence[Object],
    pod: Object,
    attachments: Sequence[NetworkAttachment],
    nnodes: int,
    known: Mapping[str, Object] | None = None,
) -> list[str]:
    """Check the attachments of a launch.

    Args:
        objects: All objects of the run.
        pod: One pod of the workload.
        attachments: Those of each pod.
        nnodes: How many pods the workload has.
        known: Attachments that have been read, by NAMESPACE/NAME.

    Returns:
        A line for each fault that does not stop the launch, for what could not be read, and for addresses that come
        late.

    Raises:
        NetworkError: No pod can get a usable interface, or there are fewer free addresses than workers.
    """
    if not attachments:
        return []
    state = ClusterState(client, known)
    rails = Counter(one.path for one in attachments)
    lines: list[str] = []
    unread: tuple[str, ...] = ()
    try:
        definitions = _definitions(state, attachments)
        if not definitions:
            return []
        found = _lint(state, definitions, list(rails), pod)
        _refuse_faults(found)
        lines += [*_fault_lines(found), *_resource_lines(definitions, attachments)]
        unread = found.skipped
        own = [one for one in definitions if one.path in rails]
        lines += map(_fault_line, check_rails(own, attachments))
        # Also with fixed addresses: Whereabouts allocates all the same.
        lines += check_addresses(state, client, Need(own, rails, nnodes, _is_queued(objects)))
    except ApiRefusal as error:
        lines.append(f"the network attachments are not checked completely: {error.text}")
    # In one line: a user with the role edit sees it at each launch.
    skipped = dict.fromkeys((*unread, *state.skipped))
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
    text = str((pod["metadata"].get("annotations") or {}).get(NETWORKS_ANNOTATION) or "")
    where = f"the annotation {NETWORKS_ANNOTATION}"
    requests = [Request(where, pod["metadata"].get("namespace") or "", text)] if text else []
    found = lint(definitions, requests, concerns=paths)
    if any(not one.blocks for one in found.faults):
        # Some of these are none on a single node.
        nodes = state.nodes()
        found = lint(definitions, requests, concerns=paths, nodes=nodes)
    return found


def _refuse_faults(found: Lint) -> None:
    blocking = [one for one in found.faults if one.blocks]
    if not blocking:
        return
    first = blocking[0]
    if len(blocking) == 1:
        text = f"{_subject(first)}: {first.sentence}"
    else:
        lines = [f"{one.where}: {one.sentence}" for one in blocking]
        text = "\n  ".join([f"the network attachments have {len(lines)} faults", *lines])
    raise NetworkError(text, fix=_next_command(first))


def _is_attachment(where: str) -> bool:
    return "/" in where and " " not in where


def _subject(one: Finding) -> str:
    return f"network attachment {one.where}" if _is_attachment(one.where) else one.where


def _next_command(one: Finding) -> str:
    if not _is_attachment(one.where):
        return one.fix or "torchnet network lint"
    return f"torchnet network lint -n {one.where.partition('/')[0]}"


def _fault_lines(found: Lint) -> list[str]:
    return [_fault_line(one) for one in found.faults if not one.blocks]


def _fault_line(one: Finding) -> str:
    return f"{_subject(one)}: {one.sentence}\n  fix: {one.fix or _next_command(one)}"


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


def _is_queued(objects: Sequence[Object]) -> bool:
    return any(QUEUE_LABEL in (one["metadata"].get("labels") or {}) for one in objects)
