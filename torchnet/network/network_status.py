"""The annotation ``k8s.v1.cni.cncf.io/network-status``: what the cluster reports about a pod's interfaces.

Format: the Network Plumbing Working Group's de-facto standard, "Network Attachment Status"; fields and their
order follow ``NetworkStatus`` in k8snetworkplumbingwg/network-attachment-definition-client. Anyone who may
write a pod's annotations controls this text, so it is untrusted: limited in size before parsing, type-checked
afterwards, and its strings must not be printed without :func:`torchnet.text.printable`.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from torchnet.constants import NETWORKS_ANNOTATION, STATUS_ANNOTATION
from torchnet.errors import StatusError
from torchnet.network.attachment import NetworkAttachment
from torchnet.text import loads, printable

# Kubernetes limits an object's annotations to 262,144 bytes in all, so 1 MiB rejects nothing real.
MAX_SIZE = 1 << 20
# Real statuses have 4 levels (device-info: {pci: {…}}).
MAX_DEPTH = 32
# An error lists up to this many invalid fields.
MAX_LISTED = 5

# Go's net.IP(nil).String(): Multus writes it for a default route through a device, without a gateway.
_NIL = "<nil>"
# Go's encoding/json escapes these inside strings; a lone surrogate cannot be written otherwise.
_ESCAPED = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_PATH = STATUS_ANNOTATION.replace(".", "\\.")
_SHOW = f"show it: kubectl get pod POD -o jsonpath='{{.metadata.annotations.{_PATH}}}'"


@dataclass(frozen=True)
class StatusEntry:
    """One attachment of a pod, identified by (name, interface).

    ``name`` is ``NAMESPACE/NAD`` (for the primary network the CNI's own name), ``ips`` and ``gateway`` are
    canonical addresses without prefix length, ``mtu`` is in bytes.
    """

    name: str
    interface: str | None = None
    ips: tuple[str, ...] = ()
    mac: str | None = None
    mtu: int | None = None
    default: bool = False
    gateway: tuple[str, ...] = ()
    origin: str = "network-status"  # source, for messages
    network: str = ""  # of the address, in CIDR notation, if the user named it (host:10.10.0.0/16)

    @property
    def on_host(self) -> bool:
        """Whether this is an interface of the host, ``host:eth1``, which no attachment added."""
        return self.name.startswith("host:")

    @property
    def attachment(self) -> NetworkAttachment | None:
        """None for other interfaces: the primary network's, ``host:eth1``, ``loopback``."""
        namespace, slash, name = self.name.partition("/")
        return NetworkAttachment(namespace, name, self.interface or "") if slash else None


def parse(text: str | bytes | None) -> tuple[StatusEntry, ...]:
    """Parse an annotation's value in its order; ``[]`` gives ``()``, unknown fields are ignored.

    Raises:
        StatusError: the annotation is missing (None, empty, ``null``), larger than 1 MiB, nested deeper than
            32 levels, not JSON, or has fields of an invalid type: the first five with their JSON paths. Nothing
            else is raised, and memory stays below 100 MB.
    """
    try:
        value = loads(text or "null", max_size=MAX_SIZE, max_depth=MAX_DEPTH)
    except ValueError as error:
        if not text or not text.strip():
            _missing()
        _refuse(str(error))
    if value is None:
        _missing()
    if not isinstance(value, list):
        _refuse(f"must be an array, but is {_kind(value)} (at $)")
    reader = _Reader()
    entries = []
    for position, item in enumerate(value):
        entries.append(reader.entry(item, f"$[{position}]"))
        if len(reader.problems) >= MAX_LISTED:
            break
    if reader.problems:
        _refuse("is malformed: " + "; ".join(reader.problems[:MAX_LISTED]))
    return tuple(entries)


def render(entries: Iterable[StatusEntry]) -> str:
    """Return the annotation's value as Multus writes it; ``parse(render(entries)) == tuple(entries)``.

    Multus marshals each entry by itself (Go's MarshalIndent, four spaces) and joins them with commas in
    brackets; Go omits empty fields, except ``dns``. A default entry without a gateway gets ``["<nil>"]``, as
    for a default route through a device. ``mtu`` is rare: ipvlan, macvlan and bridge report none.
    """
    return "[" + ",".join(_render(entry) for entry in entries) + "]"


def canonical(text: str) -> str | None:
    """Return the canonical form of a bare IP literal (inet_ntop's, as the kernel's tools print it), else None.

    Rejects prefix lengths, brackets and zones (``%eth0`` has a meaning on one machine only).
    """
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        return None


def _render(entry: StatusEntry) -> str:
    fields: dict[str, Any] = {"name": entry.name}
    optional = {"interface": entry.interface, "ips": list(entry.ips), "mac": entry.mac, "mtu": entry.mtu}
    fields.update((key, value) for key, value in optional.items() if value)
    if entry.default:
        fields["default"] = True
    fields["dns"] = {}
    if entry.gateway or entry.default:
        fields["gateway"] = list(entry.gateway) or [_NIL]
    text = json.dumps(fields, indent=4, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


class _Reader:
    """Type-checked reading that collects errors instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def entry(self, item: Any, path: str) -> StatusEntry:
        if not isinstance(item, dict):
            self._note(path, "must be an object", item)
            return StatusEntry("")
        name = self._text(item, "name", path)
        if name is None and item.get("name") in (None, ""):
            self.problems.append(f"{path}.name is missing")
        mtu = item.get("mtu")
        if mtu is not None and (isinstance(mtu, bool) or not isinstance(mtu, int) or not 0 <= mtu < 1 << 31):
            self._note(f"{path}.mtu", "must be a number of bytes", mtu)
        default = item.get("default")
        if not isinstance(default, (bool, type(None))):
            self._note(f"{path}.default", "must be true or false", default)
        return StatusEntry(
            name=name or "",
            interface=self._text(item, "interface", path),
            ips=self._addresses(item, "ips", path),
            mac=self._text(item, "mac", path),
            mtu=mtu or None,
            default=default is True,
            gateway=self._addresses(item, "gateway", path),
        )

    def _text(self, item: dict[str, Any], key: str, path: str) -> str | None:
        value = item.get(key)
        if not isinstance(value, (str, type(None))):
            self._note(f"{path}.{key}", "must be a string", value)
            return None
        return value or None

    def _addresses(self, item: dict[str, Any], key: str, path: str) -> tuple[str, ...]:
        value = item.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self._note(f"{path}.{key}", "must be an array of addresses", value)
            return ()
        found = []
        for position, text in enumerate(value):
            if text in (_NIL, ""):
                continue
            address = canonical(text) if isinstance(text, str) else None
            if address is None:
                self._note(f"{path}.{key}[{position}]", "must be an IP address without prefix length", text)
                break
            found.append(address)
        return tuple(found)

    def _note(self, path: str, rule: str, value: Any) -> None:
        self.problems.append(f"{path} {rule}, but is {_kind(value)}")


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f'"{printable(value, 40)}"'
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    return str(json.dumps(value))


def missing_status(pod: str, namespace: str, requested: str | None) -> StatusError:
    """Return the error for a pod without network-status, from its annotation ``requested`` (NETWORKS_ANNOTATION)."""
    if not requested:
        return StatusError(
            f"pod {pod} requests no second network: it has no annotation {NETWORKS_ANNOTATION}",
            fix=f"add the annotation {NETWORKS_ANNOTATION}: NAMESPACE/NAD@net1 to the pods (of a Job: to its template)",
        )
    return StatusError(
        f"pod {pod} requests {printable(requested, 200)} but has no annotation {STATUS_ANNOTATION}: Multus did "
        "not handle the pod, or the NetworkAttachmentDefinition has no cniVersion",
        fix=f"kubectl describe pod {pod} -n {namespace}; kubectl get pods -A -l app=multus; the "
        "NetworkAttachmentDefinition needs a cniVersion of at least 0.3.0, and Cilium cni.exclusive=false",
    )


def _missing() -> NoReturn:
    raise StatusError(
        f"the annotation {STATUS_ANNOTATION} is missing or empty: Multus has not written it",
        fix=f'request the attachment in {NETWORKS_ANNOTATION}, and set a "cniVersion" of at least 0.3.0 in its '
        "NetworkAttachmentDefinition (without it, Multus writes no status)",
    )


def _refuse(text: str) -> NoReturn:
    raise StatusError(f"the annotation {STATUS_ANNOTATION} {text}", fix=_SHOW)
