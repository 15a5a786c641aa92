"""Rules about the plugins of one attachment, apart from their IPAM (pure).

Sources:
    multus-cni v4.3.0, pkg/types/conf.go and pkg/multus/multus.go; libcni v1.3.0, libcni/conf.go;
    containernetworking/plugins v1.9.1, plugins/main and plugins/meta
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torchnet.k8s.attachments.address_range import address_ranges
from torchnet.k8s.attachments.cni_config import Body, CniConfig, Plugin, text_of
from torchnet.k8s.attachments.finding import AddPlugin, Finding, Remove, Set, broken, refused, warning
from torchnet.text import printable

CNI_VERSION = "1.0.0"
# The results of older ones do not name interfaces, so that Multus writes no network-status entry.
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_NEWEST = "1.1.0"
_OLDER = ("0.1.0", "0.2.0")
MODES = {"ipvlan": ("l2", "l3", "l3s"), "macvlan": ("bridge", "private", "vepa", "passthru")}
ROUTED = ("l3", "l3s")
# Of containernetworking/plugins and k8snetworkplumbingwg: what they accept is checked here, or left to them.
_INTERFACE_PLUGINS = frozenset(
    [
        "bridge",
        "dummy",
        "host-device",
        "ib-sriov",
        "ipoib",
        "ipvlan",
        "macvlan",
        "ovs",
        "ptp",
        "sriov",
        "tap",
        "vlan",
    ]
)
_CHAINED_PLUGINS = frozenset(["bandwidth", "firewall", "portmap", "rdma", "sbr", "tuning", "vrf"])
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")  # containernetworking/cni pkg/utils: cniReg
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_ALTERNATIVE_NAME = re.compile(r"[^\s/:]{16,127}")  # the plugins look longer names up by IFLA_ALT_IFNAME
# In a pod's network namespace, these files are missing or read-only (Linux 6.18: net/core/sysctl_net_core.c).
_HOST_SETTING = re.compile(
    r"net\.core\.([rw]mem_(max|default)|netdev_\w+|busy_(poll|read)|dev_weight\w*|default_qdisc)"
    r"|net\.ipv4\.(tcp|udp)_mem"
)
_RATES = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
_STAYS = "and the pod stays in ContainerCreating"
_IPV6_MTU = 1280  # RFC 8200, section 5
_IPV6_SETTINGS = "net.ipv6.conf.IFNAME."
_LAYER_2 = ("ipvlan", "macvlan", "bridge")
_RENDER = "torchnet manifests backend-network"


def check_plugins(config: CniConfig, *, in_file: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with the plugins of a configuration.

    Args:
        in_file: The configuration is a file on a node.
    """
    yield from _version(config)
    yield from _name(config, in_file=in_file)
    if not config.is_list and not text_of(config.body, "type"):
        yield refused(
            () if "plugins" not in config.body else ("plugins",),
            "neither a plugin with a type nor a list of plugins",
            "Multus cannot create the interface, and the pod stays in ContainerCreating",
            fix=_RENDER,
        )
        return
    if config.is_list and not (config.body["plugins"] and isinstance(config.body["plugins"][0], dict)):
        yield refused(
            ("plugins",),
            "the first plugin is missing",
            "no plugin creates the interface, and the pod stays in ContainerCreating",
            fix=_RENDER,
        )
        return
    if not config.is_list and "plugins" in config.body:
        yield warning(
            ("plugins",),
            "a list of plugins beside a type",
            "Multus takes this for a single plugin, and ignores the list",
            Remove(("plugins",)),
        )
    yield from _types(config)
    main = config.main
    if main.type in MODES:
        yield from _master(main)
        yield from _mode(main)
    if main.type == "bridge":
        yield from _bridge(main)
    yield from _mtu(config)
    yield from _bandwidth(config)
    yield from _settings(config)
    yield from _advertisements(config)


def _version(config: CniConfig) -> Iterator[Finding]:
    consequence = "a pod gets its interface, but Multus writes no network-status entry, which torchnet needs"
    change = Set(("cniVersion",), CNI_VERSION)
    found = config.body.get("cniVersion")
    listed = config.body.get("cniVersions")
    # libcni reads these of lists only.
    if config.is_list and isinstance(listed, list) and any(one in VERSIONS for one in listed):
        return
    if found is None or found == "":
        yield refused(("cniVersion",), "missing", consequence, change)
    elif found in _OLDER:
        yield refused(("cniVersion",), f'"{found}" is older than {VERSIONS[0]}', consequence, change)
    elif not isinstance(found, str) or found not in VERSIONS:
        yield refused(
            ("cniVersion",),
            f"{_shown(found)} is not a version; valid: {', '.join(VERSIONS)}",
            "the plugins refuse it, and the pod stays in ContainerCreating",
            change,
        )
    elif found == _NEWEST:
        yield warning(
            ("cniVersion",),
            f'"{found}" is newer than what older plugins know',
            "the CNI plugins 1.4, for example, refuse it",
            change,
        )


def _name(config: CniConfig, *, in_file: bool) -> Iterator[Finding]:
    found = config.body.get("name")
    if found is None or found == "":
        if in_file:
            yield refused(
                ("name",), "missing", "Multus finds the file of an attachment without spec by this name"
            )
    elif not isinstance(found, str) or not _NAME.fullmatch(found):
        yield refused(
            ("name",),
            f"{_shown(found)} is not a name of letters, digits, '.', '_' and '-'",
            f"libcni refuses it, {_STAYS}",
            # Multus finds a file by its name, which must not be missing.
            *([] if in_file else [Remove(("name",))]),
        )


def _types(config: CniConfig) -> Iterator[Finding]:
    for index, plugin in enumerate(config.plugins):
        path = (*plugin.path, "type")
        if not plugin.type:
            yield refused(path, "missing", "libcni refuses the list, and the pod stays in ContainerCreating")
        elif plugin.type not in _INTERFACE_PLUGINS | _CHAINED_PLUGINS:
            yield warning(
                path,
                f"{_shown(plugin.type)} is a plugin that these rules do not know",
                "its other fields are not checked; its binary must be in /opt/cni/bin of each node",
            )
        elif index == 0 and plugin.type not in _INTERFACE_PLUGINS:
            yield refused(
                path,
                f"{plugin.type} creates no interface",
                "it refuses to be the first plugin, and the pod stays in ContainerCreating",
                fix=_RENDER,
            )


def _master(main: Plugin) -> Iterator[Finding]:
    found = main.body.get("master")
    path = (*main.path, "master")
    if found is None or found == "":
        yield broken(
            path,
            "missing",
            "the plugin takes the interface of the node's default route, which is the frontend's",
            fix='"master": the name of the backend interface on the nodes; kubectl debug node/NODE -it '
            "--image=busybox -- ip link",
        )
    elif isinstance(found, str) and _ALTERNATIVE_NAME.fullmatch(found):
        yield warning(
            path,
            f"{_shown(found)} has more than 15 characters",
            "it must be an alternative name (altname) of an interface on each node",
        )
    elif not isinstance(found, str) or not _INTERFACE.fullmatch(found):
        yield refused(
            path, f"{_shown(found)} is not an interface name", f"no node has such an interface, {_STAYS}"
        )


def _mode(main: Plugin) -> Iterator[Finding]:
    found, modes = main.body.get("mode"), MODES[main.type]
    path = (*main.path, "mode")
    if found is not None and found != "" and found not in modes:
        yield refused(
            path,
            f"{_shown(found)} is not a mode of {main.type}; valid: {', '.join(modes)}",
            "the plugin refuses it, and the pod stays in ContainerCreating",
            Set(path, modes[0]),
        )
    elif found == "passthru":
        yield broken(
            path,
            "passthru gives the whole interface to one pod",
            "a second pod on the same node gets none",
            Set(path, "bridge"),
        )


def _bridge(main: Plugin) -> Iterator[Finding]:
    found = main.body.get("bridge")
    path = (*main.path, "bridge")
    if found is None:
        yield warning(
            path,
            "missing",
            "the plugin uses cni0, which may belong to the frontend; a bridge that it creates has no network card, "
            "so that pods reach only their own node",
            fix='"bridge": a bridge of each node whose port is the backend interface',
        )
    elif not isinstance(found, str) or not _INTERFACE.fullmatch(found):
        yield refused(
            path,
            f"{_shown(found)} is not an interface name of up to 15 characters",
            "the plugin refuses it, and the pod stays in ContainerCreating",
        )
    vlan = main.body.get("vlan")
    if vlan is not None and (not _is_whole(vlan) or not 0 <= vlan <= 4094):
        yield refused(
            (*main.path, "vlan"),
            f"{_shown(vlan)} is not a VLAN; valid: 0 to 4094",
            "the plugin refuses it, and the pod stays in ContainerCreating",
        )


def _mtu(config: CniConfig) -> Iterator[Finding]:
    main = config.main
    found = main.body.get("mtu")
    path = (*main.path, "mtu")
    if main.type not in _LAYER_2 or found is None:
        return
    if _is_whole(found) and found < 0 and main.type != "macvlan":
        yield warning(path, f"{found} is not a number of bytes", "it is ignored", Remove(path))
    elif not _is_whole(found) or found < 0:
        yield refused(
            path,
            f"{_shown(found)} is not a number of bytes",
            "the plugin refuses it, and the pod stays in ContainerCreating",
            Remove(path),
        )
    elif 0 < found < _IPV6_MTU and (_has_ipv6_range(config) or _ipv6_settings(config)):
        yield refused(
            path,
            f"{found} is below {_IPV6_MTU}",
            "the kernel has no IPv6 on such an interface, and the pod stays in ContainerCreating",
            Remove(path),
        )


def _bandwidth(config: CniConfig) -> Iterator[Finding]:
    if config.main.type not in MODES:
        return
    for plugin in config.plugins:
        if plugin.type != "bandwidth":
            continue
        text = f"the bandwidth plugin needs a veth interface, and {config.main.type} has none"
        if limits(plugin.body):
            yield refused(
                plugin.path, text, "it refuses the pod, which stays in ContainerCreating", Remove(plugin.path)
            )
        elif plugin.has_capability("bandwidth"):
            yield warning(
                plugin.path,
                text,
                "it refuses each pod whose annotation asks for bandwidth",
                Remove(plugin.path),
            )


def limits(body: Body) -> bool:
    """Whether the bandwidth plugin has something to do: without a rate or burst, it touches nothing."""
    return any(body.get(key) not in (None, 0) for key in _RATES)


def _settings(config: CniConfig) -> Iterator[Finding]:
    """The tuning plugin writes to /proc/sys of the pod's network namespace, and fails at the first error."""
    for plugin in config.plugins:
        found = plugin.body.get("sysctl") if plugin.type == "tuning" else None
        path = (*plugin.path, "sysctl")
        if found is not None and not isinstance(found, dict):
            yield refused(path, "not an object", f"the plugin refuses it, {_STAYS}", Remove(path))
            continue
        for key, value in (found or {}).items():
            name = key.replace("/", ".")
            if not name.startswith("net."):
                text, consequence = "no setting of the network", f"the plugin refuses it, {_STAYS}"
            elif _HOST_SETTING.fullmatch(name):
                text = "a setting of the whole node"
                consequence = f"the plugin cannot set it in a pod's network namespace, {_STAYS}"
            elif not isinstance(value, str):
                change = [Set((*path, key), str(value))] if _is_whole(value) else []
                text = f"{_shown(value)} is not text"
                yield refused((*path, key), text, f"the plugin refuses it, {_STAYS}", *change)
                continue
            else:
                continue
            yield refused((*path, key), text, consequence, Remove((*path, key)), fix="sysctl -w on the nodes")


def _advertisements(config: CniConfig) -> Iterator[Finding]:
    """Router advertisements reach interfaces of layer 2 only."""
    if not has_ipv6(config) or not lets_advertisements_in(config):
        return
    settings = {f"{_IPV6_SETTINGS}accept_ra": "0", f"{_IPV6_SETTINGS}ndisc_notify": "1"}
    yield warning(
        ("plugins",),
        "nothing turns off router advertisements",
        "any host on the backend network can add addresses and a default route to the pods (CVE-2020-10749)",
        AddPlugin({"type": "tuning", "sysctl": settings}),
    )


def lets_advertisements_in(config: CniConfig) -> bool:
    """Whether the interface is of layer 2, and nothing turns off router advertisements."""
    is_layer_2 = config.main.type in _LAYER_2 and config.mode not in ROUTED
    return is_layer_2 and f"{_IPV6_SETTINGS}accept_ra" not in _ipv6_settings(config)


def has_ipv6(config: CniConfig) -> bool:
    """Whether the attachment has IPv6 addresses: of a range, or those of the IPAM plugin static."""
    found = config.ipam.get("addresses")
    given = (
        [text_of(one, "address") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    )
    return _has_ipv6_range(config) or any(":" in one for one in given)


def _has_ipv6_range(config: CniConfig) -> bool:
    return any(one.network.version == 6 for one in address_ranges(config))


def _ipv6_settings(config: CniConfig) -> set[str]:
    """Return the kernel's IPv6 settings that tuning plugins set on the interface."""
    sysctls = [plugin.body.get("sysctl") for plugin in config.plugins if plugin.type == "tuning"]
    keys = {str(key).replace("/", ".") for one in sysctls if isinstance(one, dict) for key in one}
    return {key for key in keys if key.startswith(_IPV6_SETTINGS)}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    return f'"{printable(value, 60)}"' if isinstance(value, str) else printable(repr(value), 60)
