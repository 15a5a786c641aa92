"""Rules about the IPAM plugin of one attachment (pure).

Sources:
    whereabouts v0.9.4; containernetworking/plugins v1.9.1, plugins/ipam
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from torchnet.k8s.attachments import address_range
from torchnet.k8s.attachments.address_range import AddressRange
from torchnet.k8s.attachments.cni_config import Body, CniConfig, Path, text_of
from torchnet.k8s.attachments.finding import Finding, Remove, Set, broken, field_name, refused, warning
from torchnet.k8s.attachments.plugin_rules import ROUTED
from torchnet.text import printable

_STAYS = "and the pod stays in ContainerCreating"
_OTHERS = ("dhcp",)  # without rules
_SLICES = "torchnet manifests backend-network --slice NODE=CIDR ... gives each node its own range"
_ROUTED_SLICES = (
    "torchnet manifests backend-network --mode l3 --slice NODE=CIDR ..., and a route to each node's range"
)
# Read by Whereabouts 0.9.4 (pkg/types/types.go). Go compares the names of fields without case.
_WHEREABOUTS_FIELDS = frozenset(
    (
        *(
            "name",
            "type",
            "routes",
            "datastore",
            "addresses",
            "ipranges",
            "node_slice_size",
            "exclude",
            "dns",
        ),
        *(
            "range",
            "range_start",
            "range_end",
            "gateway",
            "log_file",
            "log_level",
            "network_name",
            "kubernetes",
        ),
        *(
            "etcd_host",
            "etcd_username",
            "etcd_password",
            "etcd_key_file",
            "etcd_cert_file",
            "etcd_ca_cert_file",
        ),
        *(
            "leader_lease_duration",
            "leader_renew_deadline",
            "leader_retry_period",
            "reconciler_cron_expression",
        ),
        *("enable_overlapping_ranges", "sleep_for_race", "configuration_path", "podname", "podnamespace"),
    )
)
_READABLE_OFFSETS = 1 << 63  # Whereabouts reads the offset of an allocation as a signed 64-bit number


def check_ipam(config: CniConfig, *, per_node: bool = False, nodes: int | None = None) -> Iterator[Finding]:
    """Yield what is wrong with the IPAM plugin of a configuration.

    Args:
        per_node: Each node has a configuration of its own.
        nodes: How many nodes the cluster has; None if unknown.
    """
    main = config.main
    path = (*main.path, "ipam")
    found = main.body.get("ipam")
    if found is None or found == {}:
        yield from _missing(config, path)
        return
    if not isinstance(found, dict) or not text_of(found, "type"):
        yield refused(
            path if not isinstance(found, dict) else (*path, "type"),
            "missing" if isinstance(found, dict) else "not an object",
            f"no IPAM plugin is called, {_STAYS}",
            fix='"ipam": {"type": "whereabouts", "range": "CIDR"}',
        )
        return
    kind = config.ipam_type
    if kind == "whereabouts":
        yield from _whereabouts(found, path)
    elif kind == "host-local":
        yield from _host_local(found, path)
    elif kind == "static":
        yield from _static(config, path)
    elif kind not in _OTHERS:
        yield warning(
            (*path, "type"),
            f'"{printable(kind, 60)}" is an IPAM plugin that these rules do not know',
            "its other fields are not checked; its binary must be in /opt/cni/bin of each node",
        )
    if nodes != 1:
        yield from _several_nodes(config, path, per_node=per_node)


def _missing(config: CniConfig, path: Path) -> Iterator[Finding]:
    fix = '"ipam": {"type": "whereabouts", "range": "CIDR"}'
    if config.main.type == "ipvlan":
        yield refused(path, "missing", f"ipvlan refuses to work without addresses, {_STAYS}", fix=fix)
    elif config.main.type in ("macvlan", "bridge"):
        yield refused(
            path, "missing", "the interface has no address, so that torchnet cannot use it as a rail", fix=fix
        )


# -- Whereabouts -------------------------------------------------------------------------------------------------


def _whereabouts(ipam: Body, path: Path) -> Iterator[Finding]:
    for key in ipam:
        if key.lower() not in _WHEREABOUTS_FIELDS:
            yield warning(
                (*path, key), "Whereabouts has no such field", "it is ignored", Remove((*path, key))
            )
    if ipam.get("range") is not None and not isinstance(ipam["range"], str):
        yield refused((*path, "range"), "not text", f"Whereabouts refuses it, {_STAYS}")
    more = ipam.get("ipRanges")
    if more is not None and (not isinstance(more, list) or not all(isinstance(one, dict) for one in more)):
        yield refused((*path, "ipRanges"), "not a list of objects", f"Whereabouts refuses it, {_STAYS}")
    parts = list(address_range.whereabouts_parts(ipam))
    if not parts and not ipam.get("addresses"):
        yield broken(
            (*path, "range"),
            "missing",
            "pods get no address, unless /etc/cni/net.d/whereabouts.d/whereabouts.conf of each node has a range",
            fix='"range": "CIDR"',
        )
    is_sliced = address_range.has_node_slices(ipam)
    ranges = []
    for part, one in parts:
        yield from _unreadable_bounds(one, (*path, *part), strict=bool(part))
        if is_sliced:
            yield from _without_effect(one, (*path, *part))
        else:
            yield from _bounds(one, (*path, *part), strict=bool(part))
        try:
            found = address_range.whereabouts_range(one, is_sliced=is_sliced)
            ranges.append((part, one, found))
        except ValueError as error:
            field, text = _culprit(one, error)
            yield refused((*path, *part, field), text, f"Whereabouts refuses it, {_STAYS}")
            continue
        yield from _usable(found, one, (*path, *part))
    yield from _gateway(ipam, ranges, path)
    yield from _node_slices(ipam, [found for _, _, found in ranges], path)


def _culprit(one: Body, error: ValueError) -> tuple[str, str]:
    """Return the field that is invalid, and what is wrong with it."""
    try:
        address_range.whereabouts_range({key: value for key, value in one.items() if key != "exclude"})
    except ValueError:
        return "range", f'"{printable(str(one.get("range")), 80)}" {error}'
    return "exclude", str(error) if not isinstance(one.get("exclude"), list) else f"an entry {error}"


def _without_effect(one: Body, path: Path) -> Iterator[Finding]:
    """With node slices, Whereabouts replaces the bounds by those of the node's part, and forgets ``exclude``."""
    for key in ("range_start", "range_end", "exclude"):
        if one.get(key):
            yield broken(
                (*path, key),
                "without effect beside node_slice_size",
                "Whereabouts allocates from the whole range, each node from its part",
                Remove((*path, key)),
            )


def _unreadable_bounds(one: Body, path: Path, *, strict: bool) -> Iterator[Finding]:
    """Whereabouts ignores a text of the first range that is no address, but not one in ``ipRanges``."""
    for key in ("range_start", "range_end"):
        text = one.get(key)
        if text is None or (isinstance(text, str) and not (strict and text)):
            continue
        try:
            address_range.address(text)
        except ValueError as error:
            what = f'"{printable(str(text), 80)}" {error}'
            yield refused((*path, key), what, f"Whereabouts refuses it, {_STAYS}", Remove((*path, key)))


def _bounds(one: Body, path: Path, *, strict: bool) -> Iterator[Finding]:
    """Whereabouts ignores bounds that it cannot use."""
    if "-" in text_of(one, "range"):
        return  # the range has its own
    try:
        network = address_range.interface(one.get("range"), sloppy=True).network
    except ValueError:
        return
    for key in ("range_start", "range_end"):
        text = one.get(key)
        if text is None or text == "":
            continue
        try:
            if address_range.address(text, sloppy=True) in network:
                continue
            what = f"is not in {network}"
        except ValueError as error:
            if strict or not isinstance(text, str):
                continue  # refused
            what = str(error)
        yield broken(
            (*path, key),
            f'"{printable(str(text), 80)}" {what}',
            "Whereabouts ignores it, and allocates from the whole range",
            Remove((*path, key)),
        )
    start, end = one.get("range_start"), one.get("range_end")
    try:
        first, last = (address_range.address(text, sloppy=True) for text in (start, end))
    except ValueError:
        return
    if first in network and last in network and int(last) < int(first):
        yield broken(
            (*path, "range_end"),
            "is before range_start",
            "Whereabouts ignores it, and allocates up to the end of the range",
            Set((*path, "range_start"), str(last)),
            Set((*path, "range_end"), str(first)),
        )


def _usable(found: AddressRange, one: Body, path: Path) -> Iterator[Finding]:
    if found.capacity == 0:
        yield refused(
            (*path, "exclude" if found.excluded else "range"),
            f"no address of {found.network} is left",
            f"Whereabouts refuses every pod, {_STAYS}",
        )
    elif found.first - int(found.network.network_address) >= _READABLE_OFFSETS:
        yield broken(
            (*path, "range_start" if one.get("range_start") else "range"),
            f"the addresses are in the upper half of {found.network}",
            "Whereabouts cannot read these allocations back: it does not release them, and where "
            "enable_overlapping_ranges is false, it gives two pods the same address",
            fix=f"a range whose addresses begin below {found.network.network_address + _READABLE_OFFSETS}",
        )


def _gateway(ipam: Body, ranges: Sequence[tuple[Path, Body, AddressRange]], path: Path) -> Iterator[Finding]:
    text = ipam.get("gateway")
    if text is None or text == "":
        return
    try:
        found = address_range.address(text, sloppy=True)
    except ValueError as error:
        what = f'"{printable(str(text), 80)}" {error}'
        yield refused(
            (*path, "gateway"), what, f"Whereabouts refuses it, {_STAYS}", Remove((*path, "gateway"))
        )
        return
    for part, one, addresses in ranges:
        if found in addresses:
            entries = one.get("exclude")
            entry = f"{found}/{found.max_prefixlen}"
            changes = [Set((*path, *part, "exclude"), [*(entries or ()), entry])]
            yield broken(
                (*path, "gateway"),
                f"{found} is in the range {addresses} and is not excluded",
                "Whereabouts gives the gateway's address to a pod",
                # With node slices, "exclude" has no effect.
                *([] if address_range.has_node_slices(ipam) else changes),
                fix="a range without the gateway's address" if address_range.has_node_slices(ipam) else "",
            )


def _node_slices(ipam: Body, ranges: Sequence[AddressRange], path: Path) -> Iterator[Finding]:
    key = "node_slice_size"
    found = ipam.get(key)
    if found is None or found == "":
        return
    if any(one.network.version == 6 for one in ranges):
        yield refused(
            (*path, key),
            "not for IPv6 ranges",
            "the controller of Whereabouts panics, and no pod gets an address",
            Remove((*path, key)),
            fix=_SLICES,
        )
        return
    digits = found.removeprefix("/") if isinstance(found, str) else ""
    if (
        not digits.isascii()
        or not digits.isdigit()
        or len(digits) > 3
        or any(int(digits) < one.network.prefixlen for one in ranges)
    ):
        yield refused(
            (*path, key),
            f'"{printable(str(found), 40)}" is not the prefix length of a part of the range',
            "no node gets a part of the range, and no pod an address",
            Remove((*path, key)),
        )


# -- host-local --------------------------------------------------------------------------------------------------


def _host_local(ipam: Body, path: Path) -> Iterator[Finding]:
    sets = ipam.get("ranges")
    if isinstance(sets, list) and any(isinstance(one, dict) for one in sets):
        wrapped = [[one] if isinstance(one, dict) else one for one in sets]
        yield refused(
            (*path, "ranges"),
            "not a list of lists",
            f"host-local refuses it, {_STAYS}",
            Set((*path, "ranges"), wrapped),
        )
        return
    if sets is not None and not _is_list_of_sets(sets):
        yield refused((*path, "ranges"), "not a list of lists of objects", f"host-local refuses it, {_STAYS}")
        return
    ranges: list[tuple[Path, AddressRange]] = []
    parts = list(address_range.host_local_parts(ipam))
    if not parts:
        yield refused(
            (*path, "ranges"),
            "missing",
            f"host-local has no addresses, {_STAYS}",
            fix='"ranges": [[{"subnet": "CIDR"}]]',
        )
    for part, one in parts:
        try:
            found = address_range.host_local_range(one)
            if found.capacity == 0:
                raise ValueError("has no address but the gateway's")
            ranges.append((part, found))
        except ValueError as error:
            yield refused(
                (*path, *part),
                printable(str(error), 200),
                f"host-local refuses it, {_STAYS}",
                *_network(one, (*path, *part)),
            )
    numbered = [(number, found) for number, (_, found) in enumerate(ranges)]
    for pair in address_range.overlaps(numbered):
        first, second = sorted(number for number, _ in pair)
        yield refused(
            (*path, *ranges[second][0]),
            f"overlaps {printable(str(ranges[first][1]), 80)} of {field_name(ranges[first][0]) or 'subnet'}",
            f"host-local refuses it, {_STAYS}",
        )
    versions: dict[Path, int] = {}
    for part, found in ranges:
        if found.network.version != versions.setdefault(part[:-1], found.network.version):
            text = "a range set has IPv4 and IPv6"
            yield refused((*path, *part), text, f"host-local refuses it, {_STAYS}")


def _is_list_of_sets(sets: object) -> bool:
    return isinstance(sets, list) and all(
        isinstance(one, list) and one and all(isinstance(part, dict) for part in one) for one in sets
    )


def _network(one: Body, path: Path) -> list[Set]:
    """The change that replaces an address with host bits by its network."""
    try:
        found = address_range.interface(one.get("subnet"))
    except ValueError:
        return []
    return [Set((*path, "subnet"), str(found.network))] if found.ip != found.network.network_address else []


# -- static ------------------------------------------------------------------------------------------------------


def _static(config: CniConfig, path: Path) -> Iterator[Finding]:
    found = config.ipam.get("addresses")
    if found is not None and not isinstance(found, list):
        yield refused((*path, "addresses"), "not a list", f"the plugin refuses it, {_STAYS}")
        return
    for index, one in enumerate(found or ()):
        text = one.get("address") if isinstance(one, dict) else None
        try:
            address_range.interface(text)
        except ValueError as error:
            where, what = (*path, "addresses", index, "address"), f'"{printable(str(text), 80)}" {error}'
            if config.has_requested_addresses:  # these replace it
                yield broken(where, what, "the plugin refuses pods whose annotation has no others")
            else:
                yield refused(where, what, f"the plugin refuses it, {_STAYS}")
    capability = (*config.main.path, "capabilities")
    enabled = config.main.body.get("capabilities")
    change = Set(capability, (enabled if isinstance(enabled, dict) else {}) | {"ips": True})
    if found:
        instead = ", unless its annotation has others" if config.has_requested_addresses else ""
        yield broken(
            (*path, "addresses"),
            "addresses in the attachment",
            f"every pod that uses it gets the same ones{instead}",
            Remove((*path, "addresses")),
            change,
            fix='the address of each pod in its annotation: "ips": ["ADDRESS/LENGTH"]; torchnet launch --static-ips',
        )
    elif not config.has_requested_addresses:
        yield broken(
            (*capability, "ips"),
            "missing",
            'a pod\'s "ips" are not passed to the plugin as its runtime configuration; Multus 4 still has CNI_ARGS, '
            "which it calls deprecated, and a pod without an address is refused",
            change,
        )


# -- several nodes -----------------------------------------------------------------------------------------------


def _several_nodes(config: CniConfig, path: Path, *, per_node: bool) -> Iterator[Finding]:
    if config.ipam_type == "host-local" and not per_node:
        changes = _shared_range(config, path)
        yield broken(
            (*path, "ranges" if "ranges" in config.ipam else "subnet"),
            "host-local with the same range on all nodes",
            "each node allocates on its own, so that pods on two nodes get the same address",
            *changes,
            fix=_SLICES,
        )
    is_shared = config.ipam_type == "host-local" or (
        config.ipam_type == "whereabouts" and not address_range.has_node_slices(config.ipam)
    )
    if (
        config.main.type == "ipvlan"
        and config.mode in ROUTED
        and config.ipam_type == "static"
        and not per_node
    ):
        yield warning(
            (*config.main.path, "mode"),
            f"{config.mode} with addresses that pods request",
            "the nodes route: each node needs a route to each address on another node",
            fix=_ROUTED_SLICES,
        )
    if config.main.type == "ipvlan" and config.mode in ROUTED and is_shared and not per_node:
        yield broken(
            (*config.main.path, "mode"),
            f"{config.mode} with one range for all nodes",
            "the nodes route, and no route can say on which node an address of the range is: pods on other nodes do "
            "not answer",
            Set((*config.main.path, "mode"), "l2"),
            fix=f"l2 if the nodes' interfaces share a layer-2 segment; else {_ROUTED_SLICES}",
            condition="the nodes' interfaces share a layer-2 segment",
        )


def _shared_range(config: CniConfig, path: Path) -> list[Set]:
    """The change that has Whereabouts allocate from the ranges of host-local; [] if Whereabouts cannot do the same."""
    parts = list(address_range.host_local_parts(config.ipam))
    sets = [part[:-1] for part, _ in parts]
    try:
        found = [_as_whereabouts(one) for _, one in parts]
    except ValueError:
        return []
    routes = config.ipam.get("routes")
    needs_gateway = isinstance(routes, list) and any(
        isinstance(one, dict) and not one.get("gw") for one in routes
    )
    has_gateway = needs_gateway or any(one.get("gateway") for _, one in parts)
    # The ranges of one set are alternatives. Whereabouts has one gateway for all ranges.
    if not found or len(set(sets)) < len(sets) or (len(found) > 1 and has_gateway):
        return []
    ipam: Body = {"type": "whereabouts", **found[0][0]}
    ipam |= {"gateway": found[0][1]} if has_gateway else {}
    ipam |= {"ipRanges": [one for one, _ in found[1:]]} if len(found) > 1 else {}
    ipam |= {"routes": routes} if isinstance(routes, list) else {}
    return [Set(path, ipam)]


def _as_whereabouts(one: Body) -> tuple[Body, str]:
    """Return Whereabouts' form of a range of host-local, and its gateway, which host-local gives to no pod.

    Raises:
        ValueError: host-local refuses the range.
    """
    found = address_range.host_local_range(one)
    version = ipaddress.IPv4Address if found.network.version == 4 else ipaddress.IPv6Address
    body: Body = {"range": str(found.network)}
    body |= {"range_start": str(version(found.first))} if one.get("rangeStart") else {}
    body |= {"range_end": str(version(found.last))} if one.get("rangeEnd") else {}
    (gateway,) = found.excluded
    if found.first <= int(gateway.network_address) <= found.last:
        body["exclude"] = [str(gateway)]
    return body, str(gateway.network_address)
