"""The options of ``torchnet manifests``: one table that parses and validates them, and reports all errors at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from torchnet.config.k8s_syntax import parse_image, parse_registry, parse_subdomain
from torchnet.config.parsing import parse_label
from torchnet.config.pod_user import PodUser, parse_id, parse_run_as, pod_user
from torchnet.errors import UsageError
from torchnet.k8s.addons.ip_ranges import (
    Address,
    Network,
    overlap,
    parse_address,
    parse_part,
    parse_range,
    spanning,
    within,
)
from torchnet.text import printable

MULTUS, WHEREABOUTS, BACKEND = "multus-install", "whereabouts-install", "backend-network"
EXAMPLE, RBAC, POLICY = "pytorch-pod-example", "rbac", "network-policy"
NAMES = (MULTUS, WHEREABOUTS, BACKEND, EXAMPLE, RBAC, POLICY)
# Short names, and the name of a file without its extension.
ALIASES = {"multus": MULTUS, "whereabouts": WHEREABOUTS, "backend-network-nad": BACKEND}

MODES = {"ipvlan": ("l2", "l3", "l3s"), "macvlan": ("bridge", "private", "vepa"), "bridge": ()}
IPAMS = ("whereabouts", "host-local", "static")
ROUTED = ("l3", "l3s")  # in these modes the node routes, and pods do not answer neighbour discovery
RANGE = parse_range("fcbb:0:800:ffff::/64")


class Slice(NamedTuple):
    """A node's part of the range, and the node's own address on the backend: the gateway to that part, if known."""

    node: str
    part: Network
    via: Address | None = None


@dataclass(frozen=True)
class Options:
    """The options that the manifests depend on; the defaults are those of the files in ``manifests/``.

    Args:
        registry: Mirror of the images (``registry.example.com/mirror``); None for the images' own registries.
        image: Image of the example's pods; None for `torchnet.k8s.addons.images.PYTORCH` from ``registry``.
        type: Type of net1, as CNI calls it: ``ipvlan``, ``macvlan`` or ``bridge``.
        mode: l2, l3 or l3s for ``ipvlan``; bridge, private or vepa for ``macvlan``; unused for ``bridge``.
        master: The node's network card; unused for ``bridge``.
        bridge: The node's bridge, for ``type`` ``bridge``.
        range: The backend's network; by default `RANGE`, or the smallest network that holds all slices.
        exclude: Parts of ``range`` that Whereabouts does not allocate.
        ipam: whereabouts, host-local or static.
        slices: Each node's part of ``range``, for host-local.
        mtu: In bytes; None for the card's.
        log_file: File on each node to which Whereabouts logs its allocations; None for no log.
        namespace: Namespace of the attachment, the example's pods, or the service account.
        name: Name of the attachment.
        network: (namespace, name) of the attachment that the example's pods use.
        workers: Number of the example's pods in addition to pytorch-training.
        run_as: User of the example's pods, as `torchnet.config.pod_user.parse_run_as` returns it; None for 1000.
        fs_group: Group of their volumes; None for that of ``run_as``.
        namespace_isolation: Whether Multus lets pods use only attachments of their own namespace and of
            ``global_namespaces``.
        global_namespaces: Namespaces whose attachments all pods may use, if there is isolation.
    """

    registry: str | None = None
    image: str | None = None
    type: str = "ipvlan"
    mode: str = "l2"
    master: str = "ens5"
    bridge: str = "br-backend"
    range: Network = RANGE
    exclude: tuple[Network, ...] = ()
    ipam: str = "whereabouts"
    slices: tuple[Slice, ...] = ()
    mtu: int | None = None
    log_file: str | None = None
    namespace: str = "default"
    name: str = "backend-network"
    network: tuple[str, str] = ("default", "backend-network")
    workers: int = 2
    run_as: str | None = None
    fs_group: int | None = None
    namespace_isolation: bool = False
    global_namespaces: tuple[str, ...] = ()

    @property
    def routes(self) -> bool:
        """Whether the nodes get routes to each other's parts."""
        return any(one.via for one in self.slices)

    @property
    def user(self) -> PodUser:
        """The user of the example's pods."""
        return pod_user(self.run_as, self.fs_group)


def backend(options: Options, given: dict[str, Any]) -> list[str]:
    """Return the errors in an attachment's options; ``given`` holds those that the user set."""
    return [*_type(options, given), *_addresses(options, given), *_slices(options)]


def example(options: Options, given: dict[str, Any]) -> list[str]:
    """Return the errors in the options of the example's pods; ``given`` holds those that the user set."""
    problems = []
    if "range" in given and options.ipam != "static":
        problems.append("--range requires --ipam static")
    if options.range.num_addresses // 2 <= options.workers + 1:
        problems.append(f"--range {options.range} has too few addresses for {options.workers + 1} pods")
    if "image" in given and "registry" in given:
        problems.append("--registry and --image exclude each other")
    return problems


def _type(options: Options, given: dict[str, Any]) -> list[str]:
    problems = []
    modes = MODES[options.type]
    if "mode" in given and options.mode not in modes:
        valid = f"valid: {', '.join(modes)}" if modes else "it has no modes"
        problems.append(f"--mode {options.mode} is invalid for --type {options.type}; {valid}")
    if options.type == "bridge" and "master" in given:
        problems.append(
            "--master is invalid for --type bridge: make the network card a port of the --bridge on each node"
        )
    if options.type != "bridge" and "bridge" in given:
        problems.append(f"--bridge is invalid for --type {options.type}: set --master")
    return problems


def _addresses(options: Options, given: dict[str, Any]) -> list[str]:
    problems = []
    if options.mode in ROUTED and options.mode in MODES[options.type]:
        if options.ipam != "host-local" or not options.slices:
            problems.append(
                f"--mode {options.mode} requires one --slice NODE=CIDR for each node, and --ipam host-local: the nodes "
                "route, so each node needs a range of its own"
            )
    elif options.ipam == "host-local" and not options.slices:
        problems.append(
            "--ipam host-local requires one --slice NODE=CIDR for each node: otherwise two nodes would allocate the "
            "same address. Or use --ipam whereabouts"
        )
    elif options.slices and options.ipam != "host-local":
        problems.append(f"--slice is invalid for --ipam {options.ipam}: it requires --ipam host-local")
    for field, flag in (("exclude", "--exclude"), ("log_file", "--log-file")):
        if field in given and options.ipam != "whereabouts":
            problems.append(f"{flag} is invalid for --ipam {options.ipam}: it requires --ipam whereabouts")
    for part in options.exclude:
        if not within(part, options.range):
            problems.append(f"--exclude {part} is not within the range {options.range}")
        elif part == options.range:
            problems.append(f"--exclude {part} excludes the whole range")
    return problems


def _slices(options: Options) -> list[str]:
    problems = []
    for node, part, _ in options.slices:
        if not within(part, options.range):
            whole = spanning([one.part for one in options.slices])
            valid = f"; valid: --range {whole}" if whole else ""
            problems.append(f"--slice {node}={part} is not within the range {options.range}{valid}")
    nodes = [one.node for one in options.slices]
    for node in dict.fromkeys(node for node in nodes if nodes.count(node) > 1):
        problems.append(f"--slice: duplicate node {node}")
    ordered = sorted(options.slices, key=lambda one: (one.part.version, int(one.part.network_address)))
    for one, other in pairwise(ordered):
        if one.node != other.node and overlap(one.part, other.part):
            problems.append(f"--slice {one.node}={one.part} and {other.node}={other.part} overlap")
    return [*problems, *_gateways(options)]


def _gateways(options: Options) -> list[str]:
    with_gateway = [one for one in options.slices if one.via is not None]
    if not with_gateway:
        return []
    if options.mode not in ROUTED:
        return [f"--slice: via= is for --mode {' and '.join(ROUTED)}: in the others no node routes"]
    problems = []
    missing = [one.node for one in options.slices if one.via is None]
    if missing:
        problems.append(f"--slice: no via= for {', '.join(missing)}; valid: for all nodes, or for none")
    by_gateway: dict[Address | None, list[str]] = {}
    for one in with_gateway:
        by_gateway.setdefault(one.via, []).append(one.node)
    problems += [
        f"--slice: via={via} is given for {', '.join(nodes)}; valid: each node's own address"
        for via, nodes in by_gateway.items()
        if len(set(nodes)) > 1
    ]
    for node, part, via in with_gateway:
        assert via is not None
        if via.version != part.version:
            problems.append(f"--slice {node}={part},via={via}: the two are of different address families")
        for other in options.slices:
            if via.version == other.part.version and via in other.part:
                problems.append(
                    f"--slice {node}: via={via} is in the range {other.part} of {other.node}'s pods; valid: the "
                    "address of the node itself"
                )
    return problems


LONGEST_NAME = 63 - len("-slices")


@dataclass(frozen=True)
class Option:
    """A flag: the field that it sets, the parser of its text (None: it takes none), and the manifests it applies to."""

    field: str
    flag: str
    metavar: str
    help: str
    parse: Callable[[str], Any] | None
    names: tuple[str, ...]
    repeat: bool = False
    short: str = ""

    @property
    def switch(self) -> bool:
        """Whether the flag takes no text: its field is True if it is given."""
        return self.parse is None


def _one_of(*valid: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in valid:
            raise ValueError(f"valid: {', '.join(valid)}")
        return text

    return parse


def _as(grammar: Callable[[object], Any], valid: str, what: str = "it") -> Callable[[str], Any]:
    """Wrap a parser of `torchnet.config` so that its errors also say what is valid."""

    def parse(text: str) -> Any:
        try:
            return grammar(text)
        except ValueError as error:
            raise ValueError(f"{what} {error}; valid: {valid}") from None

    return parse


_label = _as(
    parse_label,
    "a DNS label: up to 63 lowercase letters, digits and -, starting and ending with a letter or digit",
)


def _name(text: str) -> str:
    if len(text) > LONGEST_NAME:
        raise ValueError(f"it has {len(text)} characters; the limit is {LONGEST_NAME}")
    return str(_label(text))


def _interface(text: str) -> str:
    # The kernel accepts more (dev_valid_name), but nobody uses such names, and CNI plugins and shells fail on them.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", text):
        raise ValueError("valid: an interface name of up to 15 letters, digits, _ . -")
    return text


_registry = _as(parse_registry, "HOST[:PORT][/PATH], without https://, the path in lowercase letters")
_image = _as(parse_image, "REGISTRY/NAME:TAG, TAG not latest")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"valid: {low} to {high}")
        return int(text)

    return parse


def _path(text: str) -> str:
    # Only below /var/log: root writes to this path on every node.
    if not re.fullmatch(r"/var/log/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", text) or ".." in text.split("/"):
        raise ValueError("valid: a file below /var/log, such as /var/log/whereabouts.log")
    return text


_SLICE = "NODE=RANGE[,via=ADDRESS], such as node1=fcbb:0:800:ffff:1::/80"


_node = _as(parse_subdomain, _SLICE, "its node")


def _slice(text: str) -> Slice:
    node, equals, rest = text.partition("=")
    part, comma, gateway = rest.partition(",")
    name, is_, address = gateway.partition("=")
    if not equals or (comma and (name.strip(), is_) != ("via", "=")):
        raise ValueError(f"valid: {_SLICE}")
    return Slice(_node(node), parse_range(part), parse_address(address) if comma else None)


def _network(text: str) -> tuple[str, str]:
    namespace, slash, name = text.rpartition("/")
    return (_label(namespace) if slash else "", _label(name))


TABLE = (
    Option("registry", "--registry", "MIRROR", "Pull the images from MIRROR (HOST[:PORT][/PATH]).", _registry,
           (MULTUS, WHEREABOUTS, BACKEND, EXAMPLE)),
    Option("type", "--type", "|".join(MODES), "Type of the net1 interface. [ipvlan]", _one_of(*MODES), (BACKEND,)),
    Option("mode", "--mode", "MODE", "ipvlan: l2, l3, l3s; macvlan: bridge, private, vepa. [the first]",
           _one_of(*(mode for modes in MODES.values() for mode in modes)), (BACKEND,)),
    Option("master", "--master", "CARD", "Backend network interface of the nodes. [ens5]", _interface, (BACKEND,)),
    Option("bridge", "--bridge", "NAME", "Bridge on the nodes, for --type bridge. [br-backend]", _interface,
           (BACKEND,)),
    Option("range", "--range", "CIDR", "Address range of the backend network. [fcbb:0:800:ffff::/64, or what holds "
           "all slices]", parse_range,
           (BACKEND, EXAMPLE)),
    Option("exclude", "--exclude", "CIDR", "Range that Whereabouts does not allocate. Repeatable.", parse_part,
           (BACKEND,), repeat=True),
    Option("ipam", "--ipam", "|".join(IPAMS), "IPAM plugin. [whereabouts]", _one_of(*IPAMS),
           (BACKEND, EXAMPLE)),
    Option("slices", "--slice", "NODE=CIDR[,via=IP]", "Range of one node, for host-local; via: the node's own address "
           "on the backend, for --mode l3 and l3s. Repeatable.", _slice, (BACKEND,), repeat=True),
    Option("mtu", "--mtu", "BYTES", "MTU of net1. [the MTU of --master]", _whole(1280, 65535), (BACKEND,)),
    Option("log_file", "--log-file", "FILE", "Log file of Whereabouts on each node.", _path,
           (BACKEND,)),
    Option("namespace", "--namespace", "NS", "Namespace of the objects. [default]", _label,
           (BACKEND, EXAMPLE, RBAC, POLICY),
           short="-n"),
    Option("name", "--name", "NAME", "Name of the NetworkAttachmentDefinition. [backend-network]", _name, (BACKEND,)),
    Option("network", "--network", "[NS/]NAME", "NetworkAttachmentDefinition of the example pods. [backend-network]",
           _network, (EXAMPLE,)),
    Option("image", "--image", "IMAGE", "PyTorch image of the example pods, with a version tag.", _image, (EXAMPLE,)),
    Option("workers", "--workers", "N", "Number of example pods in addition to pytorch-training. [2]",
           _whole(1, 100), (EXAMPLE,)),
    Option("run_as", "--run-as", "UID[:GID]", "User of the example pods, or namespace to leave it to the "
           "namespace's admission policies. [1000]",
           _as(parse_run_as, "UID[:GID], numbers up to 2147483647, or namespace"), (EXAMPLE,)),
    Option("fs_group", "--fs-group", "GID", "Group of the example pods' volumes. [the GID of --run-as]",
           _as(parse_id, "the number of a group"), (EXAMPLE,)),
    Option("namespace_isolation", "--namespace-isolation", "", "Let pods use only the attachments of their own "
           "namespace and of --global-namespace.", None, (MULTUS,)),
    Option("global_namespaces", "--global-namespace", "NS", "Namespace whose attachments all pods may use, with "
           "--namespace-isolation. Repeatable. [default]", _label, (MULTUS,), repeat=True),
)  # fmt: skip
FLAGS = {option.field: option.flag for option in TABLE}
FORMER_FLAGS = {"kind": "type"}  # earlier names, without their dashes, which are accepted but not shown


def parse_name(text: str) -> str:
    """Return the name of the manifest that ``text`` refers to.

    Raises:
        UsageError: There is no such manifest; the message lists those that exist.
    """
    name = ALIASES.get(text, text)
    if name not in NAMES:
        raise UsageError(
            f'unknown manifest "{printable(text, 80)}"; valid: {", ".join(NAMES)}',
            fix="torchnet manifests",
        )
    return name


def parse(name: str, given: Mapping[str, str | Sequence[str] | bool], wrong: Sequence[str] = ()) -> Options:
    """Parse and validate the options of a manifest.

    Args:
        name: The manifest, one of `NAMES`.
        given: The texts of the flags that the user set, by field; True for a switch.
        wrong: Errors that the caller has already found.

    Raises:
        UsageError: An option is invalid; the message lists all errors.
    """
    values: dict[str, Any] = {}
    problems = [*wrong]
    for option in TABLE:
        if option.field not in given:
            continue
        if name not in option.names:
            problems.append(f"{option.flag} is invalid for {name}; it applies to {', '.join(option.names)}")
            continue
        texts = given[option.field]
        if option.parse is None or isinstance(texts, bool):
            values[option.field] = True
            continue
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
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        lines = "\n  ".join([f"invalid options for {name}: {count}", *problems])
        raise UsageError(lines, fix="torchnet manifests --help")
    return options


def _complete(values: dict[str, Any]) -> Options:
    """Return the options, with the defaults that depend on other options."""
    options = replace(Options(), **values)
    if "mode" not in values:
        modes = MODES[options.type]
        options = replace(options, mode=modes[0] if modes else "")
    routed = options.mode in ROUTED and options.mode in MODES[options.type]
    if "ipam" not in values and (options.slices or routed):
        options = replace(options, ipam="host-local")
    parts = [one.part for one in options.slices]
    if "range" not in values and not all(within(part, options.range) for part in parts):
        options = replace(options, range=spanning(parts) or options.range)
    namespace, network = options.network
    if "network" not in values or not namespace:
        options = replace(options, network=(options.namespace, network))
    return options


def _conflicts(name: str, options: Options, values: dict[str, Any]) -> list[str]:
    if name == BACKEND:
        return backend(options, values)
    if options.global_namespaces and not options.namespace_isolation:
        return ["--global-namespace requires --namespace-isolation: otherwise pods may use all attachments"]
    return example(options, values) if name == EXAMPLE else []
