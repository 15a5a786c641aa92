"""The annotation ``k8s.v1.cni.cncf.io/network-status``: what the cluster says about a pod's interfaces.

Shape: the Network Plumbing Working Group's de-facto standard, section 5.3 ("Network Attachment Definition
Client Status"); the fields and their order are those of ``NetworkStatus`` in
network-attachment-definition-client. Whoever may write a pod's annotations may write this text, so it is
hostile until parsed: bounded before it is read, typed afterwards, and its strings are data that nobody
prints without :func:`torchnet.network.text.printable`.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from torchnet.errors import StatusError
from torchnet.names import STATUS_ANNOTATION
from torchnet.network.text import printable

# All annotations of an object together may hold 262,144 bytes (Kubernetes), so 1 MiB refuses nothing real.
MAX_BYTES = 1 << 20
# Real statuses have 4 levels (device-info: {pci: {…}}).
MAX_DEPTH = 32
# So many of the wrong fields are listed in the one error.
MAX_LISTED = 5

_MARKS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
# Go's net.IP(nil).String(): Multus writes it for a default route without a gateway.
_NIL = "<nil>"
_SHOW = f"kubectl get pod POD -o jsonpath='{{.metadata.annotations.{STATUS_ANNOTATION.replace('.', chr(92) + '.')}}}'"


@dataclass(frozen=True)
class StatusEntry:
    """One attachment of a pod.

    ``name`` is ``NAMESPACE/NAD`` (the primary network: the CNI's own name), ``ips`` and ``gateway`` are
    canonical addresses without prefix length, ``mtu`` is bytes. Entries are told apart by (name, interface).
    """

    name: str
    interface: str | None = None
    ips: tuple[str, ...] = ()
    mac: str | None = None
    mtu: int | None = None
    default: bool = False
    gateway: tuple[str, ...] = ()


def parse(text: str | bytes | None) -> tuple[StatusEntry, ...]:
    """The entries of an annotation's value, in its order; ``[]`` gives ``()``.

    Raises:
        StatusError: the annotation is missing (None, empty, ``null``), larger than 1 MiB, nested deeper than
            32 levels, no JSON, or a field has a wrong type: all the wrong fields (the first five) with
            their JSON paths. Nothing else is raised, and memory stays within about 60 times the text.
    """
    if text is None or not text.strip():
        _missing()
    decoded = _bounded(text)
    try:
        value = json.loads(decoded, parse_int=_integer, parse_constant=_constant)
    except json.JSONDecodeError as error:
        _refuse(f"is no JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except ValueError as error:
        _refuse(f"is no JSON: {error}")
    if value is None:
        _missing()
    if not isinstance(value, list):
        _refuse(f"must be an array, but is {_kind(value)} (at $)")
    reader = _Reader()
    entries = []
    for position, item in enumerate(value):
        entry = reader.entry(item, f"$[{position}]")
        if entry is not None:
            entries.append(entry)
        if len(reader.wrong) >= MAX_LISTED:
            break
    if reader.wrong:
        _refuse("is malformed: " + "; ".join(reader.wrong[:MAX_LISTED]))
    return tuple(entries)


def render(entries: Iterable[StatusEntry]) -> str:
    """The annotation's value exactly as Multus writes it: ``parse(render(entries)) == entries``.

    Multus marshals each entry by itself (Go's ``MarshalIndent`` with four spaces) and joins them with commas
    inside brackets; Go leaves out what is empty, except ``dns``, and writes ``<`` and ``>`` as escapes. The
    primary entry without a gateway gets ``["<nil>"]``, as for a default route through a device.
    """
    return "[" + ",".join(_render(entry) for entry in entries) + "]"


def _render(entry: StatusEntry) -> str:
    fields: dict[str, Any] = {"name": entry.name}
    if entry.interface:
        fields["interface"] = entry.interface
    if entry.ips:
        fields["ips"] = list(entry.ips)
    if entry.mac:
        fields["mac"] = entry.mac
    if entry.mtu:
        fields["mtu"] = entry.mtu
    if entry.default:
        fields["default"] = True
    fields["dns"] = {}
    if entry.gateway or entry.default:
        fields["gateway"] = list(entry.gateway) or [_NIL]
    text = json.dumps(fields, indent=4, ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _bounded(text: str | bytes) -> str:
    """Refuse by size and depth before any parser sees it; json's scanner recurses once a level."""
    if len(text) > MAX_BYTES:
        _refuse(f"has {len(text):,} {'bytes' if isinstance(text, bytes) else 'characters'}, at most {MAX_BYTES:,} are read")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            _refuse(f"is no UTF-8: byte {error.start}")
    depth, quoted = 0, False
    # A backslash outside a string hides the next mark here, but is also where the JSON parser stops.
    for match in _MARKS.finditer(text):
        mark = match.group()
        if mark == '"':
            quoted = not quoted
        elif quoted or mark[0] == "\\":
            continue
        elif mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                _refuse(f"is nested deeper than {MAX_DEPTH} levels (at character {match.start()})")
        else:
            depth -= 1
    return text


def _integer(digits: str) -> int:
    # int() takes quadratic time, and Python before 3.10.7 sets no limit.
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


class _Reader:
    """Typed reading that collects what is wrong instead of stopping at the first."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def entry(self, item: Any, path: str) -> StatusEntry | None:
        if not isinstance(item, dict):
            self._note(path, "must be an object", item)
            return None
        name = self._text(item, "name", path)
        if name is None:
            if item.get("name") in (None, ""):
                self.wrong.append(f"{path}.name is missing")
            return None
        mtu = item.get("mtu")
        if mtu is not None and (isinstance(mtu, bool) or not isinstance(mtu, int) or not 0 <= mtu < 1 << 31):
            self._note(f"{path}.mtu", "must be a whole number of bytes", mtu)
            mtu = None
        default = item.get("default")
        if default is not None and not isinstance(default, bool):
            self._note(f"{path}.default", "must be true or false", default)
            default = None
        return StatusEntry(
            name=name,
            interface=self._text(item, "interface", path),
            ips=self._addresses(item, "ips", path),
            mac=self._text(item, "mac", path),
            mtu=mtu or None,
            default=bool(default),
            gateway=self._addresses(item, "gateway", path),
        )

    def _text(self, item: dict[str, Any], key: str, path: str) -> str | None:
        value = item.get(key)
        if value is not None and not isinstance(value, str):
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
            if text == _NIL or text == "":
                continue
            address = canonical(text) if isinstance(text, str) else None
            if address is None:
                self._note(f"{path}.{key}[{position}]", "must be an IP address without prefix length", text)
                break
            found.append(address)
        return tuple(found)

    def _note(self, path: str, rule: str, value: Any) -> None:
        self.wrong.append(f"{path} {rule}, but is {_kind(value)}")


def canonical(text: str) -> str | None:
    """The one spelling of a bare IP literal, or None if it is none. Zones (``%eth0``) are none: they are local."""
    if len(text) > 45 or "%" in text:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f'"{printable(value, 40)}"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "an object" if isinstance(value, dict) else "an array"


def _missing() -> NoReturn:
    raise StatusError(
        f"the annotation {STATUS_ANNOTATION} is missing or empty: Multus has not written it",
        fix="ask for the attachment in k8s.v1.cni.cncf.io/networks, and give the NetworkAttachmentDefinition "
        'a "cniVersion" of at least 0.3.1 (without one, Multus attaches but writes no status)',
    )


def _refuse(text: str) -> NoReturn:
    raise StatusError(f"the annotation {STATUS_ANNOTATION} {text}", fix=f"look at it with: {_SHOW}")
