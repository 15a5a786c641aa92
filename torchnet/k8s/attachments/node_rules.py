"""Rules about an attachment whose configuration differs between nodes (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from torchnet.k8s.addons.ip_ranges import Network, within
from torchnet.k8s.attachments.address_range import AddressRange, address_ranges, interface
from torchnet.k8s.attachments.cni_config import CniConfig
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.finding import Finding, broken
from torchnet.k8s.attachments.plugin_rules import ROUTED
from torchnet.text import printable


def check_nodes(configs: Mapping[str, CniConfig]) -> Iterator[Finding]:
    """Yield what is wrong between the configurations of an attachment, by node."""
    yield from _overlaps(configs)
    yield from _routes(configs)


def check_files(definitions: Sequence[Definition]) -> Iterator[tuple[Definition, Finding]]:
    """Yield what is wrong between files of one name, which are those of several nodes, each with the last of them."""
    by_name: dict[str, dict[str, Definition]] = defaultdict(dict)
    for one in definitions:
        if one.file_name:
            by_name[one.file_name][one.name] = one
    for files in by_name.values():
        # Whereabouts allocates for all nodes.
        parsed = [(path, one.parsed) for path, one in files.items()]
        configs = {path: one for path, one in parsed if one is not None and one.ipam_type == "host-local"}
        for finding in check_nodes(configs):
            yield files[next(reversed(configs))], finding


def _overlaps(configs: Mapping[str, CniConfig]) -> Iterator[Finding]:
    ranges = [(one, node) for node, config in configs.items() for one in address_ranges(config)]
    ranges.sort(key=lambda item: (item[0].network.version, item[0].first))
    for (one, node), (other, second) in pairwise(ranges):
        if node != second and one.overlaps(other):
            yield broken(
                ("ipam",),
                f"the ranges of {printable(node, 80)} and {printable(second, 80)} overlap",
                "two nodes allocate the same address",
                fix="torchnet manifests backend-network --slice NODE=CIDR ... with ranges that do not overlap",
            )
            return


def _routes(configs: Mapping[str, CniConfig]) -> Iterator[Finding]:
    """Compare the first node with all others: all files come from one template."""
    first = next(iter(configs), None)
    if first is None:
        return
    for node in configs:
        for here, there in ((first, node), (node, first)):
            for target in address_ranges(configs[there]):
                if here != there and not _reaches(configs[here], target):
                    routes = "routes" if configs[here].mode in ROUTED else "subnet"
                    yield broken(
                        ("ipam", routes),
                        f"no route on {printable(here, 80)} to the range of {printable(there, 80)}, {target}",
                        "packets to its pods leave by the default route, which is the frontend's",
                        fix='"routes": [{"dst": "CIDR of all nodes\' ranges"}] in ipam, or '
                        "torchnet manifests backend-network --slice NODE=CIDR ...",
                    )
                    return


def _reaches(config: CniConfig, target: AddressRange) -> bool:
    routes = config.ipam.get("routes")
    networks: list[Network] = [one.network for one in address_ranges(config)]
    for one in routes if isinstance(routes, list) else []:
        try:
            networks.append(interface(one.get("dst") if isinstance(one, dict) else None).network)
        except ValueError:
            continue
    return any(within(target.network, one) or _holds(one, target) for one in networks)


def _holds(network: Network, target: AddressRange) -> bool:
    low, high = int(network.network_address), int(network.broadcast_address)
    return network.version == target.network.version and low <= target.first and target.last <= high
