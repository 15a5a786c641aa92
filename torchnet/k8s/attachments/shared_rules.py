"""Rules across attachments: what two of them share, and cannot share (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torchnet.k8s.attachments.address_pool import pool_name
from torchnet.k8s.attachments.address_range import AddressRange, address_ranges, overlaps
from torchnet.k8s.attachments.cni_config import CniConfig, text_of
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.finding import Finding, broken
from torchnet.network.attachment import NetworkAttachment
from torchnet.text import printable

_HOST_LOCAL_FOLDER = "/var/lib/cni/networks"


def check_shared(
    definitions: Sequence[Definition], others: Sequence[Definition] = ()
) -> Iterator[tuple[Definition, Finding]]:
    """Yield what is wrong between attachments of one cluster, each with the later one of the two.

    Args:
        others: Attachments that are compared only with ``definitions``, and come before these.
    """
    before = [(one, one.parsed) for one in others if not one.ipam_only]
    for definition in definitions:
        second = definition.parsed
        if second is None or definition.ipam_only:
            continue
        for one, config in before:
            # Files of one name are those of several nodes, which share nothing.
            if config is not None and not (one.file_name and one.file_name == definition.file_name):
                for finding in (*_master(one, config, second), *_ranges(one, config, definition, second)):
                    yield definition, finding
        before.append((definition, second))


def check_rails(
    definitions: Sequence[Definition], attachments: Sequence[NetworkAttachment]
) -> Iterator[Finding]:
    """Yield what is wrong between the interfaces of one pod.

    Args:
        attachments: One for each interface. Those with a device resource are left out: RDMA chooses its device itself.
    """
    by_path = {one.path: one.parsed for one in definitions}
    networks = [
        (rail, AddressRange(net, int(net.network_address), int(net.broadcast_address)))
        for rail, one in enumerate(attachments)
        if not one.resource and (config := by_path.get(one.path)) is not None
        for net in dict.fromkeys(found.network for found in address_ranges(config))
    ]
    for (first, _), (second, found) in overlaps(networks):
        one, other = (attachments[rail] for rail in sorted((first, second)))
        finding = broken(
            (),
            f"{one.interface or 'one interface'} and {other.interface or 'another'} get addresses of {found}",
            "the kernel sends the packets of both through one of them",
            fix="a prefix for each: torchnet manifests backend-network --name NAME --range CIDR ...",
        )
        yield replace(finding, where=other.path)
        return


def _master(one: Definition, config: CniConfig, second: CniConfig) -> Iterator[Finding]:
    master = config.master
    if not master or master != second.master:
        return
    path, where = second.main.path, printable(one.path, 120)
    if config.main.type != second.main.type:
        yield broken(
            (*path, "type"),
            f"{second.main.type} on {printable(master, 20)}, which has {config.main.type} in {where}",
            "on a node with a pod of one of them, a pod of the other one fails: device or resource busy",
            fix="one type for both, or another interface for one of them",
        )
    elif config.main.type == "ipvlan" and config.mode != second.mode:
        yield broken(
            (*path, "mode"),
            f"{second.mode} on {printable(master, 20)}, which has {config.mode} in {where}",
            "the mode belongs to the node's interface: the newest pod changes it for all pods of the node",
            fix="one mode for both, or another interface for one of them",
        )


def _ranges(one: Definition, config: CniConfig, other: Definition, second: CniConfig) -> Iterator[Finding]:
    if _cooperate(one, config, other, second):
        return
    pools, its_pools = _by_pool(config), _by_pool(second)
    common = (
        pools.keys() & its_pools.keys() if config.ipam_type == second.ipam_type == "whereabouts" else set()
    )
    for mine, its in (
        ([*pools.values()], [found for pool, found in its_pools.items() if pool not in common]),
        ([found for pool, found in pools.items() if pool not in common], [*its_pools.values()]),
    ):
        owned = [
            *((0, found) for part in mine for found in part),
            *((1, found) for part in its for found in part),
        ]
        for pair in overlaps(owned):
            ranges = dict(pair)
            yield broken(
                (*second.main.path, "ipam"),
                f"the range {ranges[1]} overlaps {ranges[0]} of {printable(one.path, 120)}, whose addresses "
                f"{_words(config)} allocates",
                f"{_words(second)} does not know these allocations, so that two pods get the same address",
                fix="ranges that do not overlap, or Whereabouts for both",
            )
            return


def _cooperate(one: Definition, config: CniConfig, other: Definition, second: CniConfig) -> bool:
    """Whether the allocations of each are known to the other one, even if the ranges differ."""
    kinds = {config.ipam_type, second.ipam_type}
    if kinds == {"whereabouts"}:
        # Reservations cover the overlapping ranges of one network name.
        has_reservations = all(
            part.ipam.get("enable_overlapping_ranges") is not False for part in (config, second)
        )
        names = {text_of(part.ipam, "network_name") for part in (config, second)}
        return has_reservations and len(names) == 1
    if kinds == {"host-local"}:
        return _folder(one, config) == _folder(other, second)
    return False


def _folder(definition: Definition, config: CniConfig) -> tuple[str, str]:
    """Where host-local keeps its allocations on a node. Multus gives the attachment's name to what has none."""
    folder = text_of(config.ipam, "dataDir") or _HOST_LOCAL_FOLDER
    return folder.rstrip("/"), text_of(config.body, "name") or definition.name


def _by_pool(config: CniConfig) -> dict[str, list[AddressRange]]:
    """Return the ranges by the name of Whereabouts' pool."""
    found: dict[str, list[AddressRange]] = defaultdict(list)
    for one in address_ranges(config):
        found[pool_name(one, text_of(config.ipam, "network_name"))].append(one)
    return found


def _words(config: CniConfig) -> str:
    return "Whereabouts" if config.ipam_type == "whereabouts" else config.ipam_type
