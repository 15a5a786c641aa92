"""Rules across attachments: what two of them share, and cannot share (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchnet.k8s.attachments.address_range import AddressRange, address_ranges
from torchnet.k8s.attachments.cni_config import CniConfig, text_of
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.finding import Finding, broken
from torchnet.text import printable


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
            if config is not None:
                for finding in (*_master(one, config, second), *_ranges(one, config, second)):
                    yield definition, finding
        before.append((definition, second))


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


def _ranges(one: Definition, config: CniConfig, second: CniConfig) -> Iterator[Finding]:
    allocators = _allocator(config), _allocator(second)
    if allocators[0] == allocators[1] and allocators[0][0] == "whereabouts":
        return  # one pool, or reservations that cover overlapping ranges
    for mine, its in _overlapping(config, second):
        yield broken(
            (*second.main.path, "ipam"),
            f"the range {its} overlaps {mine} of {printable(one.path, 120)}, whose addresses "
            f"{_words(allocators[0])} allocates",
            f"{_words(allocators[1])} does not know these allocations, so that two pods get the same address",
            fix="ranges that do not overlap, or Whereabouts for both",
        )
        return


def _overlapping(config: CniConfig, second: CniConfig) -> Iterator[tuple[AddressRange, AddressRange]]:
    for mine in address_ranges(config):
        for its in address_ranges(second):
            if mine.overlaps(its):
                yield mine, its


def _allocator(config: CniConfig) -> tuple[str, str]:
    """What allocates the addresses, and under which name it keeps its allocations."""
    if config.ipam_type != "whereabouts":
        return config.ipam_type, text_of(config.body, "name")
    separate = config.ipam.get("enable_overlapping_ranges") is False
    pool = ",".join(map(str, address_ranges(config))) if separate else ""
    return "whereabouts", f"{text_of(config.ipam, 'network_name')}/{pool}"


def _words(allocator: tuple[str, str]) -> str:
    return "Whereabouts" if allocator[0] == "whereabouts" else allocator[0]
