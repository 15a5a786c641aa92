"""Rules about the types of an attachment's fields: Go's JSON decoder refuses a value of another type (pure).

A null is no value, in Go. Fields with rules of their own, such as ``master``, ``mode`` and ``range``, are not here.

Sources:
    containernetworking/cni v1.3.0, pkg/types/types.go and libcni/conf.go; containernetworking/plugins v1.9.1, the
    ``NetConf`` of each plugin and the ``IPAMConfig`` of each IPAM plugin; whereabouts v0.9.4, pkg/types/types.go
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from torchnet.k8s.attachments import address_range
from torchnet.k8s.attachments.cni_config import Body, CniConfig, Path
from torchnet.k8s.attachments.finding import Finding, Set, refused
from torchnet.text import printable

_STAYS = "and the pod stays in ContainerCreating"


class Kind(NamedTuple):
    """A type of Go: what a value must be, in words, and whether one is."""

    valid: str
    accepts: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(one is None or isinstance(one, str) for one in value)


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return accepts


def _is_ip(value: Any) -> bool:
    try:
        return value == "" or bool(address_range.address(value))
    except ValueError:
        return False


BOOLEAN = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("text", _is_text)
TEXTS = Kind('a list of texts, such as ["a", "b"]', _is_list_of_text)
NUMBER = Kind("a whole number", _whole(-(1 << 63), (1 << 63) - 1))
UNSIGNED = Kind("a whole number from 0", _whole(0, (1 << 64) - 1))
UNSIGNED_32 = Kind(f"a whole number from 0 to {(1 << 32) - 1}", _whole(0, (1 << 32) - 1))
VLAN = Kind("a number from 0 to 4094", _whole(0, 4094))
BIT = Kind("a number from 0 to 31", _whole(0, 31))
IP = Kind("an IP address without a prefix length, such as 10.9.0.1 or fcbb:0:800:ffff::1", _is_ip)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
OBJECTS = Kind(
    "a list of objects",
    lambda value: isinstance(value, list) and all(one is None or isinstance(one, dict) for one in value),
)

Fields = Mapping[str, Kind]
_OF_LISTS = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")  # read with case, and also as text
_DNS: Fields = {"nameservers": TEXTS, "domain": TEXT, "search": TEXTS, "options": TEXTS}
_PLUGINS: Mapping[str, Fields] = {
    "ipvlan": {"linkInContainer": BOOLEAN},
    "macvlan": {"linkInContainer": BOOLEAN, "mac": TEXT, "bcqueuelen": UNSIGNED_32},
    "bridge": {
        **dict.fromkeys(("isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "hairpinMode"), BOOLEAN),
        **dict.fromkeys(("promiscMode", "preserveDefaultVlan", "macspoofchk", "enabledad"), BOOLEAN),
        **dict.fromkeys(("disableContainerInterface", "portIsolation"), BOOLEAN),
        "vlanTrunk": OBJECTS,
    },
    "vlan": {"master": TEXT, "vlanId": VLAN, "mtu": NUMBER, "linkInContainer": BOOLEAN},
    "ptp": {"ipMasq": BOOLEAN, "mtu": NUMBER},
    "host-device": dict.fromkeys(("device", "hwaddr", "kernelpath", "pciBusID"), TEXT),
    "tap": {"multiQueue": BOOLEAN, "mtu": NUMBER, "mac": TEXT, "owner": UNSIGNED_32, "group": UNSIGNED_32},
    "tuning": {"mac": TEXT, "promisc": BOOLEAN, "mtu": NUMBER, "allmulti": BOOLEAN, "dataDir": TEXT},
    "bandwidth": dict.fromkeys(("ingressRate", "ingressBurst", "egressRate", "egressBurst"), UNSIGNED),
    "portmap": {"snat": BOOLEAN, "markMasqBit": BIT, "conditionsV4": TEXTS, "conditionsV6": TEXTS},
    "firewall": dict.fromkeys(("backend", "iptablesAdminChainName", "firewalldZone", "ingressPolicy"), TEXT),
    "vrf": {"vrfname": TEXT, "table": UNSIGNED_32},
}
_IPAM: Mapping[str, Fields] = {
    "whereabouts": {
        **dict.fromkeys(("log_file", "log_level", "network_name", "configuration_path"), TEXT),
        **dict.fromkeys(("reconciler_cron_expression", "name"), TEXT),
        **dict.fromkeys(("leader_lease_duration", "leader_renew_deadline", "leader_retry_period"), NUMBER),
        "sleep_for_race": NUMBER,
        "enable_overlapping_ranges": BOOLEAN,
        "kubernetes": OBJECT,
        "addresses": OBJECTS,
    },
    "host-local": {"dataDir": TEXT, "resolvConf": TEXT},
    "static": {},
}
_ROUTE: Fields = {"gw": IP}


def check_types(config: CniConfig) -> Iterator[Finding]:
    """Yield the fields with values of another type than the plugins read."""
    if config.is_list:
        for key in _OF_LISTS:
            value = config.body.get(key, False)
            if not BOOLEAN.accepts(value) and str(value).lower() not in ("true", "false"):
                yield _wrong((key,), value, BOOLEAN, "libcni")
    for plugin in config.plugins:
        reader = printable(plugin.type, 60) or "the plugin"
        yield from _check(plugin.body, plugin.path, _PLUGINS.get(plugin.type, {}), reader)
        for key, value in _of(plugin.body, "capabilities"):
            yield from _capabilities(value, (*plugin.path, key))
        for key, value in _of(plugin.body, "dns"):
            yield from _dns(value, (*plugin.path, key), "libcni")
    yield from _check_ipam(config)


def _check_ipam(config: CniConfig) -> Iterator[Finding]:
    """The IPAM plugin gets the whole configuration of the main plugin, and reads its own part."""
    if config.ipam_type not in _IPAM:
        return
    ipam, path, reader = config.ipam, (*config.main.path, "ipam"), config.ipam_type
    yield from _check(ipam, path, _IPAM[reader], reader)
    for key, value in _of(ipam, "routes"):
        yield from _routes(value, (*path, key), reader)
    if reader != "host-local":
        for key, value in _of(ipam, "dns"):
            yield from _dns(value, (*path, key), reader)
        for key, value in _of(ipam, "addresses"):
            for index, one in enumerate(value if isinstance(value, list) else ()):
                if isinstance(one, dict):
                    yield from _check(one, (*path, key, index), {"gateway": IP}, reader)


def _check(body: Body, path: Path, fields: Fields, reader: str) -> Iterator[Finding]:
    by_name = {name.lower(): kind for name, kind in fields.items()}
    for key, value in body.items():
        kind = by_name.get(key.lower())  # Go reads the names of fields without case
        if kind is not None and value is not None and not kind.accepts(value):
            yield _wrong((*path, key), value, kind, reader)


def _of(body: Body, name: str) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in body.items() if key.lower() == name and value is not None)


def _wrong(path: Path, value: Any, kind: Kind, reader: str) -> Finding:
    changes = [Set(path, plain)] if (plain := _plain(value)) is not None and kind.accepts(plain) else []
    text = f"{_shown(value)} is not {kind.valid}"
    fix = "" if changes else f"{kind.valid}; or remove it"
    return refused(path, text, f"{reader} refuses it, {_STAYS}", *changes, fix=fix)


def _plain(value: Any) -> bool | int | None:
    """Return what a text means that is a JSON value in quotes; None for others."""
    if value in ("true", "false"):
        return bool(value == "true")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return None


def _capabilities(value: Any, path: Path) -> Iterator[Finding]:
    if not isinstance(value, dict):
        kind = Kind('an object of booleans, such as {"ips": true}', lambda _: False)
        yield _wrong(path, value, kind, "libcni")
        return
    for name, enabled in value.items():
        if enabled is not None and not BOOLEAN.accepts(enabled):
            yield _wrong((*path, name), enabled, BOOLEAN, "libcni")


def _dns(value: Any, path: Path, reader: str) -> Iterator[Finding]:
    if isinstance(value, dict):
        yield from _check(value, path, _DNS, reader)
    else:
        kind = Kind('an object, such as {"nameservers": ["ADDRESS"]}', lambda _: False)
        yield _wrong(path, value, kind, reader)


def _routes(value: Any, path: Path, reader: str) -> Iterator[Finding]:
    if not OBJECTS.accepts(value):
        kind = Kind('a list of objects, such as [{"dst": "CIDR"}]', OBJECTS.accepts)
        yield _wrong(path, value, kind, reader)
        return
    for index, one in enumerate(value):
        if not isinstance(one, dict):
            continue
        yield from _check(one, (*path, index), _ROUTE, reader)
        for key, network in one.items():
            if key.lower() != "dst":
                continue
            try:
                address_range.interface(network)
            except ValueError as error:
                where, text = (*path, index, key), f"{_shown(network)} {error}"
                yield refused(where, text, f"{reader} refuses it, {_STAYS}", fix='"dst": "CIDR"')


def _shown(value: object) -> str:
    return f'"{printable(value, 60)}"' if isinstance(value, str) else printable(repr(value), 60)
