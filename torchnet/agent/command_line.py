"""``torchnet agent``: the flags and the entry point of one worker, started by hand or by a pod's command.

It needs only the standard library and pyroute2, so it also runs from the zip: ``python3 torchnet.zip agent …``.
``torchnet env`` takes the same flags.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from torchnet import constants
from torchnet.agent import agent
from torchnet.agent.events import Failure
from torchnet.agent.handover import Handover, HandoverSource
from torchnet.agent.log_reporter import LogReporter
from torchnet.agent.spec import AgentSpec
from torchnet.agent.termination_log import TeeReporter, TerminationLog
from torchnet.errors import NetworkError, TorchnetError, UsageError
from torchnet.network.address_sources import (
    AddressSource,
    HostInterfaces,
    MultusStatus,
    StaticAddresses,
    parse_source,
)
from torchnet.network.peer_table import NAME
from torchnet.text import printable

# The minimum, which is also the default, and the environment variables to read.
_NUMBERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "nnodes": (1, ("TORCHNET_NNODES",)),
    "node_rank": (0, ("TORCHNET_NODE_RANK", "JOB_COMPLETION_INDEX")),
    "nproc_per_node": (1, ("TORCHNET_NPROC_PER_NODE",)),
}
_SWITCHES = ("--module", "--no-python", "--no_python", "--measure", "--help")


def parse(argv: Sequence[str], prog: str = "torchnet agent", about: str = "") -> argparse.Namespace:
    """Parse the flags; ``command`` holds what follows them. Like argparse, exit with 2 if a flag is invalid.

    Raises:
        UsageError: a number in the environment is invalid.
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
    _parse_run(made)
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
        default=os.environ.get(constants.START_VARIABLE, ""),
        help="which start of the whole job this is, where something restarts it [%(default)s]",
    )
    add(
        "--replaced",
        default=os.environ.get(constants.REPLACED_VARIABLE),
        metavar="N",
        help="prepare may end with 75 where the pod's address is taken, and another pod comes; N have come already",
    )


def _parse_run(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--max-restarts", type=int, default=0)
    add("--grace", type=float, default=constants.GRACE_SECONDS, metavar="SECONDS")
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
    """Rewrite ``--node_rank`` as ``--node-rank``; the script and its arguments stay unchanged."""
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
    """Return the first variable that is set, else ``least``. A typing error must not start a different job."""
    for variable in variables:
        if text := os.environ.get(variable):
            if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
                raise UsageError(
                    f"{variable}={text!r} is no number of at least {least}", fix=f"unset {variable}"
                )
            return int(text)
    return least


_STATUS_LIMIT = 2 << 20  # bytes; the parser rejects more than half of it, with its own message


def main(argv: Sequence[str]) -> int:
    """Run one worker to completion and return its exit code.

    Raises:
        TorchnetError: the worker cannot run.
    """
    options = parse(argv)
    spec = spec_of(options)
    termination = TerminationLog(spec, options.termination_log)
    try:
        return _run(options, spec, termination)
    except TorchnetError as error:
        kind = "usage" if isinstance(error, UsageError) else "network"
        failure = Failure(kind, str(error), error.exit_code, node=spec.name, at=time.time())  # type: ignore[arg-type]
        termination.send(failure.event())
        raise


def _run(options: argparse.Namespace, spec: AgentSpec, termination: TerminationLog) -> int:
    if not options.command and spec.phase != "prepare":
        raise UsageError("no script is named", fix="torchnet agent [FLAGS] SCRIPT [ARGS]...")
    if spec.phase != "all" and not spec.state:
        raise UsageError(f"--phase {spec.phase} needs a folder for the state", fix="--state DIR")
    _workdir(options)
    state = Handover.read(spec.state) if spec.phase == "work" else None
    if state is not None:
        spec = _as_prepared(spec, state)
    source = source_of(options, spec) if state is None else HandoverSource(state)
    return agent.run(
        spec,
        source,
        lambda _loop, _worker: TeeReporter(LogReporter(), termination),
        state.table if state is not None else None,
    )


def spec_of(options: argparse.Namespace, *, joins: bool = True) -> AgentSpec:
    """Build the specification from the flags and the environment; ``joins`` requires a token and valid names.

    Raises:
        UsageError: a flag or variable is invalid or missing.
    """
    if not 0 <= options.node_rank < options.nnodes:
        raise UsageError(
            f"--node-rank {options.node_rank} is not within 0 … {options.nnodes - 1}",
            fix="--nnodes (TORCHNET_NNODES) and --node-rank (TORCHNET_NODE_RANK, JOB_COMPLETION_INDEX)",
        )
    in_phases = options.phase != "all"
    name = options.name or (f"{options.run_id}-{options.node_rank}" if in_phases else socket.gethostname())
    for flag, text in (("--run-id (TORCHNET_RUN_ID)", options.run_id), ("--name", name)) if joins else ():
        if not NAME.fullmatch(text):
            raise UsageError(
                f'{flag} "{printable(text, 80)}" is no name',
                fix=f"{flag} of letters, digits, ., _ and -, at most 253, not with . or - at an end",
            )
    return AgentSpec(
        run_id=options.run_id,
        nnodes=options.nnodes,
        node_rank=options.node_rank,
        nproc_per_node=options.nproc_per_node,
        command=tuple(options.command),
        token=_token(options.nnodes) if joins else "",
        python=sys.executable,
        name=name,
        entry="module" if options.module else "program" if options.no_python else "script",
        network=parse_source(options.address_source).kind,
        runtime="kubernetes" if in_phases else "agent",
        attachments=tuple(options.attachment),
        uid=os.environ.get("POD_UID", ""),
        replaced=_replaced(options.replaced),
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
                "measure",
                "stdin_rank",
                "phase",
                "state",
                "start",
            )
        },
    )


def source_of(options: argparse.Namespace, spec: AgentSpec) -> AddressSource:
    """Return the address source that the flags select.

    Raises:
        TorchnetError: the flags or the environment are unusable.
    """
    rank0 = tuple(filter(None, options.rank0.split(",")))
    kind = parse_source(options.address_source).kind
    if kind != "multus-status" and not rank0 and spec.node_rank:
        raise UsageError("nobody says where rank 0 is", fix="--rank0 ADDRESS")
    if kind == "host":
        return HostInterfaces(options.address_source, rank0)
    if kind == "static":
        return StaticAddresses(options.address_source, rank0, spec.attachments)
    if not options.status_file:
        return _by_api(spec, options.rank0_labels)
    other = options.rank0_status_file or (options.status_file if not spec.node_rank else None)
    if other is None:
        raise UsageError("multus-status needs rank 0's network-status", fix="--rank0-status-file FILE")
    attachments = spec.attachments or None
    return MultusStatus(_read(options.status_file), lambda: _read(other), attachments, family=spec.family)


def _by_api(spec: AgentSpec, rank0_labels: str) -> AddressSource:
    """Read addresses through the API. Imports are local: few workers need http and ssl (0.03 s)."""
    from torchnet.agent.discovery import sure_attachments
    from torchnet.agent.kube_api import ApiServer
    from torchnet.agent.pod_address_source import Own, PodSource
    from torchnet.linux import rtnetlink

    def address() -> str:
        try:
            present = rtnetlink.interfaces()
        except OSError as error:
            text = f"the kernel does not tell this pod's interfaces: {error.strerror or error}"
            raise NetworkError(
                text, fix="POD_NAME says which pod this is: a fieldRef to metadata.name"
            ) from None
        found = present["eth0"].addresses if "eth0" in present else ()
        return next((a.ip for a in found if a.scope == "global"), "")

    api = ApiServer.from_pod(os.environ)
    environ = os.environ
    own = Own(
        namespace=environ.get("POD_NAMESPACE") or api.namespace(),
        name=environ.get("POD_NAME", ""),
        hostname=environ.get("HOSTNAME", ""),
        address=address,
        # The other workers rely on rank 0's network-status, so rank 0 always compares it with the kernel.
        seen=lambda: sure_attachments(spec) if spec.node_rank else None,
        rank0=rank0_labels,
    )
    return PodSource(api, own, spec.attachments, family=spec.family)


def _workdir(options: argparse.Namespace) -> None:
    if options.code and options.phase != "work":
        from torchnet.agent.code_extraction import unpack

        unpack(options.code, options.workdir or ".")
    if options.workdir and options.phase != "prepare":
        try:
            os.chdir(options.workdir)
        except OSError as error:
            raise UsageError(f"--workdir {options.workdir}: {error.strerror}") from None


def _as_prepared(spec: AgentSpec, state: Handover) -> AgentSpec:
    """Complete the training container's specification.

    Raises:
        UsageError: the state belongs to another worker.
    """
    told, kept = ((s.run_id, s.node_rank, s.nnodes, s.start) for s in (spec, state))
    if told != kept:
        names = ("--run-id", "--node-rank", "--nnodes", "--start")
        wrong = [f"{n} {k} there, {t} here" for n, t, k in zip(names, told, kept, strict=True) if t != k]
        raise UsageError(
            f"the state in {spec.state} is another worker's: {', '.join(wrong)}",
            fix="give both containers the same flags",
        )
    return replace(spec, uid=state.uid)


def _token(nnodes: int) -> str:
    """Return the job's token from the environment, which keeps it out of process lists."""
    token = os.environ.pop("TORCHNET_TOKEN", "")
    file = os.environ.get(constants.TOKEN_VARIABLE, "")
    if not token and file:
        token = _read(file).strip()
    if not token and nnodes > 1:
        raise UsageError(
            "the workers need one secret in common",
            fix="export TORCHNET_TOKEN=… (or TORCHNET_TOKEN_FILE=FILE) on all of them",
        )
    return token or secrets.token_hex(16)


def _replaced(text: str | None) -> int | None:
    """Parse an annotation's value; it is empty until a pod has been replaced."""
    if text is None:
        return None
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(
            f'--replaced (TORCHNET_REPLACED) "{printable(text, 80)}" is no number', fix="0, or leave it out"
        )
    return int(text or 0)


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(_STATUS_LIMIT)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", fix="is the volume mounted there?") from error
