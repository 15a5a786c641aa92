"""The flags of ``torchnet manifests``: one table, from text to checked options, all that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torchnet.errors import UsageError
from torchnet.manifests import conflicts
from torchnet.manifests.options import (
    ALIASES,
    BACKEND,
    EXAMPLE,
    IPAMS,
    MODES,
    MULTUS,
    NAMES,
    RBAC,
    ROUTED,
    WHEREABOUTS,
    Options,
)
from torchnet.manifests.ranges import Network, parse_part, parse_range
from torchnet.network.text import printable
from torchnet.spec.grammar import parse_subdomain
from torchnet.spec.images import parse_image, parse_registry
from torchnet.spec.words import parse_label

LONGEST_NAME = 63 - len("-slices")


@dataclass(frozen=True)
class Option:
    """A flag: the field it sets, how its text is read, and the manifests it has a meaning for."""

    field: str
    flag: str
    metavar: str
    help: str
    parse: Callable[[str], Any]
    names: tuple[str, ...]
    repeat: bool = False
    short: str = ""


def _one_of(*valid: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in valid:
            raise ValueError(f"valid: {', '.join(valid)}")
        return text

    return parse


def _as(grammar: Callable[[object], str], valid: str, what: str = "it") -> Callable[[str], str]:
    """One of the grammars of `torchnet.spec`, with what it takes."""

    def parse(text: str) -> str:
        try:
            return grammar(text)
        except ValueError as error:
            raise ValueError(f"{what} {error}; valid: {valid}") from None

    return parse


_label = _as(
    parse_label,
    "a DNS label: small letters, digits and -, from letter or digit to letter or digit, 63 characters at most",
)


def _name(text: str) -> str:
    if len(text) > LONGEST_NAME:
        raise ValueError(f"it has {len(text)} characters, and {LONGEST_NAME} is the most")
    return _label(text)


def _interface(text: str) -> str:
    # The kernel takes more (dev_valid_name), but nobody names a card so, and CNI and shells choke on it.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", text):
        raise ValueError("valid: an interface's name, 15 letters, digits, _ . - at most")
    return text


_registry = _as(parse_registry, "HOST[:PORT][/PATH], without https://, the path in small letters")
_image = _as(parse_image, "REGISTRY/NAME:TAG, TAG not latest")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"valid: {low} to {high}")
        return int(text)

    return parse


def _path(text: str) -> str:
    # Below /var/log: the text is a path on every node, written by root.
    if not re.fullmatch(r"/var/log/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", text) or ".." in text.split("/"):
        raise ValueError("valid: a file below /var/log, such as /var/log/whereabouts.log")
    return text


_SLICE = "NODE=RANGE, such as node1=fcbb:0:800:ffff:1::/80"


_node = _as(parse_subdomain, _SLICE, "its node")


def _slice(text: str) -> tuple[str, Network]:
    node, equals, part = text.partition("=")
    if not equals:
        raise ValueError(f"valid: {_SLICE}")
    return _node(node), parse_range(part)


def _network(text: str) -> tuple[str, str]:
    namespace, slash, name = text.rpartition("/")
    return (_label(namespace) if slash else "", _label(name))


TABLE = (
    Option("registry", "--registry", "MIRROR", "Take the images from MIRROR (HOST[:PORT][/PATH]).", _registry,
           (MULTUS, WHEREABOUTS, BACKEND, EXAMPLE)),
    Option("kind", "--kind", "|".join(MODES), "How net1 is made. [ipvlan]", _one_of(*MODES), (BACKEND,)),
    Option("mode", "--mode", "MODE", "ipvlan: l2, l3, l3s; macvlan: bridge, private, vepa. [the first]",
           _one_of(*(mode for modes in MODES.values() for mode in modes)), (BACKEND,)),
    Option("master", "--master", "CARD", "The nodes' backend card. [ens5]", _interface, (BACKEND,)),
    Option("bridge", "--bridge", "NAME", "The nodes' bridge, for --kind bridge. [br-backend]", _interface,
           (BACKEND,)),
    Option("range", "--range", "CIDR", "The backend's addresses. [fcbb:0:800:ffff::/64]", parse_range,
           (BACKEND, EXAMPLE)),
    Option("exclude", "--exclude", "CIDR", "A part of it that Whereabouts leaves alone; repeatable.", parse_part,
           (BACKEND,), repeat=True),
    Option("ipam", "--ipam", "|".join(IPAMS), "Who gives the addresses. [whereabouts]", _one_of(*IPAMS),
           (BACKEND, EXAMPLE)),
    Option("slices", "--slice", "NODE=CIDR", "A node's own part of the range, for host-local; repeatable.", _slice,
           (BACKEND,), repeat=True),
    Option("mtu", "--mtu", "BYTES", "net1's MTU. [the card's]", _whole(1280, 65535), (BACKEND,)),
    Option("log_file", "--log-file", "FILE", "Where Whereabouts logs its allocations on each node.", _path,
           (BACKEND,)),
    Option("namespace", "--namespace", "NS", "The objects' namespace. [default]", _label, (BACKEND, EXAMPLE, RBAC),
           short="-n"),
    Option("name", "--name", "NAME", "The attachment's name. [backend-network]", _name, (BACKEND,)),
    Option("network", "--network", "[NS/]NAME", "The attachment that the pods use. [backend-network]", _network,
           (EXAMPLE,)),
    Option("image", "--image", "IMAGE", "The pods' PyTorch image, by a version's tag.", _image, (EXAMPLE,)),
    Option("workers", "--workers", "N", "Pods beside pytorch-training. [2]", _whole(1, 100), (EXAMPLE,)),
)  # fmt: skip
FLAGS = {option.field: option.flag for option in TABLE}


def parse_name(text: str) -> str:
    """The manifest that ``text`` names, or `UsageError` with those that there are."""
    name = ALIASES.get(text, text)
    if name not in NAMES:
        raise UsageError(
            f'there is no manifest "{printable(text, 80)}"; there are {", ".join(NAMES)}',
            fix="torchnet manifests lists them",
        )
    return name


def parse(name: str, given: Mapping[str, str | Sequence[str]], wrong: Sequence[str] = ()) -> Options:
    """The options of manifest ``name`` from the texts of the flags that were ``given``, by field.

    Raises `UsageError` with everything that is wrong; ``wrong`` is what the caller has found already.
    """
    values: dict[str, Any] = {}
    problems = [*wrong]
    for option in TABLE:
        if option.field not in given:
            continue
        if name not in option.names:
            problems.append(f"{option.flag} has no meaning for {name}; it is for {', '.join(option.names)}")
            continue
        texts = given[option.field]
        results = []
        for text in [texts] if isinstance(texts, str) else texts:
            try:
                results.append(option.parse(text))
            except ValueError as error:
                problems.append(f'{option.flag} "{printable(text, 80)}": {error}')
        if results:
            values[option.field] = tuple(results) if option.repeat else results[-1]
    options = _complete(values)
    problems += _conflicts(name, options, values)
    if problems:
        count = "one option is" if len(problems) == 1 else f"{len(problems)} options are"
        lines = "\n  ".join([f"{count} wrong for {name}:", *problems])
        raise UsageError(lines, fix="torchnet manifests --help")
    return options


def _complete(values: dict[str, Any]) -> Options:
    """Defaults that depend on other options."""
    options = replace(Options(), **values)
    if "mode" not in values:
        modes = MODES[options.kind]
        options = replace(options, mode=modes[0] if modes else "")
    routed = options.mode in ROUTED and options.mode in MODES[options.kind]
    if "ipam" not in values and (options.slices or routed):
        options = replace(options, ipam="host-local")
    namespace, network = options.network
    if "network" not in values or not namespace:
        options = replace(options, network=(options.namespace, network))
    return options


def _conflicts(name: str, options: Options, values: dict[str, Any]) -> list[str]:
    if name == BACKEND:
        return conflicts.backend(options, values)
    return conflicts.example(options, values) if name == EXAMPLE else []
