"""``torchnet agent``: the flags and the entry point of one worker, started by hand or by a pod's command.

It needs only the standard library, so it also runs from the zip: ``python3 torchnet.zip agent …``.
``torchnet env`` takes the same flags.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import Field, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torchnet import constants
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure, Reporter
from torchnet.agent.handover import Handover
from torchnet.agent.log_reporter import LogReporter
from torchnet.agent.source_selection import (
    address_source,
    frontend_of,
    host_parts,
    prepared_source,
    read,
    source_of,
)
from torchnet.agent.spec import FLAGS, OWN, AgentSpec, flag_of
from torchnet.agent.termination_log import TeeReporter, TerminationLog
from torchnet.errors import NetworkError, TorchnetError, UsageError
from torchnet.network.address_sources import parse_source
from torchnet.network.attachment import NetworkAttachment
from torchnet.network.host_networks import HostNetwork, parse_host_network
from torchnet.network.peer_table import NAME
from torchnet.text import listed, printable


def parse(argv: Sequence[str], prog: str = "torchnet agent", about: str = "") -> argparse.Namespace:
    """Parse the flags; ``command`` holds what follows them. Like argparse, exit with 2 if a flag is invalid.

    Fields of `AgentSpec` without a flag get the value of the document (``--spec``), else of the environment, else their
    default.

    Raises:
        UsageError: the document, or a number in the environment, is invalid.
    """
    options = parser(prog, about).parse_args(dashed(list(argv)))
    options.document = _document(options.spec) if options.spec else None
    for one in FLAGS:
        if getattr(options, one.name) is None:
            from_document = options.document is not None and one.name not in OWN
            value = getattr(options.document, one.name) if from_document else _from_environment(one)
            setattr(options, one.name, value)
    options.network = [network for networks in options.network for network in networks]
    if options.address_source and any(one.kind == "host" for one in options.network):
        raise UsageError("--network host: and --address-source exclude each other", fix="omit one of them")
    return options


def parser(prog: str, about: str = "") -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=prog,
        description=about
        or "Run one worker of a job: discover the network, join the job, check the paths, run the script.",
        allow_abbrev=False,
    )
    types = get_type_hints(AgentSpec)
    for one in FLAGS:
        default = _default(one)
        shown = f" [{default}]" if default not in (None, "", (), False) else ""
        made.add_argument(
            flag_of(one), dest=one.name, help=one.metadata["help"] + shown, **_how(one, types[one.name])
        )
    kind = made.add_mutually_exclusive_group()
    kind.add_argument(
        "-m",
        "--module",
        dest="entry",
        action="store_const",
        const="module",
        help="run SCRIPT as a Python module",
    )
    kind.add_argument(
        "--no-python",
        dest="entry",
        action="store_const",
        const="program",
        help="run SCRIPT directly, without the Python interpreter",
    )
    _addresses(made)
    _container(made)
    made.add_argument("command", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGS]...")
    return made


def _how(one: Field[Any], kind: Any) -> dict[str, Any]:
    """Return argparse's arguments for a field of the type ``kind``; a flag that is not given is None."""
    if one.name == "attachments":
        return {"action": "append", "type": NetworkAttachment.parse, "metavar": one.metadata["metavar"]}
    if one.name == "replaced":  # may be an annotation's value: _replaced
        return {"metavar": one.metadata["metavar"]}
    if kind is bool:
        return {"action": "store_true", "default": None}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    parse = next((number for number in (int, float) if number in (kind, *get_args(kind))), str)
    return {
        "type": _count if one.metadata.get("least") == 1 else parse,
        "metavar": one.metadata.get("metavar"),
    }


def _addresses(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add(
        "--network",
        action="append",
        default=[],
        type=_host_networks,
        metavar="NETWORK",
        help="backend network that this host has itself, instead of --address-source: host:INTERFACE,…, "
        "host:NETWORK/LENGTH,… or rdma:DEVICE,…; repeatable",
    )
    add(
        "--address-source",
        metavar="SOURCE",
        help="multus-status, host:IFNAME,… or static:net1=ADDRESS/LEN,… [TORCHNET_ADDRESS_SOURCE, else multus-status]",
    )
    add(
        "--status-file",
        metavar="FILE",
        help="with multus-status: read this pod's network-status from a file instead of the API",
    )
    add("--rank0-status-file", metavar="FILE", help="the same for rank 0; read again at each attempt")
    add(
        "--rank0",
        default=os.environ.get("TORCHNET_RANK0", ""),
        metavar="ADDRESS,…",
        help="address of rank 0 on each rail [TORCHNET_RANK0]",
    )
    add(
        "--status-dir",
        default="",
        metavar="DIR",
        help="with multus-status: directory with this pod's annotations in the files network-status and networks, by "
        "a volume of the downward API",
    )
    add(
        "--rank0-names",
        default="",
        metavar="NAME,…",
        help="join at the address of rank 0's pod on the primary network: names of rank 0 in the domain of the "
        "namespace's Services; a Service must publish not ready addresses",
    )
    add(
        "--rank0-labels",
        default="",
        metavar="KEY=VALUE,…",
        help="labels of rank 0's pod, to ask the API for it; with multus-status [derived from the labels of this pod]",
    )


def _container(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add(
        "--spec",
        default="",
        metavar="FILE",
        help="JSON file with the flags that are the same for all workers; flags override it",
    )
    add("--code", default="", metavar="FILE.zip", help="archive that prepare unpacks to --workdir")
    add("--workdir", default="", metavar="DIR", help="working directory of the script [.]")
    add(
        "--termination-log",
        metavar="PATH",
        help="file for the termination message, as JSON [/dev/termination-log if it exists]",
    )
    add(
        "--local-rank",
        type=int,
        default=0,
        metavar="RANK",
        help="for torchnet env: local rank of the process [%(default)s]",
    )


_SWITCHES = {"--module", "--no-python", "--help"} | {flag_of(one) for one in FLAGS if one.default is False}


def dashed(argv: list[str]) -> list[str]:
    """Rewrite ``--node_rank`` as ``--node-rank``; the script and its arguments stay unchanged."""
    result: list[str] = []
    takes_value = False
    for number, word in enumerate(argv):
        if not takes_value and not word.startswith("-"):
            return result + argv[number:]
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        takes_value = not takes_value and name.startswith("--") and not equals and name not in _SWITCHES
        result.append(name + equals + value if word.startswith("--") else word)
    return result


def _host_networks(text: str) -> list[HostNetwork]:
    try:
        return parse_host_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'"{printable(text, 80)}" {error}') from None


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _default(one: Field[Any]) -> Any:
    return one.metadata.get("by_hand", one.default)


def _from_environment(one: Field[Any]) -> Any:
    """Return the first variable that is set, else the default. A typing error must not start a different job."""
    least: int | None = one.metadata.get("least")
    for variable in one.metadata.get("variables", ()):
        text = os.environ.get(variable)
        if text is not None and least is None:
            return text
        if text and least is not None:
            if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
                raise UsageError(
                    f"{variable}={text!r} is not a number of at least {least}", fix=f"unset {variable}"
                )
            return int(text)
    return _default(one)


def _document(path: str) -> AgentSpec:
    try:
        return AgentSpec.loads(read(path))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"--spec {path} is not a specification for this version of torchnet: {error}",
            fix="torchnet launch --on kubernetes --dry-run shows an example",
        ) from None


def main(argv: Sequence[str]) -> int:
    """Run one worker to completion and return its exit code.

    Raises:
        TorchnetError: the worker cannot run.
    """
    options = parse(argv)
    spec = spec_of(options)
    termination = TerminationLog(spec, options.termination_log)
    try:
        _check_devices(spec)
        return _run(options, spec, termination)
    except TorchnetError as error:
        kind = "usage" if isinstance(error, UsageError) else "network"
        failure = Failure(kind, str(error), error.exit_code, node=spec.name, at=time.time())  # type: ignore[arg-type]
        termination.send(failure.event())
        raise


def _run(options: argparse.Namespace, spec: AgentSpec, termination: TerminationLog) -> int:
    if not spec.command and spec.phase != "prepare":
        raise UsageError("no script", fix="torchnet agent [FLAGS] SCRIPT [ARGS]...")
    if spec.phase != "all" and not spec.state:
        raise UsageError(f"--phase {spec.phase} requires --state", fix="--state DIR")
    _workdir(options)

    if spec.phase == "prepare":
        from torchnet.agent import preparation

        # There are no processes and no peers yet that a slow reader could hold up.
        log = TeeReporter(LogReporter(_write), termination)
        return preparation.run(spec, source_of(options, spec), lambda _loop: log)
    from torchnet.agent import agent
    from torchnet.agent.output_writer import StandardStreams

    def reporter(loop: EventLoop) -> Reporter:
        return TeeReporter(LogReporter(streams=StandardStreams(loop)), termination)

    state = Handover.read(spec.state) if spec.phase == "work" else None
    if state is not None:
        spec = _as_prepared(spec, state)
    frontend = frontend_of(options, spec)
    source = source_of(options, spec) if state is None else prepared_source(options, spec, state, frontend)
    return agent.run(spec, source, lambda loop, _worker: reporter(loop), frontend)


def _write(stream: str, text: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # without a reader, the text is lost
        getattr(sys, stream).write(text)
        getattr(sys, stream).flush()


def _check_devices(spec: AgentSpec) -> None:
    """Check the named RDMA devices, where the processes run; a device plugin gives them to that container alone.

    Raises:
        NetworkError: this worker's processes cannot open them.
    """
    if not spec.devices or spec.phase == "prepare":
        return
    from torchnet.agent import rdma  # no other start needs it by then

    available = rdma.devices()
    missing = [device for device in spec.devices if device not in available]
    if missing:
        raise NetworkError(
            f"{spec.name}: RDMA devices {listed(missing, 8)} cannot be opened here; available: "
            f"{listed(available, 8) or 'none'}",
            fix="ls /sys/class/infiniband /dev/infiniband; in a pod, request the device plugin's resource",
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
                f'{flag} "{printable(text, 80)}" is not a valid name',
                fix="use up to 253 letters, digits, ., _ and -, beginning and ending with a letter, a digit or _",
            )
    known: AgentSpec | None = options.document
    values = {**(vars(known) if known else {}), **{one.name: getattr(options, one.name) for one in FLAGS}}
    if host_parts(options):
        values["network"] = "host"
    elif known is None or options.address_source:
        values["network"] = parse_source(address_source(options)).kind
    values["devices"] = tuple(
        dict.fromkeys(
            (*values.get("devices", ()), *(one.name for one in options.network if one.kind == "rdma"))
        )
    )
    if known is None:
        values["runtime"] = "kubernetes" if in_phases else "agent"
    if options.command or known is None:
        values |= {"command": tuple(options.command), "entry": "script"}
    return AgentSpec(
        **{
            **values,
            "entry": options.entry or values["entry"],
            "name": name,
            "attachments": tuple(options.attachments),
            "token": _token(options.nnodes) if joins and options.phase != "prepare" else "",
            "python": sys.executable,
            "uid": os.environ.get("POD_UID", ""),
            "replaced": _replaced(options.replaced),
        }
    )


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
    given, saved = ((s.run_id, s.node_rank, s.nnodes, s.start) for s in (spec, state))
    if given != saved:
        names = ("--run-id", "--node-rank", "--nnodes", "--start")
        differences = [
            f"{n} {s} instead of {g}" for n, g, s in zip(names, given, saved, strict=True) if g != s
        ]
        raise UsageError(
            f"the state in {spec.state} belongs to another worker: {', '.join(differences)}",
            fix="give both containers the same flags",
        )
    return replace(spec, uid=state.uid)


def _token(nnodes: int) -> str:
    """Return the job's token from the environment, which keeps it out of process lists."""
    token = os.environ.pop("TORCHNET_TOKEN", "")
    file = os.environ.get(constants.TOKEN_VARIABLE, "")
    if not token and file:
        token = read(file).strip()
    if not token and nnodes > 1:
        raise UsageError(
            "the workers need a shared secret",
            fix="set the same TORCHNET_TOKEN (or TORCHNET_TOKEN_FILE=FILE) on all workers",
        )
    return token or os.urandom(16).hex()


def _replaced(text: str | None) -> int | None:
    """Parse an annotation's value; it is empty until a pod has been replaced."""
    if text is None:
        return None
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(
            f'--replaced (TORCHNET_REPLACED) "{printable(text, 80)}" is not a number',
            fix="use 0, or remove it",
        )
    return int(text or 0)
