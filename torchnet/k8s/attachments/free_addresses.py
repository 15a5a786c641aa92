"""Whether there are free addresses for all workers of a launch, and who holds the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torchnet.errors import NetworkError
from torchnet.k8s.attachments.address_pool import Pool, RangeUse, pool_name, range_uses, slice_length
from torchnet.k8s.attachments.address_range import host_local_sets
from torchnet.k8s.attachments.address_table import Row, address_table
from torchnet.k8s.attachments.allocation_time import WAY_OUT, assignment_line
from torchnet.k8s.attachments.cluster_state import ClusterState
from torchnet.k8s.attachments.cni_config import CniConfig, text_of
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.client.api_client import ApiClient
from torchnet.text import printable
from torchnet.units import counted

# Whereabouts frees an address when the kubelet has removed the pod's sandbox, some seconds after the pod's end.
ATTEMPTS, PAUSE = 3, 3.0
_LEAVING = ("terminating", "ended")
_HOLDERS = (
    "pods that are gone",
    "pods that have another address",
    "pods that are ending",
    "running pods",
    "pending pods",
    "other pods",
)


@dataclass(frozen=True)
class Need:
    """The addresses that a launch needs.

    Attributes:
        definitions: The attachments of its pods.
        rails: How many interfaces of each worker are of an attachment, by NAMESPACE/NAME.
        may_wait: The pods may start much later, because a queue admits them.
    """

    definitions: Sequence[Definition]
    rails: Mapping[str, int]
    workers: int
    may_wait: bool = False


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


def check_addresses(state: ClusterState, client: ApiClient, need: Need) -> list[str]:
    """Check that there are free addresses for all workers.

    Returns:
        A line if their assignment takes minutes, and one for a range that has too few now, but may have enough when the
        pods need them: pods end, a queue holds the workers back, or each node has a part of its own.

    Raises:
        NetworkError: There are too few.
        ApiRefusal: The pools or pods cannot be read, for another reason than missing rights.
    """
    own = {
        one.path: one.parsed
        for one in need.definitions
        if one.parsed is not None and one.parsed.ipam_type == "whereabouts"
    }
    for one in need.definitions:
        _check_parts(one, need)
    # Nodes with parts of their own have a Lease each.
    shared = [path for path, config in own.items() if slice_length(config) is None]
    slow = assignment_line(need.workers * sum(need.rails[path] for path in shared))
    return [*_shortage_lines(state, client, need, own), *([slow] if slow else [])]


def _check_parts(definition: Definition, need: Need) -> None:
    """Check that host-local's parts of the range, one for each node, have enough addresses together.

    Raises:
        NetworkError: They have too few, even if no other pod has one of them.
    """
    configs = definition.parsed_by_node
    if not configs or any(one.ipam_type != "host-local" for one in configs.values()):
        return
    capacity = sum(_capacity(one) for one in configs.values())
    rails = need.rails[definition.path]
    if capacity >= need.workers * rails:
        return
    workers = counted(need.workers, "worker") + (f" with {rails} interfaces each" if rails > 1 else "")
    raise NetworkError(
        f"network attachment {definition.path}: {workers}, at most {counted(capacity, 'address')} in the parts of the "
        f"range of {counted(len(configs), 'node')}",
        fix="larger parts, or parts for more nodes (torchnet manifests backend-network --slice NODE=CIDR ...), or "
        "fewer workers (--nnodes)",
    )


def _capacity(config: CniConfig) -> int:
    """How many pods of a node can get their addresses."""
    sets = [sum(one.capacity for one in found) for found in host_local_sets(config.ipam)]
    return min(sets, default=0)


def _shortage_lines(
    state: ClusterState, client: ApiClient, need: Need, own: Mapping[str, CniConfig]
) -> list[str]:
    noted = len(state.skipped)
    attempt = 0
    while True:
        attempt += 1
        del state.skipped[noted:]  # what an earlier attempt could not read
        pools = _read_pools(state, own)
        shortage = next(_shortages(own, need, pools or ()), None)
        if shortage is None:
            return []
        needed, use = need.workers * shortage.rails, shortage.use
        pods = state.pods_of({lease.pod.partition("/")[0] for lease in use.leases if lease.pod})
        table = address_table(shortage.path, [use], pods)
        # Pods also have addresses that are no leases of this range.
        held = [row for row in table.rows if row.lease is not None and row.address in use.range]
        leaving = sum(row.state in _LEAVING for row in held)
        comes = (
            use.slice_length is not None
            or needed <= use.free + leaving
            or (need.may_wait and use.capacity >= needed)
        )
        # The lease of a pod that has just been deleted goes soon; one of a pod that was lost does not.
        is_final = comes or attempt == ATTEMPTS or all(row.state != "gone" for row in held)
        if is_final or client.stop.wait(PAUSE):
            break
    text = f"network attachment {shortage.path}: {_describe(shortage, held, need.workers, is_read=pools is not None)}"
    fix = f"torchnet network show {shortage.path}"
    if comes:
        return [f"{text}\n  fix: {fix}"]
    unread = "; ".join(state.skipped[noted:])
    raise NetworkError(
        f"{text}; {unread}" if unread else text,
        fix=f"{fix}; a larger range, fewer workers (--nnodes), or {WAY_OUT}",
    )


def _read_pools(state: ClusterState, own: Mapping[str, CniConfig]) -> list[Pool] | None:
    """Return the pools of the attachments; with node slices, the names of the nodes are part of the pools' names."""
    if any(slice_length(config) is not None for config in own.values()):
        return state.pools()
    return state.pools_of(_name(use, config) for config in own.values() for use in range_uses(config, ()))


def _shortages(own: Mapping[str, CniConfig], need: Need, pools: Sequence[Pool]) -> Iterator[_Shortage]:
    """Yield the ranges with too few addresses for all attachments that allocate within them."""
    by_pool: dict[tuple[str, int | None], list[tuple[str, RangeUse]]] = defaultdict(list)
    for path, config in own.items():
        for use in range_uses(config, pools):
            by_pool[_name(use, config), use.slice_length].append((path, use))
    for uses in by_pool.values():
        for path, use in uses:
            rails = sum(need.rails[other] for other, its in uses if use.range.covers(its.range))
            if use.free < need.workers * rails:
                yield _Shortage(path, use, rails)


def _name(use: RangeUse, config: CniConfig) -> str:
    return pool_name(use.range, text_of(config.ipam, "network_name"))


def _describe(shortage: _Shortage, held: Sequence[Row], workers: int, *, is_read: bool) -> str:
    """The holders by what is known of them: ``16 workers, 6 addresses free, 10 held by pods that are gone``."""
    holders = Counter(_holder(row) for row in held)
    parts = [counted(workers, "worker")]
    if shortage.rails > 1:
        parts[0] += f" with {shortage.rails} interfaces each"
    use = shortage.use
    if is_read:
        parts.append(f"{counted(use.free, 'address')} free of {use.capacity} in {use.range}")
    else:
        parts.append(f"at most {counted(use.capacity, 'address')} in {use.range}")
    parts += [f"{holders[words]} held by {words}" for words in _HOLDERS if holders[words]]
    return printable(", ".join(parts), 400)


def _holder(row: Row) -> str:
    if row.state in _LEAVING:
        return "pods that are ending"
    if row.is_stale:
        return "pods that are gone" if row.state == "gone" else "pods that have another address"
    return {"Running": "running pods", "Pending": "pending pods"}.get(row.state, "other pods")
