"""The flags of ``torchnet agent``, which ``torchnet env`` takes as well."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Sequence

from torchnet import names
from torchnet.errors import UsageError

# What they are at least, and without any word of it; where the environment says it.
_NUMBERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "nnodes": (1, ("TORCHNET_NNODES",)),
    "node_rank": (0, ("TORCHNET_NODE_RANK", "JOB_COMPLETION_INDEX")),
    "nproc_per_node": (1, ("TORCHNET_NPROC_PER_NODE",)),
}
_SWITCHES = ("--module", "--no-python", "--no_python", "--measure", "--help")


def parse(argv: Sequence[str], prog: str = "torchnet agent", about: str = "") -> argparse.Namespace:
    """The flags, and ``command`` for what follows them. Exits with 2 where one is wrong, as argparse does.

    Raises UsageError where a number in the environment is none.
    """
    options = parser(prog, about).parse_args(dashed(list(argv)))
    for name, (least, variables) in _NUMBERS.items():
        if getattr(options, name) is None:
            setattr(options, name, _number(least, variables))
    return options


def parser(prog: str, about: str = "") -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=prog,
        description=about or "Run one worker of a job: discover, join, preflight, run, receipt.",
        allow_abbrev=False,
    )
    _job(made)
    _network(made)
    _pod(made)
    _run(made)
    made.add_argument("command", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGS]...")
    return made


def _job(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--nnodes", type=_count, help="workers of the job [1]")
    add("--node-rank", type=int, help="this one's number; an Indexed Job gives it [0]")
    add("--nproc-per-node", type=_count, help="processes here [1]")
    add(
        "--run-id",
        default=os.environ.get("TORCHNET_RUN_ID", "run"),
        help="the job's name, the same everywhere [%(default)s]",
    )
    add(
        "--name",
        default="",
        help=f"this worker's name, its own among all workers [{socket.gethostname()}; in phases: RUN-RANK]",
    )


def _network(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--address-source", default=os.environ.get("TORCHNET_ADDRESS_SOURCE", "multus-status"),
        help="multus-status, host:IFNAME,… or static:net1=ADDRESS/LEN,… [%(default)s]")  # fmt: skip
    add(
        "--status-file", help="with multus-status: a file with this pod's network-status instead of the API's"
    )
    add("--rank0-status-file", help="… and one with rank 0's, read again at each try")
    add(
        "--rank0",
        default=os.environ.get("TORCHNET_RANK0", ""),
        help="rank 0's address on each rail, by commas",
    )
    add(
        "--rank0-labels",
        default="",
        metavar="KEY=VALUE,…",
        help="multus-status: the labels of rank 0's pod [those by which the own pod belongs to it]",
    )
    add(
        "--attachment",
        action="append",
        default=[],
        help="NAMESPACE/NAME[@INTERFACE] of a rail, in order; may repeat",
    )
    add("--family", choices=("auto", "ipv4", "ipv6"), default="auto")
    add("--preflight", choices=("auto", "full"), default="auto")


def _pod(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add(
        "--phase",
        choices=("all", "prepare", "work"),
        default="all",
        help="prepare: an init container's part, up to the preflight; work: the rest [all]",
    )
    add("--state", default="", metavar="DIR", help="what prepare leaves there and work reads")
    add("--code", default="", metavar="FILE.zip", help="unpacked into --workdir, by prepare or all")
    add("--workdir", default="", metavar="DIR", help="where the script runs [.]")
    add("--termination-log", metavar="PATH", help="how it ended, as JSON [/dev/termination-log if it exists]")
    add(
        "--start",
        default=os.environ.get(names.START_VARIABLE, ""),
        help="which start of the whole job this is, where something restarts it [%(default)s]",
    )
    add(
        "--replaced",
        default=os.environ.get(names.REPLACED_VARIABLE),
        metavar="N",
        help="prepare may end with 75 where the pod's address is taken, and another pod comes; N have come already",
    )


def _run(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--max-restarts", type=int, default=0)
    add("--grace", type=float, default=names.GRACE_SECONDS, metavar="SECONDS")
    add("--link-grace", type=float, default=5.0, metavar="SECONDS")
    add("--stall-timeout", type=float, default=300.0, metavar="SECONDS")
    add("--stall-action", choices=("report", "stop"), default="report")
    add("--start-timeout", type=float, default=300.0, metavar="SECONDS")
    add("--log-dir", default="")
    add("--min-share", type=float)
    add("--measure", action="store_true", help="sample the rails' counters, for the receipt")
    add("--stdin-rank", type=int)
    add("--local-rank", type=int, default=0, help="of `torchnet env`: whose environment [%(default)s]")
    kind = made.add_mutually_exclusive_group()
    kind.add_argument("-m", "--module", action="store_true", help="the script is a module")
    kind.add_argument("--no-python", action="store_true", help="the script is a program of its own")


def dashed(argv: list[str]) -> list[str]:
    """``--node_rank`` as ``--node-rank``; what follows the script stays as it is."""
    result: list[str] = []
    takes_value = False
    for number, word in enumerate(argv):
        if not takes_value and not word.startswith("-"):
            return result + argv[number:]
        name, equals, value = word.partition("=")
        takes_value = not takes_value and name.startswith("--") and not equals and name not in _SWITCHES
        result.append(name.replace("_", "-") + equals + value if word.startswith("--") else word)
    return result


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _number(least: int, variables: Sequence[str]) -> int:
    """Of the first variable that is set, else ``least``: a default for a typing error would start another job."""
    for variable in variables:
        if text := os.environ.get(variable):
            if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
                raise UsageError(
                    f"{variable}={text!r} is no number of at least {least}", fix=f"unset {variable}"
                )
            return int(text)
    return least
