"""Address sources: where a worker gets its own attachments and rank 0's addresses.

``multus-status`` reads the annotation that Multus writes (by API: torchnet.agent.pod_address_source);
``host:IFNAME,…`` uses the named interfaces as they are (hostNetwork pods, machines without Kubernetes);
``static:net1=ADDRESS/LEN,…`` gets the addresses from the job's objects.
No source touches the kernel or the API: the caller passes their text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from torchnet.constants import NETWORKS_ANNOTATION
from torchnet.errors import NetworkError, StatusError, UsageError
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.interface_selection import Family
from torchnet.network.network_status import StatusEntry, canonical, parse
from torchnet.text import listed, printable

FORM = "static:net1=ADDRESS/LEN[,net2=ADDRESS/LEN…]"


class StaticAddresses:
    """An address source that needs neither a file nor the API.

    Args:
        spec: the flag's value, ``static:net1=fcbb::2/64``; the interface must have exactly this address.
        rank0: rank 0's addresses by rail, or only the first rail's; IP literals.
        attachments: the known attachments, by rail.

    Raises:
        UsageError: names every invalid part.
    """

    def __init__(
        self, spec: str, rank0: tuple[str, ...], attachments: tuple[NetworkAttachment, ...] = ()
    ) -> None:
        self._entries = tuple(
            StatusEntry(
                name=attachments[number].path if number < len(attachments) else f"static:{name}",
                interface=name,
                ips=(address,),
                origin="--address-source",
            )
            for number, (name, address) in enumerate(pairs(spec))
        )
        self._rank0 = tuple(literal(text) for text in rank0)

    def attachments(self) -> tuple[StatusEntry, ...]:
        return self._entries

    def rank0(self) -> tuple[str, ...]:
        return self._rank0


def pairs(spec: str) -> list[tuple[str, str]]:
    """Parse ``spec`` into (interface, canonical address) by rail.

    Raises:
        UsageError: names every invalid part.
    """
    found: list[tuple[str, str]] = []
    problems = []
    for part in spec.partition(":")[2].split(","):
        name, _, text = part.partition("=")
        address, slash, length = text.partition("/")
        problem = interface_problem(name)
        bare = canonical(address)
        if problem:
            problems.append(problem)
        elif bare is None or ipaddress.ip_address(bare).is_link_local:
            problems.append(f'"{printable(text, 80)}" for {name} is not a global IP address')
        elif slash and not (length.isdigit() and int(length) <= (128 if ":" in bare else 32)):
            problems.append(f'"{printable(text, 80)}" for {name} has no valid prefix length after "/"')
        elif name in dict(found):
            problems.append(f"{name} is given twice")
        else:
            found.append((name, bare))
    if problems:
        raise UsageError(
            f'address source "{printable(spec, 120)}": ' + "; ".join(problems), fix=f"use {FORM}"
        )
    return found


_FIX = (
    f"compare it with the pod's annotation {NETWORKS_ANNOTATION}; the NetworkAttachmentDefinition needs a cniVersion "
    "and an ipam"
)
CHOICES = "multus-status, host:IFNAME[,IFNAME…] (such as host:eth1,eth2), or static:net1=ADDRESS/LEN[,…]"
AddressSourceKind = Literal["multus-status", "host", "static"]
# The job's network in a receipt: an agent's address source, or one of the local runtime's two.
NetworkKind = Literal["namespaces", "loopback", AddressSourceKind]
_KINDS = {"multus-status": "", "host": ":IFNAME", "static": ":net1=ADDRESS/LEN"}


class AddressSource(Protocol):
    """The agent's source of addresses. Resource claims (DRA) could be another one.

    Both methods can raise NotYetError: a later call can succeed.
    """

    def attachments(self) -> tuple[StatusEntry, ...]:
        """Return this worker's backend attachments by rail, each with an interface.

        Raises:
            NetworkError: an attachment is missing or unusable.
        """

    def rank0(self) -> tuple[str, ...]:
        """Return rank 0's addresses by rail. May be called repeatedly until the barrier.

        Raises:
            NetworkError: an address is missing.
        """


@dataclass(frozen=True)
class SourceChoice:
    """A parsed ``--address-source``; ``interfaces`` are the names after ``host:``."""

    kind: AddressSourceKind
    interfaces: tuple[str, ...] = ()


def parse_source(text: str) -> SourceChoice:
    """Parse the flag's value.

    Raises:
        UsageError: names every invalid part and the valid choices.
    """
    kind, colon, rest = text.partition(":")
    if kind == "multus-status" and not colon:
        return SourceChoice("multus-status")
    if kind == "static" and colon:
        return SourceChoice("static")
    if kind != "host" or not colon:
        import difflib

        close = difflib.get_close_matches(kind, _KINDS, 1)
        meant = f" (did you mean {close[0]}{_KINDS[close[0]]}?)" if close else ""
        raise UsageError(f'address source "{printable(text, 80)}" is unknown{meant}', fix=f"use {CHOICES}")
    names = tuple(rest.split(","))
    problems = [problem for problem in map(interface_problem, names) if problem]
    problems += [
        f"{printable(name)} is given twice" for name in dict.fromkeys(names) if name and names.count(name) > 1
    ]
    if problems:
        raise UsageError(
            f'address source "{printable(text, 80)}": ' + "; ".join(problems), fix=f"use {CHOICES}"
        )
    return SourceChoice("host", names)


def interface_problem(name: str) -> str | None:
    """Return why ``name`` is not a usable interface name, or None (dev_valid_name in net/core/dev.c)."""
    shown = f'"{printable(name, 40)}"'
    if not name:
        return "an interface name is empty"
    if name[0] in "=^":
        return f"{shown} is in NCCL's notation: use the exact name"
    if len(name.encode("utf-8", "surrogatepass")) > 15:
        return f"{shown} is longer than 15 bytes"
    if name in (".", "..") or re.search(r"[/:,\s]", name) or not name.isprintable():
        return f"{shown} is not a valid interface name: it cannot contain '/', ':', ',' or white space"
    return None


class MultusStatus:
    """Addresses from ``k8s.v1.cni.cncf.io/network-status``.

    Args:
        own_text: this pod's annotation.
        rank0_text: rank 0's, or a function that reads it at each call (rank 0 may have become another pod).
        attachments: the rails' attachments in order, with an interface if one NAD serves several rails; a NAD
            listed n times takes n interfaces in order. (): every entry but the primary network's, ordered by
            interface.
        family: which address :meth:`rank0` returns if an entry has both families.
    """

    def __init__(
        self,
        own_text: str | bytes | None,
        rank0_text: Callable[[], str | bytes | None] | str | bytes | None,
        attachments: tuple[NetworkAttachment, ...] = (),
        *,
        family: Family = "auto",
    ) -> None:
        self._own_text = own_text
        self._rank0_text = rank0_text
        self._wanted = attachments
        self._family = family

    def attachments(self) -> tuple[StatusEntry, ...]:
        return _rails(parse(self._own_text), self._wanted)

    def rank0(self) -> tuple[str, ...]:
        text = self._rank0_text() if callable(self._rank0_text) else self._rank0_text
        try:
            return tuple(_address(entry, self._family) for entry in _rails(parse(text), self._wanted))
        except StatusError as error:
            raise StatusError(f"rank 0: {error.text}", fix=error.fix) from error
        except NetworkError as error:
            raise NetworkError(f"rank 0: {error.text}", fix=error.fix) from error


class HostInterfaces:
    """The host's own interfaces, ``host:eth1,eth2``, and rank 0's addresses from the user.

    Args:
        spec: ``host:IFNAME[,IFNAME…]``.
        rank0: an IP literal per rail, or only the first (enough for the join); () on rank 0 itself.
        networks: by interface, the network in CIDR notation that its address is in, if the user named one.

    Raises:
        UsageError: the specification or an address is invalid.
    """

    def __init__(self, spec: str, rank0: tuple[str, ...], networks: Mapping[str, str] | None = None) -> None:
        choice = parse_source(spec)
        if choice.kind != "host":
            raise UsageError(
                f'"{printable(spec, 80)}" is not a list of host interfaces', fix="use host:IFNAME[,IFNAME…]"
            )
        self._interfaces = choice.interfaces
        self._networks = networks or {}
        self._rank0 = tuple(literal(text) for text in rank0)
        if len(self._rank0) not in (0, 1, len(self._interfaces)):
            raise UsageError(
                f"{len(self._rank0)} addresses of rank 0 for {len(self._interfaces)} interfaces",
                fix="give one address per interface, or only that of the first interface",
            )

    def attachments(self) -> tuple[StatusEntry, ...]:
        return tuple(
            StatusEntry(name=f"host:{name}", interface=name, network=self._networks.get(name, ""))
            for name in self._interfaces
        )

    def rank0(self) -> tuple[str, ...]:
        return self._rank0


def _rails(
    entries: tuple[StatusEntry, ...], wanted: tuple[NetworkAttachment, ...]
) -> tuple[StatusEntry, ...]:
    """Return the entries that are rails, complete and in rail order.

    Raises:
        NetworkError: names what is missing.
    """
    # A primary CNI with several interfaces writes an entry for each under its single name (no NAMESPACE/),
    # and marks only one of them as default.
    primary = {entry.name for entry in entries if entry.default and "/" not in entry.name}
    backend = [entry for entry in entries if not entry.default and entry.name not in primary]
    backend.sort(key=_by_interface)
    chosen = _matched(backend, wanted, entries) if wanted else backend
    if not chosen:
        raise NetworkError(
            f"network-status has no entry besides the primary network; {_have(entries)}", fix=_FIX
        )
    _check_complete(chosen)
    return tuple(chosen)


def _matched(
    backend: list[StatusEntry], wanted: tuple[NetworkAttachment, ...], entries: tuple[StatusEntry, ...]
) -> list[StatusEntry]:
    left = list(backend)
    taken: dict[int, StatusEntry] = {}
    # Those with an interface first; otherwise an earlier bare name would take theirs.
    for position in sorted(range(len(wanted)), key=lambda position: not wanted[position].interface):
        want = wanted[position]
        found = [entry for entry in left if _matches(want, entry)]
        if len({entry.name for entry in found}) > 1:
            names = listed([entry.name for entry in found], 8)
            raise NetworkError(
                f"{printable(str(want), 120)} is ambiguous: it matches {names}", fix="use NAMESPACE/NAD"
            )
        if found:
            taken[position] = found[0]
            left.remove(found[0])
    missing = [str(want) for position, want in enumerate(wanted) if position not in taken]
    if missing:
        raise NetworkError(
            f"network-status has no entry for {listed(missing, 8)}; {_have(entries)}", fix=_FIX
        )
    return [taken[position] for position in range(len(wanted))]


def _check_complete(chosen: list[StatusEntry]) -> None:
    problems = [f"{printable(e.name, 120)} without an interface" for e in chosen if not e.interface]
    problems += [f"{_label(e)} without an address" for e in chosen if e.interface and not e.ips]
    names = [e.interface for e in chosen if e.interface]
    problems += [f"{printable(name, 40)} twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if problems:
        raise NetworkError(f"network-status has {'; '.join(problems[:8])}", fix=_FIX)


def _matches(want: NetworkAttachment, entry: StatusEntry) -> bool:
    if want.interface and want.interface != entry.interface:
        return False
    return entry.name == want.path or (not want.namespace and entry.name.partition("/")[2] == want.name)


def _by_interface(entry: StatusEntry) -> tuple[tuple[int, int, str], ...]:
    """Sort net2 before net10. Real names have 15 bytes; a longer one is cut, as int() has a limit of digits."""
    parts = re.findall(r"[0-9]+|[^0-9]+", (entry.interface or "")[:64])
    return tuple((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)


def _address(entry: StatusEntry, family: Family) -> str:
    four = [ip for ip in entry.ips if ":" not in ip]
    six = [ip for ip in entry.ips if ":" in ip]
    of_family = {"ipv4": four, "ipv6": six, "auto": six or four}[family]
    if not of_family:
        raise NetworkError(
            f"{_label(entry)} has no {family} address, only {listed(entry.ips)}", fix="use --family auto"
        )
    return of_family[0]


def literal(text: str) -> str:
    """Return rank 0's address in canonical form, without brackets.

    Raises:
        UsageError: it is not a global IP address.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    address = canonical(bare)
    if address is None or ipaddress.ip_address(address).is_link_local:
        raise UsageError(
            f'"{printable(text, 80)}" is not a global IP address of rank 0',
            fix="use the address that `ip address` shows for rank 0's backend interface, without the prefix length",
        )
    return address


def _have(entries: tuple[StatusEntry, ...]) -> str:
    return f"it has {listed([_label(entry) for entry in entries], 8) or 'no entries'}"


def _label(entry: StatusEntry) -> str:
    return printable(entry.name, 120) + (f"@{printable(entry.interface, 40)}" if entry.interface else "")
