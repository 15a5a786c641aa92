"""Rules about the annotation ``k8s.v1.cni.cncf.io/networks`` of a pod (pure).

Sources:
    multus-cni v4.3.0, pkg/k8sclient/k8sclient.go (parsePodNetworkAnnotation), which checks little of the JSON form, and
    pkg/multus/multus.go (validateIfName, DelegateAdd)
    containernetworking/plugins v1.9.1, plugins/ipam/host-local
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torchnet.constants import NETWORKS_ANNOTATION
from torchnet.k8s.attachments.address_range import AddressRange, address, address_ranges, interface
from torchnet.k8s.attachments.cni_config import DEPTH_LIMIT, SIZE_LIMIT, Body, CniConfig, text_of
from torchnet.k8s.attachments.definition import Definition
from torchnet.k8s.attachments.finding import Finding, Remove, Set, broken, refused, warning
from torchnet.k8s.attachments.plugin_rules import MODES, has_ipv6, lets_advertisements_in, limits
from torchnet.text import loads, printable

_JSON = re.compile(r'[\[{"]')
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
# As Go's net.ParseMAC: of 6 bytes, for Infiniband also of 8 or 20.
_MAC = re.compile(
    r"[0-9a-fA-F]{2}([:-])([0-9a-fA-F]{2}\1){4}[0-9a-fA-F]{2}|([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}"
)
_GUID = re.compile(
    _MAC.pattern + r"|[0-9a-fA-F]{2}([:-])([0-9a-fA-F]{2}\4){6}(([0-9a-fA-F]{2}\4){12})?[0-9a-fA-F]{2}"
    r"|([0-9a-fA-F]{4}\.){3}(([0-9a-fA-F]{4}\.){6})?[0-9a-fA-F]{4}"
)
_OWN_INTERFACES = ("eth0", "lo")  # of each pod
_STAYS = "and the pod stays in ContainerCreating"
_FORM = '[{"name": "backend-network", "interface": "net1"}]'
_IPV6_LENGTH = 64  # of a subnet, RFC 4291 section 2.5.1


@dataclass(frozen=True)
class Request:
    """The annotation of a pod, or of the pods of a workload.

    Attributes:
        where: The object.
        namespace: "" if unknown.
        text: The annotation.
    """

    where: str
    namespace: str
    text: str


Lookup = Callable[[str, str], Definition | Literal[False] | None]
"""Returns the attachment NAMESPACE, NAME; None if unknown, False if there is none."""


def request_body(text: str) -> Any:
    """Return the annotation's JSON, or the short form as JSON would have it.

    Raises:
        ValueError: It is neither; the text completes a sentence.
    """
    if _JSON.search(text):
        return loads(text, max_size=SIZE_LIMIT, max_depth=DEPTH_LIMIT)
    entries: list[Body] = []
    for item in text.split(","):
        path, _, interface_name = item.strip().partition("@")
        namespace, slash, name = path.rpartition("/")
        entry: Body = {"name": name.strip()}
        entry |= {"namespace": namespace.strip()} if slash else {}
        entries.append(entry | ({"interface": interface_name.strip()} if interface_name else {}))
    return entries


def check_request(request: Request, lookup: Lookup) -> Iterator[Finding]:
    """Yield what is wrong with a request; the paths are in its JSON."""
    try:
        body = request_body(request.text)
    except ValueError as error:
        text = f"{NETWORKS_ANNOTATION} {error}"
        yield refused((), text, f"Multus refuses it, {_STAYS}", fix=_FORM)
        return
    if not isinstance(body, list) or not all(isinstance(one, dict) for one in body):
        text = f"{NETWORKS_ANNOTATION} is not a list of objects"
        change = [Set((), [body])] if isinstance(body, dict) else []
        yield refused((), text, f"Multus refuses it, {_STAYS}", *change, fix="" if change else _FORM)
        return
    names = [text_of(one, "interface") for one in body]
    repeated = {name for name, count in Counter(names).items() if name and count > 1}
    for index, entry in enumerate(body):
        yield from _names(entry, index, _SUBDOMAIN if _JSON.search(request.text) else _LABEL)
        if names[index] in repeated:
            yield refused(
                (index, "interface"),
                f'"{printable(names[index], 40)}" occurs twice',
                f"the second interface cannot be created, {_STAYS}",
            )
        yield from _attachment(entry, index, request.namespace, lookup)


def _names(entry: Body, index: int, valid: re.Pattern[str]) -> Iterator[Finding]:
    for key, pattern in (("name", valid), ("namespace", _LABEL)):
        found = entry.get(key)
        if found is None and key == "namespace":
            continue
        if not isinstance(found, str) or not pattern.fullmatch(found):
            yield refused(
                (index, key),
                "missing" if found in (None, "") else f'"{printable(str(found), 80)}" is not a name',
                f"Multus finds no attachment, {_STAYS}",
            )
    found = entry.get("interface")
    if found is None or found == "":
        yield warning(
            (index, "interface"),
            "missing",
            "the interface is net1, net2 and so on by its place among all networks, and the cluster's default networks "
            "shift it",
            Set((index, "interface"), f"net{index + 1}"),
        )
    elif not isinstance(found, str) or not _INTERFACE.fullmatch(found):
        yield refused(
            (index, "interface"),
            f'"{printable(str(found), 80)}" is not an interface name of up to 15 characters',
            f"the plugin refuses it, {_STAYS}",
            Set((index, "interface"), f"net{index + 1}"),
        )
    elif found in _OWN_INTERFACES:
        yield refused(
            (index, "interface"),
            f"{found} exists in each pod",
            f"Multus refuses it, {_STAYS}",
            Set((index, "interface"), f"net{index + 1}"),
        )
    for key, pattern in (("mac", _MAC), ("infiniband-guid", _GUID)):
        found = entry.get(key)
        if found not in (None, "") and not (isinstance(found, str) and pattern.fullmatch(found)):
            yield refused((index, key), "not a MAC address", f"Multus refuses it, {_STAYS}")


def _attachment(entry: Body, index: int, namespace: str, lookup: Lookup) -> Iterator[Finding]:
    where, name = text_of(entry, "namespace") or namespace, text_of(entry, "name")
    found = lookup(where, name) if name else None
    if found is False:
        yield refused(
            (index, "name"),
            f"no attachment {printable(f'{where}/{name}', 120)}",
            f"Multus reports NoNetworkFound, {_STAYS}",
            fix=f"kubectl get network-attachment-definitions -n {printable(where, 63)}",
        )
    definition = found or None
    config = definition.parsed if definition is not None else None
    yield from _bandwidth(entry, index, config)
    ips = entry.get("ips")
    if ips is None:
        if config is not None and config.ipam_type == "static" and not config.ipam.get("addresses"):
            yield refused(
                (index, "ips"),
                "missing",
                f"the IPAM plugin static gives no address without it, {_STAYS}",
                fix='"ips": ["ADDRESS/LENGTH"]; torchnet launch --static-ips',
            )
        return
    if not isinstance(ips, list) or not all(isinstance(one, str) for one in ips):
        yield refused((index, "ips"), "not a list of addresses", f"Multus refuses it, {_STAYS}")
        return
    yield from _lengths(ips, index, config)
    if definition is not None and config is not None and ips:
        yield from _capability(index, config)
        if config.ipam_type == "host-local":
            yield from _host_local(ips, index, () if definition.node_configs else address_ranges(config))
        if any(":" in one for one in ips) and not has_ipv6(config) and lets_advertisements_in(config):
            yield warning(
                (index, "ips"),
                "IPv6, and nothing in the attachment turns off router advertisements",
                "any host on the backend network can add addresses and a default route to the pods (CVE-2020-10749)",
                fix='in the attachment: the plugin tuning with "net.ipv6.conf.IFNAME.accept_ra": "0"',
            )


def _bandwidth(entry: Body, index: int, config: CniConfig | None) -> Iterator[Finding]:
    found = entry.get("bandwidth")
    if config is None or config.main.type not in MODES or not isinstance(found, dict) or not limits(found):
        return
    if any(one.type == "bandwidth" and one.has_capability("bandwidth") for one in config.plugins):
        yield refused(
            (index, "bandwidth"),
            f"the bandwidth plugin needs a veth interface, and {config.main.type} has none",
            f"it refuses the pod, {_STAYS}",
            Remove((index, "bandwidth")),
        )


def _host_local(ips: list[str], index: int, ranges: Sequence[AddressRange]) -> Iterator[Finding]:
    """Multus also passes the addresses as one text in CNI_ARGS, and host-local reads one address there."""
    path = (index, "ips")
    if len(ips) > 1:
        yield refused(path, "several addresses", f"host-local reads one only, and refuses them, {_STAYS}")
        return
    try:
        found = interface(ips[0]).ip if "/" in ips[0] else address(ips[0])
    except ValueError:
        return  # refused
    if ranges and not any(found in one for one in ranges):
        listing = printable(", ".join(map(str, ranges)), 200)
        yield refused(
            path,
            f"{found} is no address that host-local gives from {listing}",
            f"host-local refuses it, {_STAYS}",
        )


def _lengths(ips: list[str], index: int, config: CniConfig | None) -> Iterator[Finding]:
    for position, text in enumerate(ips):
        path = (index, "ips", position)
        try:
            interface(text, sloppy=True)
            continue
        except ValueError:
            pass
        try:
            bare = address(text)
        except ValueError as error:
            yield refused(path, f'"{printable(text, 80)}" {error}', f"Multus refuses it, {_STAYS}")
            continue
        if config is not None and config.ipam_type == "host-local":
            continue  # takes either form
        ranges = address_ranges(config) if config is not None else ()
        lengths = [one.network.prefixlen for one in ranges if bare in one.network]
        length = next(iter(lengths), _IPV6_LENGTH if bare.version == 6 else None)
        yield refused(
            path,
            f'"{printable(text, 80)}" has no prefix length',
            f"static and Whereabouts refuse it, {_STAYS}",
            *([] if length is None else [Set(path, f"{bare}/{length}")]),
            fix="" if length is not None else '"ADDRESS/LENGTH"',
        )


def _capability(index: int, config: CniConfig) -> Iterator[Finding]:
    path = (index, "ips")
    if config.ipam_type == "whereabouts":
        yield broken(
            path,
            "Whereabouts allocates an address all the same",
            "the interface has two addresses, and Whereabouts may give the requested one to another pod",
            fix="torchnet manifests backend-network --ipam static",
        )
    elif not config.has_requested_addresses:
        yield broken(
            path,
            'the attachment has no "capabilities": {"ips": true}',
            "the addresses are not part of the plugin's runtime configuration; Multus 4 still has CNI_ARGS, which it "
            "calls deprecated, and without it the request is silently ignored",
            fix='in the attachment, beside "type": "capabilities": {"ips": true}',
        )
