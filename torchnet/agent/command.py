"""``torchnet agent``: one worker of a job, started by hand or by a pod's own command.

It needs the standard library and pyroute2 alone, so it also runs from the zip: ``python3 torchnet.zip agent …``.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from collections.abc import Sequence

from torchnet.agent import main as agent
from torchnet.agent.report import TextReporter
from torchnet.agent.spec import AgentSpec
from torchnet.errors import TorchnetError, UsageError
from torchnet.network.sources import AddressSource, HostInterfaces, MultusStatus, parse_source

_STATUS_LIMIT = 2 << 20  # the parser refuses more than half of it, in its own words


def main(argv: Sequence[str]) -> int:
    """Run one worker to its end; returns its exit code.

    Raises:
        TorchnetError: what was asked for cannot be, with its exit code.
    """
    options = _parser().parse_args(_dashed(list(argv)))
    if not options.command:
        raise UsageError("no script is named", fix="torchnet agent [FLAGS] SCRIPT [ARGS]...")
    source = _source(options)
    return agent.run(_spec(options), source, lambda _loop, _worker: TextReporter())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchnet agent",
        description="Run one worker of a job: discover, join, preflight, run, receipt.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--nnodes", type=_count, default=_environment("NNODES", 1), help="workers of the job [%(default)s]")
    add(
        "--node-rank",
        type=int,
        default=_environment("NODE_RANK", _completion_index()),
        help="this one's number [%(default)s]",
    )
    add(
        "--nproc-per-node",
        type=_count,
        default=_environment("NPROC_PER_NODE", 1),
        help="processes here [%(default)s]",
    )
    add(
        "--run-id",
        default=os.environ.get("TORCHNET_RUN_ID", "run"),
        help="the job's name, the same everywhere [%(default)s]",
    )
    add(
        "--name",
        default=socket.gethostname(),
        help="this worker's name, its own among all workers [%(default)s]",
    )
    add("--address-source", default=os.environ.get("TORCHNET_ADDRESS_SOURCE", "multus-status"),
        help="multus-status, or host:IFNAME,… [%(default)s]")  # fmt: skip
    add("--status-file", help="with multus-status: a file with this pod's network-status")
    add("--rank0-status-file", help="… and one with rank 0's, read again at each try")
    add(
        "--rank0",
        default=os.environ.get("TORCHNET_RANK0", ""),
        help="rank 0's address on each rail, by commas",
    )
    add("--attachment", action="append", default=[], help="NAMESPACE/NAME of a rail, in order; may repeat")
    add("--family", choices=("auto", "ipv4", "ipv6"), default="auto")
    add("--preflight", choices=("auto", "full"), default="auto")
    add("--max-restarts", type=int, default=0)
    add("--grace", type=float, default=10.0, metavar="SECONDS")
    add("--link-grace", type=float, default=5.0, metavar="SECONDS")
    add("--stall-timeout", type=float, default=300.0, metavar="SECONDS")
    add("--stall-action", choices=("report", "stop"), default="report")
    add("--start-timeout", type=float, default=300.0, metavar="SECONDS")
    add("--log-dir", default="")
    add("--min-share", type=float)
    add("--stdin-rank", type=int)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("-m", "--module", action="store_true", help="the script is a module")
    kind.add_argument("--no-python", action="store_true", help="the script is a program of its own")
    add("command", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGS]...")
    return parser


def _spec(options: argparse.Namespace) -> AgentSpec:
    if not 0 <= options.node_rank < options.nnodes:
        raise UsageError(
            f"--node-rank {options.node_rank} is not within 0 … {options.nnodes - 1}",
            fix="--nnodes and --node-rank",
        )
    return AgentSpec(
        run_id=options.run_id,
        nnodes=options.nnodes,
        node_rank=options.node_rank,
        nproc_per_node=options.nproc_per_node,
        command=tuple(options.command),
        token=_token(options.nnodes),
        python=sys.executable,
        name=options.name,
        entry="module" if options.module else "program" if options.no_python else "script",
        network=options.address_source.partition(":")[0],
        runtime="agent",
        attachments=tuple(options.attachment),
        **{
            name: getattr(options, name)
            for name in (
                "family",
                "preflight",
                "max_restarts",
                "grace",
                "link_grace",
                "stall_timeout",
                "stall_action",
                "start_timeout",
                "log_dir",
                "min_share",
                "stdin_rank",
            )
        },
    )


def _source(options: argparse.Namespace) -> AddressSource:
    rank0 = tuple(filter(None, options.rank0.split(",")))
    if parse_source(options.address_source).kind == "host":
        if not rank0 and options.node_rank:
            raise UsageError("nobody says where rank 0 is", fix="--rank0 ADDRESS")
        return HostInterfaces(options.address_source, rank0)
    if not options.status_file:
        raise UsageError(
            "multus-status needs this pod's network-status",
            fix="--status-file FILE (a downward-API volume), or --address-source host:IFNAME",
        )
    other = options.rank0_status_file or (options.status_file if not options.node_rank else None)
    if other is None:
        raise UsageError("multus-status needs rank 0's network-status", fix="--rank0-status-file FILE")
    attachments = tuple(options.attachment) or None
    return MultusStatus(_read(options.status_file), lambda: _read(other), attachments, family=options.family)


def _token(nnodes: int) -> str:
    """The job's secret, from the environment, so that no process list shows it."""
    token = os.environ.pop("TORCHNET_TOKEN", "")
    file = os.environ.get("TORCHNET_TOKEN_FILE", "")
    if not token and file:
        token = _read(file).strip()
    if not token and nnodes > 1:
        raise UsageError(
            "the workers need one secret in common",
            fix="export TORCHNET_TOKEN=… (or TORCHNET_TOKEN_FILE=FILE) on all of them",
        )
    return token or secrets.token_hex(16)


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(_STATUS_LIMIT)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", fix="is the volume mounted there?") from error


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _environment(name: str, default: int) -> int:
    text = os.environ.get(f"TORCHNET_{name}", "")
    return int(text) if text.isdigit() else default


def _completion_index() -> int:
    """An Indexed Job tells its pods their number."""
    text = os.environ.get("JOB_COMPLETION_INDEX", "")
    return int(text) if text.isdigit() else 0


def _dashed(argv: list[str]) -> list[str]:
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


_SWITCHES = ("--module", "--no-python", "--no_python", "--help")


def run_as_program(argv: Sequence[str]) -> int:
    """:func:`main`, with errors told as people read them."""
    try:
        return main(argv)
    except TorchnetError as error:
        sys.stderr.write(f"torchnet: {error}\n")
        return error.exit_code
