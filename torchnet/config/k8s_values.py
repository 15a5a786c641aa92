"""Compact notations for a worker's pod: networks, secrets, tolerations, code, addresses. Pure.

Each ``parse_*`` function returns the parsed value or raises ``ValueError``, whose text completes a sentence that begins
with the input.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torchnet import constants
from torchnet.config.k8s_syntax import (
    parse_label_value,
    parse_mount_path,
    parse_namespaced,
    parse_qualified,
    parse_resource,
    parse_subdomain,
)
from torchnet.config.parsing import quote
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.host_networks import HostNetwork, is_host_network, parse_host_network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NETWORK = re.compile(r"(?P<name>[^*=]*)(?:\*(?P<count>[0-9]{1,4}))?(?:=(?P<resource>.*))?", re.DOTALL)
# Paths at which torchnet, the kubelet or the container runtime mounts something.
TAKEN = (
    *(
        constants.CODE_DIR,
        constants.STATE_DIR,
        constants.TOKEN_DIR,
        constants.STATUS_DIR,
        constants.WORK_DIR,
        constants.SCRIPT_DIR,
        constants.API_DIR,
    ),
    *("/dev/shm", "/etc/hosts", "/proc", "/sys"),
)
SECRET_VOLUME = "torchnet-secret-"  # prefix; a number follows for each ``--secret`` with a path


def parse_network(text: str) -> list[NetworkAttachment]:
    """Parse ``[NS/]NAD[*COUNT][=RESOURCE]``: COUNT attachments, as yet without an interface."""
    match = _NETWORK.fullmatch(text)
    if match is None:
        raise ValueError("is not [NAMESPACE/]NAME[*COUNT][=RESOURCE]")
    namespace, name = parse_namespaced(match["name"])
    count = int(match["count"] or 1)
    if not 1 <= count <= constants.MAX_RAILS:
        raise ValueError(f"has the COUNT {count}; valid are 1 to {constants.MAX_RAILS} rails")
    resource = parse_resource(match["resource"]) if match["resource"] is not None else ""
    return [NetworkAttachment(namespace, name, resource=resource)] * count


def parse_networks(texts: Sequence[str]) -> tuple[NetworkAttachment, ...]:
    """Parse the texts of ``--network``: one attachment per rail, in order; () for the host's own networks.

    Raises:
        ValueError: One line for each problem, including those of `parse_host_networks`.
    """
    found: list[NetworkAttachment] = []
    problems = []
    hosts = [text for text in texts if is_host_network(text)]
    try:
        networks = parse_host_networks(hosts)
    except ValueError as error:
        problems += str(error).splitlines()
        networks = []
    attached = [text for text in texts if text not in hosts]
    if attached and any(one.kind == "host" for one in networks):
        problems.append(
            f"{quote(attached[0])} cannot be combined with host: networks: a pod in the host's network namespace has "
            "no attachments"
        )
    for text in attached:
        try:
            found += parse_network(text)
        except ValueError as error:
            problems.append(f"{quote(text)} {error}")
    if len(found) > constants.MAX_RAILS:
        problems.append(f"has {len(found)} rails; the limit is {constants.MAX_RAILS}")
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(replace(one, interface=constants.rail_interface(number)) for number, one in enumerate(found))


def parse_host_networks(texts: Sequence[str]) -> list[HostNetwork]:
    """Parse the texts of ``--network`` that name the host's own networks: ``host:ens5``, ``rdma:mlx5_0,mlx5_1``.

    Raises:
        ValueError: One line for each problem.
    """
    found: list[HostNetwork] = []
    problems = []
    for text in texts:
        try:
            found += parse_host_network(text)
        except ValueError as error:
            problems.append(f"{quote(text)} {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Secret:
    """A Secret whose keys become environment variables, or files below ``path`` if that is set."""

    name: str
    path: str = ""


def parse_secret(text: str) -> Secret:
    """Parse ``NAME`` or ``NAME:/PATH``."""
    name, colon, path = text.partition(":")
    where = parse_mount_path(path) if colon else ""
    return Secret(parse_subdomain(name), where)


def find_mount_problems(mounts: Sequence[tuple[str, str, str]]) -> list[str]:
    """Check mount paths: each must be unique, and outside the paths of `TAKEN`.

    Args:
        mounts: (field path, text as written, mount path) of each mount.

    Returns:
        One line for each invalid mount.
    """
    found = []
    first: dict[str, str] = {}
    for field, text, path in mounts:
        if any(path == taken or path.startswith(f"{taken}/") for taken in TAKEN):
            found.append(f"{field}: {quote(text)} is mounted at {path}, which torchnet or the system uses")
        elif path in first:
            found.append(f"{field}: {quote(text)} is mounted at {path}, like {quote(first[path])}")
        first.setdefault(path, text)
    return found


EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def parse_toleration(text: str) -> dict[str, str]:
    """Parse ``KEY[=VALUE][:EFFECT]``, the notation of ``kubectl taint``; ``:EFFECT`` alone tolerates every key."""
    pair, colon, effect = text.partition(":")
    key, equals, value = pair.partition("=")
    if colon and effect not in EFFECTS:
        raise ValueError(f"has no valid effect after the colon; valid effects: {', '.join(EFFECTS)}")
    if not key and (equals or not colon):
        raise ValueError("has no key")
    found = {"key": parse_qualified(key)} if key else {}
    found["operator"] = "Equal" if equals else "Exists"
    if equals:
        found["value"] = parse_label_value(value)
    return found | ({"effect": effect} if colon else {})


_STRENGTHS = ("required", "preferred", "unconstrained")


def parse_topology(text: str) -> tuple[str, str]:
    """Parse ``required:LEVEL``, ``preferred:LEVEL`` or ``unconstrained``.

    Returns:
        The strength, and the level: the key of a node label; "" for ``unconstrained``.
    """
    strength, colon, level = text.partition(":")
    if strength not in _STRENGTHS or bool(colon) != (strength != "unconstrained"):
        raise ValueError("is none of required:LEVEL, preferred:LEVEL and unconstrained")
    if not colon:
        return strength, ""
    if len(level) > 63:
        raise ValueError(f"has a level of {len(level)} characters; the limit is 63")
    return strength, parse_qualified(level)


@dataclass(frozen=True)
class CodeSource:
    """Where the code comes from.

    Attributes:
        kind: configmap, image or pvc.
        claim: Name of the PersistentVolumeClaim, for pvc.
        path: Directory within the volume, for pvc; "" for its root.
    """

    kind: str
    claim: str = ""
    path: str = ""


def parse_code(text: str) -> CodeSource:
    """Parse ``configmap``, ``image`` or ``pvc:NAME[/PATH]``."""
    if text in ("configmap", "image"):
        return CodeSource(text)
    kind, colon, rest = text.partition(":")
    if kind != "pvc" or not colon:
        raise ValueError("is not a source of code")
    claim, _, path = rest.partition("/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or ":" in path or not path.isprintable():
        raise ValueError("has a path that leaves the volume")
    return CodeSource("pvc", parse_subdomain(claim), "/".join(parts))


def parse_addresses(text: str, count: int) -> tuple[str, ...]:
    """Return the first ``count`` addresses, with prefix length, of ``FIRST-LAST/LEN`` or a list ``ADDRESS/LEN,…``."""
    if "," not in text and "-" in text:
        first, last, length = _range(text)
        size = int(last) - int(first) + 1
        if size < count:
            raise ValueError(f"has {max(size, 0)} addresses for {count} workers")
        # Not `ip_address(number)`, which takes small numbers for IPv4.
        return tuple(f"{type(first)(int(first) + number)}/{length}" for number in range(count))
    found: list[str] = []
    for part in text.split(","):
        if "/" not in part:
            raise ValueError(
                f"has {part.strip()!a} without a prefix length, which CNI requires (example: fcbb::50/64)"
            )
        try:
            found.append(str(ipaddress.ip_interface(part.strip())))
        except ValueError:
            raise ValueError(f"has {part.strip()!a}, which is not an IP address") from None
    bare = [one.partition("/")[0] for one in found]
    if len(set(bare)) < len(bare):
        raise ValueError("has a duplicate address")
    if len(found) < count:
        raise ValueError(f"has {len(found)} addresses for {count} workers")
    return tuple(found[:count])


def _range(text: str) -> tuple[Address, Address, int]:
    span, slash, length = text.partition("/")
    start, _, end = span.partition("-")
    try:
        first, last = ipaddress.ip_address(start.strip()), ipaddress.ip_address(end.strip())
    except ValueError:
        raise ValueError("is not FIRST-LAST/LENGTH") from None
    if first.version != last.version:
        raise ValueError("mixes IPv4 and IPv6")
    if not slash or not re.fullmatch(r"[0-9]{1,3}", length) or int(length) > first.max_prefixlen:
        raise ValueError("has no valid prefix length after the range, which CNI requires (example: /64)")
    if last not in ipaddress.ip_network((first, int(length)), strict=False):
        raise ValueError("begins and ends in different networks")
    return first, last, int(length)
