"""The configuration of an attachment as Multus and libcni read it: one plugin, or a list of plugins (pure).

Sources:
    CNI specification 1.1.0, section 1; multus-cni v4.3.0, pkg/types/conf.go (LoadDelegateNetConf)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torchnet.text import loads

Body = dict[str, Any]
Path = tuple[str | int, ...]
_CONSTANT = re.compile(r'"(?:\\.|[^"\\])*"|(NaN|-?Infinity)', re.DOTALL)  # and texts, which may contain one
SIZE_LIMIT, DEPTH_LIMIT = 1 << 20, 60
_PLUGIN_FIELDS = (
    *(
        "type",
        "master",
        "mode",
        "mtu",
        "bridge",
        "vlan",
        "ipam",
        "capabilities",
        "linkInContainer",
        "deviceID",
    ),
    *("sysctl", "ingressRate", "ingressBurst", "egressRate", "egressBurst"),
)
_IPAM_FIELDS = (
    *(
        "type",
        "range",
        "range_start",
        "range_end",
        "exclude",
        "ipRanges",
        "gateway",
        "network_name",
        "routes",
    ),
    *(
        "node_slice_size",
        "enable_overlapping_ranges",
        "addresses",
        "ranges",
        "subnet",
        "rangeStart",
        "rangeEnd",
    ),
    "dataDir",
)


class ConfigError(ValueError):
    """Why a configuration cannot be read. The text completes a sentence that begins with the configuration's name."""


@dataclass(frozen=True)
class Plugin:
    """One plugin of a configuration, and its place in it."""

    path: Path
    body: Body

    @property
    def type(self) -> str:
        """The plugin's type; "" if it has none, or one that is not text."""
        return text_of(self.body, "type")

    @property
    def ipam(self) -> Body:
        """The configuration of the IPAM plugin; {} without one."""
        found = self.body.get("ipam")
        return found if isinstance(found, dict) else {}

    def has_capability(self, name: str) -> bool:
        """Whether the plugin gets this part of a pod's annotation."""
        found = self.body.get("capabilities")
        return isinstance(found, dict) and found.get(name) is True


@dataclass(frozen=True)
class CniConfig:
    """The configuration of an attachment, which need not be valid."""

    body: Body

    @property
    def is_list(self) -> bool:
        """Whether it is a list of plugins: Multus takes it for one plugin if it has a type."""
        return not text_of(self.body, "type") and isinstance(self.body.get("plugins"), list)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plugins that are objects, in the order in which they are called."""
        return tuple(self._plugins())

    def _plugins(self) -> Iterator[Plugin]:
        if not self.is_list:
            yield Plugin((), self.body)
            return
        for index, one in enumerate(self.body["plugins"]):
            if isinstance(one, dict):
                yield Plugin(("plugins", index), one)

    @property
    def main(self) -> Plugin:
        """The plugin that creates the interface."""
        return next(iter(self.plugins), Plugin((), self.body))

    @property
    def ipam(self) -> Body:
        """The configuration of the main plugin's IPAM plugin; {} without one."""
        return self.main.ipam

    @property
    def ipam_type(self) -> str:
        """The type of the IPAM plugin; "" without one."""
        return text_of(self.ipam, "type")

    @property
    def master(self) -> str:
        """The node's interface under an ipvlan or macvlan interface; "" for other types and without one."""
        inside = self.main.body.get("linkInContainer") is True
        return (
            "" if inside or self.main.type not in ("ipvlan", "macvlan") else text_of(self.main.body, "master")
        )

    @property
    def mode(self) -> str:
        """The mode of an ipvlan or macvlan interface, which has a default; "" for other types."""
        default = {"ipvlan": "l2", "macvlan": "bridge"}.get(self.main.type, "")
        return (text_of(self.main.body, "mode") or default) if default else ""

    @property
    def has_requested_addresses(self) -> bool:
        """Whether the addresses of a pod's annotation are passed to the plugin (capability ``ips``)."""
        return self.main.has_capability("ips")


def parse(text: str) -> CniConfig:
    """Parse a configuration.

    Raises:
        ConfigError: It is not a JSON object; the text names line and column.
    """
    try:
        body = loads(text, max_size=SIZE_LIMIT, max_depth=DEPTH_LIMIT)
    except ValueError as error:
        raise ConfigError(f"{error}{_place_of_constant(text, str(error))}") from None
    if not isinstance(body, dict):
        raise ConfigError("is not a JSON object")
    plugins = body.get("plugins")
    if text_of(body, "type") or not isinstance(plugins, list):
        return CniConfig(_plugin(body, ("cniVersion", "name")))
    return CniConfig(body | {"plugins": [_plugin(one) if isinstance(one, dict) else one for one in plugins]})


def _place_of_constant(text: str, why: str) -> str:
    """Return where a number is that JSON does not have, such as NaN: Python's parser says that of all other errors."""
    if not why.endswith("is not allowed"):
        return ""
    for match in _CONSTANT.finditer(text):
        if match.group(1):
            before = text[: match.start()]
            return f" at line {before.count(chr(10)) + 1}, column {match.start() - before.rfind(chr(10))}"
    return ""


def _plugin(body: Body, more: tuple[str, ...] = ()) -> Body:
    """Return a plugin's configuration with the names of fields as they are documented: Go reads them without case.

    Those of a list of plugins, apart from its plugins, are read as they are (libcni, NetworkConfFromBytes).
    """
    found = _with_names(body, (*_PLUGIN_FIELDS, *more))
    ipam = found.get("ipam")
    return found | {"ipam": _with_names(ipam, _IPAM_FIELDS)} if isinstance(ipam, dict) else found


def _with_names(body: Body, fields: tuple[str, ...]) -> Body:
    names = {name.lower(): name for name in fields}
    if not any(key not in fields and key.lower() in names for key in body):
        return body
    return {
        (name if (name := names.get(key.lower(), key)) not in body else key): value
        for key, value in body.items()
    }


def text_of(body: Body, key: str) -> str:
    """Return a text of an object; "" if it is missing or not text."""
    value = body.get(key)
    return value if isinstance(value, str) else ""
