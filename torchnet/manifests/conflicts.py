"""Options that are fine one by one and wrong together: each as a line with what to do instead."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torchnet.manifests.options import MODES, ROUTED, Options
from torchnet.manifests.ranges import overlap, within


def backend(options: Options, given: dict[str, Any]) -> list[str]:
    """What is wrong with an attachment's options; ``given`` are those that were set."""
    return [*_kind(options, given), *_addresses(options, given), *_slices(options)]


def example(options: Options, given: dict[str, Any]) -> list[str]:
    """What is wrong with the options of the example's pods."""
    problems = []
    if "range" in given and options.ipam != "static":
        problems.append("--range is for pods with fixed addresses: add --ipam static, or leave it out")
    if options.range.num_addresses // 2 <= options.workers + 1:
        problems.append(f"--range {options.range} has too few addresses for {options.workers + 1} pods")
    if "image" in given and "registry" in given:
        problems.append("--registry and --image both name the registry: leave one out")
    return problems


def _kind(options: Options, given: dict[str, Any]) -> list[str]:
    problems = []
    modes = MODES[options.kind]
    if "mode" in given and options.mode not in modes:
        valid = f"valid: {', '.join(modes)}" if modes else "it has no modes"
        problems.append(f"--mode {options.mode} is none of {options.kind}'s; {valid}")
    if options.kind == "bridge" and "master" in given:
        problems.append("--master: a bridge has none; the card is made a port of the --bridge on each node")
    if options.kind != "bridge" and "bridge" in given:
        problems.append(f"--bridge is for --kind bridge, not for {options.kind}, whose card is the --master")
    return problems


def _addresses(options: Options, given: dict[str, Any]) -> list[str]:
    problems = []
    if options.mode in ROUTED and options.mode in MODES[options.kind]:
        if options.ipam != "host-local" or not options.slices:
            problems.append(
                f"--mode {options.mode}: the nodes route in it, so each must know which addresses are behind which "
                "node; give each its part of the range with --slice NODE=CIDR, and --ipam host-local or none"
            )
    elif options.ipam == "host-local" and not options.slices:
        problems.append(
            "--ipam host-local counts on each node by itself, so two nodes would give out the same address: "
            "give each node its part of the range with --slice NODE=CIDR, or use --ipam whereabouts"
        )
    elif options.slices and options.ipam != "host-local":
        problems.append(f"--slice is for --ipam host-local, not for {options.ipam}")
    for field, flag in (("exclude", "--exclude"), ("log_file", "--log-file")):
        if field in given and options.ipam != "whereabouts":
            problems.append(f"{flag} is for --ipam whereabouts, not for {options.ipam}")
    for part in options.exclude:
        if not within(part, options.range):
            problems.append(f"--exclude {part} is not within the range {options.range}")
        elif part == options.range:
            problems.append(f"--exclude {part} leaves no address of the range")
    return problems


def _slices(options: Options) -> list[str]:
    problems = []
    for node, part in options.slices:
        if not within(part, options.range):
            problems.append(f"--slice {node}={part} is not within the range {options.range}")
    nodes = [node for node, _ in options.slices]
    for node in dict.fromkeys(node for node in nodes if nodes.count(node) > 1):
        problems.append(f"--slice names {node} more than once")
    ordered = sorted(options.slices, key=lambda item: (item[1].version, int(item[1].network_address)))
    for (one, first), (other, second) in pairwise(ordered):
        if one != other and overlap(first, second):
            problems.append(f"--slice {one}={first} and {other}={second} share addresses")
    return problems
