"""``torchnet agent``: one worker of a job, started by hand or by a pod's own command.

It needs the standard library and pyroute2 alone, so it also runs from the zip: ``python3 torchnet.zip agent …``.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from torchnet import names
from torchnet.agent import flags
from torchnet.agent import main as agent
from torchnet.agent.log import TextReporter
from torchnet.agent.report import Failure
from torchnet.agent.spec import AgentSpec
from torchnet.agent.state import State, StateSource
from torchnet.agent.termination import Both, Termination
from torchnet.errors import NetworkError, TorchnetError, UsageError
from torchnet.network.sources import AddressSource, HostInterfaces, MultusStatus, parse_source
from torchnet.network.static import StaticAddresses
from torchnet.network.table import NAME
from torchnet.network.text import printable

_STATUS_LIMIT = 2 << 20  # the parser refuses more than half of it, in its own words


def main(argv: Sequence[str]) -> int:
    """Run one worker to its end; returns its exit code.

    Raises:
        TorchnetError: what was asked for cannot be, with its exit code.
    """
    options = flags.parse(argv)
    spec = spec_of(options)
    termination = Termination(spec, options.termination_log)
    try:
        return _run(options, spec, termination)
    except TorchnetError as error:
        kind = "usage" if isinstance(error, UsageError) else "network"
        failure = Failure(kind, str(error), error.exit_code, node=spec.name, at=time.time())  # type: ignore[arg-type]
        termination.send(failure.event())
        raise


def _run(options: argparse.Namespace, spec: AgentSpec, termination: Termination) -> int:
    if not options.command and spec.phase != "prepare":
        raise UsageError("no script is named", fix="torchnet agent [FLAGS] SCRIPT [ARGS]...")
    if spec.phase != "all" and not spec.state:
        raise UsageError(f"--phase {spec.phase} needs a folder for the state", fix="--state DIR")
    _workdir(options)
    state = State.read(spec.state) if spec.phase == "work" else None
    if state is not None:
        spec = _as_prepared(spec, state)
    source = source_of(options, spec) if state is None else StateSource(state)
    return agent.run(
        spec,
        source,
        lambda _loop, _worker: Both(TextReporter(), termination),
        state.table if state is not None else None,
    )


def spec_of(options: argparse.Namespace, *, joins: bool = True) -> AgentSpec:
    """What the flags and the environment say of this worker; a token is needed to join. Raises UsageError."""
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
    """Where the addresses come from. Raises TorchnetError."""
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
    """Only here, as few workers need http and ssl, which cost 0.03 s."""
    from torchnet.agent.api import ApiServer
    from torchnet.agent.discover import sure_attachments
    from torchnet.agent.pods import Own, PodSource
    from torchnet.kernel import links

    def address() -> str:
        try:
            present = links.interfaces()
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
        # Rank 0's own network-status is what the others go by: there the two are compared.
        seen=lambda: sure_attachments(spec) if spec.node_rank else None,
        rank0=rank0_labels,
    )
    return PodSource(api, own, spec.attachments, family=spec.family)


def _workdir(options: argparse.Namespace) -> None:
    if options.code and options.phase != "work":
        from torchnet.agent.unpack import unpack

        unpack(options.code, options.workdir or ".")
    if options.workdir and options.phase != "prepare":
        try:
            os.chdir(options.workdir)
        except OSError as error:
            raise UsageError(f"--workdir {options.workdir}: {error.strerror}") from None


def _as_prepared(spec: AgentSpec, state: State) -> AgentSpec:
    """The specification of the working container. Raises UsageError where the state is another worker's."""
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
    """The job's secret, from the environment, so that no process list shows it."""
    token = os.environ.pop("TORCHNET_TOKEN", "")
    file = os.environ.get(names.TOKEN_VARIABLE, "")
    if not token and file:
        token = _read(file).strip()
    if not token and nnodes > 1:
        raise UsageError(
            "the workers need one secret in common",
            fix="export TORCHNET_TOKEN=… (or TORCHNET_TOKEN_FILE=FILE) on all of them",
        )
    return token or secrets.token_hex(16)


def _replaced(text: str | None) -> int | None:
    """Of an annotation that a pod has only once another one was replaced."""
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
