"""This host's part of a job on several hosts: the agent, in this process, and its console.

endpoint ── backend ── node rank (of the line, the endpoint's host, or from rank 0) ── agent ── receipt on node 0
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from torchnet import constants
from torchnet.agent import agent, failures, rdma
from torchnet.agent.event_loop import EventLoop
from torchnet.agent.events import Failure
from torchnet.agent.host_registration import HostRequest, Registration
from torchnet.agent.spec import AgentSpec
from torchnet.agent.stop_signals import handled
from torchnet.config.agent_spec import agent_spec
from torchnet.config.job_spec import JobSpec
from torchnet.console.console import Console, Listener
from torchnet.console.files import problem, write_json
from torchnet.constants import ONE_NETWORK
from torchnet.errors import NetworkError, UsageError
from torchnet.hosts import backend
from torchnet.hosts.backend import ChosenBackend
from torchnet.hosts.console_reporter import ConsoleReporter
from torchnet.hosts.host_endpoint import HostEndpoint
from torchnet.hosts.registration import StartTimeoutError, register
from torchnet.launcher import error_file, gpus, output_choice
from torchnet.launcher.console_feed import STOPPED_SECONDS, patience
from torchnet.launcher.loopback_source import LoopbackSource
from torchnet.launcher.run_name import run_name
from torchnet.network.address_sources import AddressSource, HostInterfaces
from torchnet.network.interface_selection import Family
from torchnet.network.peer_table import NAME
from torchnet.signals import on_main_thread
from torchnet.text import listed, printable

# Without a token every host that reaches the port can join, as with torchrun.
_OPEN_TOKEN = "torchnet: the rendezvous is open"
_TELL_SECONDS = 5.0
OPEN = (
    "TORCHNET_TOKEN is not set: whoever reaches the rendezvous's port before the start can join this job, as with "
    "torchrun"
)


@dataclass(frozen=True)
class _Part:
    """This host's part: its agent's specification and addresses."""

    spec: AgentSpec
    source: AddressSource
    endpoint: HostEndpoint
    backend: ChosenBackend | None
    open: bool


def processes(job: JobSpec) -> int:
    """Return the number of processes on this host.

    Raises:
        UsageError: --nproc-per-node is gpu, and the host has none.
    """
    if isinstance(job.nproc_per_node, int):
        return job.nproc_per_node  # as with torchrun, several may share a GPU
    cpus = len(os.sched_getaffinity(0))
    return gpus.share(1, job.nproc_per_node, gpus.visible({**os.environ, **job.env}), cpus).nproc


def run(job: JobSpec, listener: Listener | None) -> int:
    """Run this host's part to the job's end, print its output, on node 0 write the receipt; return the exit code.

    Raises:
        TorchnetError: This host cannot take part.
    """
    nproc = processes(job)
    common = agent_spec(job, job.run_id or run_name(job.script, secrets.token_hex(3)), nproc, job.script, ())
    (common,) = output_choice.with_log_dir([common])
    console = output_choice.console_of(job.output, common, listener)
    try:
        part = _part(job, common, console)
    except BaseException:
        console.close(STOPPED_SECONDS)
        raise
    began = time.time()
    reporters: list[ConsoleReporter] = []

    def reporter(loop: EventLoop, worker: Any) -> ConsoleReporter:
        reporters.append(ConsoleReporter(loop, console, first=not part.spec.node_rank))
        if job.run.timeout:
            text = f"the job ran longer than --timeout {job.run.timeout:g} s"
            loop.later(
                job.run.timeout,
                lambda: worker().interrupt(Failure("timeout", text, 124, at=time.time())),
            )
        return reporters[0]

    try:
        code = agent.run(part.spec, part.source, reporter, frontend=part.endpoint)
    finally:
        part.endpoint.close()
        # The agent's handlers do nothing any more. Ctrl-C must not prevent the receipt; these two may.
        for number in (signal.SIGTERM, signal.SIGQUIT):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
    return _end(job, part, console, reporters[0], code, began)


def _part(job: JobSpec, common: AgentSpec, console: Console) -> _Part:
    line = job.host_line
    assert line is not None
    endpoint = HostEndpoint(line.host, line.port)
    # Whoever names a network means several hosts, even if node 0's line has the address of its own machine.
    alone = endpoint.on_loopback and not job.network.host_networks
    own = endpoint.is_own()
    endpoint = replace(endpoint, alone=alone)
    token, is_open = take_token(os.environ)
    chosen = None if alone else backend.choose(job, endpoint, {**os.environ, **job.env})
    _check_devices(job)
    rank = line.node_rank
    if rank == 0 and not own:
        console.notice(
            f"this is node rank 0, but {printable(line.host, 80)} is no address of this host, and the others look for "
            "node rank 0 there",
            "warning",
        )
    taken: OSError | None = None
    if rank is None and own:
        try:
            rank, endpoint = 0, endpoint.opened()
        except OSError as error:
            taken = error
    name = own_name()
    nproc = common.nproc_per_node
    spec = replace(
        common,
        network="loopback" if alone else "host",
        loopback=alone,
        family="auto" if alone else job.network.family,
        node_rank=rank or 0,
        name=name,
        token=token,
        python=os.environ.get("PYTHON_EXEC") or sys.executable,  # torchrun's variable
        uid=secrets.token_hex(8),
        host_names=line.names,
    )
    if rank != 0:
        request = HostRequest(
            uid=spec.uid,
            name=spec.name,
            nnodes=job.nnodes,
            nproc_per_node=nproc,
            node_rank=rank,
            wished=line.wished,
            run_id=job.run_id or "",
            one_network=chosen is not None and chosen.only_network,
        )
        began = time.monotonic()
        signals = handled(spec.signals) if on_main_thread() else ()

        def ask(request: HostRequest, seconds: float) -> Registration:
            def notice(text: str) -> None:
                console.notice(text, "warning")

            return register(endpoint, token, request, seconds, notice, signals, taken)

        answer = ask(request, job.run.start_timeout)
        spec = replace(
            spec,
            node_rank=answer.node_rank,
            name=answer.name,
            run_id=answer.run_id,
            start_timeout=max(1.0, job.run.start_timeout - (time.monotonic() - began)),
        )
        if chosen is not None:
            try:
                chosen = _fit(chosen, answer, job.network.family, endpoint)
            except NetworkError as error:
                # Node 0 ends the job, instead of waiting for this host.
                problem = replace(request, problem="; fix: ".join(filter(None, (error.text, error.fix))))
                with contextlib.suppress(NetworkError, StartTimeoutError):
                    ask(problem, _TELL_SECONDS)
                raise
    if alone:
        # All nodes are on this machine, which torchrun's users do to try a line: each needs an address of its own.
        block = 1 + line.port % 254
        spec = replace(spec, hostid=f"{spec.run_id}-{spec.node_rank}")
        source: AddressSource = LoopbackSource(spec.node_rank, block)
    else:
        assert chosen is not None
        source = HostInterfaces(chosen.source, (), chosen.networks)
    part = _Part(spec, source, endpoint, chosen, is_open)
    _show_notes(job, part, console)
    return part


def _fit(
    chosen: ChosenBackend, answer: Registration, family: Family, endpoint: HostEndpoint
) -> ChosenBackend:
    """Return this host's rails as node 0's require them.

    Raises:
        NetworkError: This host cannot take part with them.
    """
    chosen = backend.follow(chosen, answer.networks, answer.interfaces, family, answer.name)
    try:
        backend.check_port(chosen, constants.JOIN_PORT)
    except OSError as error:
        why = failures.port_unavailable(
            answer.name, constants.JOIN_PORT, error, fix=endpoint.port_fix(constants.JOIN_PORT)
        )
        text, _, fix = why.text.partition("; fix: ")
        raise NetworkError(text, fix=fix) from None
    return chosen


def _check_devices(job: JobSpec) -> None:
    """Check the RDMA devices of ``--network rdma:``.

    Raises:
        NetworkError: This user cannot open them.
    """
    wanted = [one.name for one in job.network.host_networks if one.kind == "rdma"]
    available = rdma.devices() if wanted else []
    missing = [name for name in wanted if name not in available]
    if missing:
        raise NetworkError(
            f"RDMA devices {listed(missing, 8)} cannot be opened here; available: {listed(available, 8) or 'none'}",
            fix="ls /sys/class/infiniband /dev/infiniband",
        )


def take_token(environ: MutableMapping[str, str]) -> tuple[str, bool]:
    """Return the job's token, and whether the rendezvous is open. The ranks do not get the token.

    Raises:
        UsageError: The token's file cannot be read.
    """
    token, file = environ.pop("TORCHNET_TOKEN", ""), environ.pop(constants.TOKEN_VARIABLE, "")
    if not token and file:
        try:
            with open(file) as opened:
                token = opened.read(1 << 16).strip()
        except OSError as error:
            raise UsageError(f"{constants.TOKEN_VARIABLE}={printable(file, 200)}: {error.strerror}") from None
    return token or _OPEN_TOKEN, not token


def own_name() -> str:
    """Return the host's name as the other hosts' files may hold it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip(".-")[:200]
    return name if NAME.fullmatch(name) else "host"


def _show_notes(job: JobSpec, part: _Part, console: Console) -> None:
    spec, line = part.spec, job.host_line
    assert line is not None
    first = spec.node_rank == 0
    count = f"{spec.nproc_per_node} process{'es' if spec.nproc_per_node > 1 else ''}"
    node = f"node {spec.node_rank} of {spec.nnodes} ({spec.name}), {count}"
    if first and job.output.json_path and (unwritable := problem(job.output.json_path)):
        text = f"--json {job.output.json_path}: {unwritable}; the receipt will go to standard output"
        console.notice(text, "warning")
    if spec.loopback:
        text = f"{line.endpoint} means each machine itself, so all {spec.nnodes} nodes run on this one, on "
        console.notice(f"{node}: {text}loopback: nothing is proved")
    elif part.backend is not None:
        over = listed(
            [
                f"{name} ({part.backend.networks.get(name) or 'no address'})"
                for name in part.backend.interfaces
            ],
            8,
        )
        why = f", {part.backend.why}" if part.backend.why else ""
        console.notice(f"{node}: backend {over}{why}; rendezvous at {line.endpoint}")
    if first and part.open and not spec.loopback:
        console.notice(OPEN, "warning")


def _end(
    job: JobSpec, part: _Part, console: Console, reporter: ConsoleReporter, code: int, began: float
) -> int:
    failed, spec = reporter.failure, part.spec
    if failed is not None:
        error = reporter.error_files.get(failed.get("rank"), "")
        error_file.report(console, os.environ, error, int(failed["code"]))
    if spec.node_rank:
        console.close(patience(failed))
        return code
    receipt = reporter.receipt or _own_receipt(part, reporter, code, began)
    own_network = part.backend is not None and part.backend.only_network
    receipt = completed(
        receipt,
        is_open=part.open and not spec.loopback,
        one_network=own_network and reporter.others_have_one_network,
    )
    if job.output.measure:
        # Imported here, because loading the receipt's pydantic model takes time.
        from torchnet.receipt.step_timing import summarize_samples

        receipt = summarize_samples(receipt, None, requested=True)
    console.event({"event": "receipt", "receipt": receipt})
    console.close(patience(failed))
    if job.output.json_path:
        write_json(job.output.json_path, receipt)
    return int(receipt["exit_code"])


def _own_receipt(part: _Part, reporter: ConsoleReporter, code: int, began: float) -> dict[str, Any]:
    """Return a receipt of this host alone: the coordinator, which makes the job's, was stopped before."""
    from torchnet.agent import receipt

    failure = (
        Failure.read(reporter.failure)
        if reporter.failure
        else Failure("internal", "the job ended without a receipt", code or 70, at=time.time())
    )
    return receipt.job(
        spec=part.spec,
        receipts=[reporter.worker_receipt] if reporter.worker_receipt else [],
        attachments=(),
        failure=failure,
        began=began,
        restarts=0,
    )


def completed(receipt: dict[str, Any], *, is_open: bool, one_network: bool) -> dict[str, Any]:
    """Add what only the launcher knows.

    Args:
        is_open: Whether the rendezvous was open.
        one_network: Whether no host has a network besides the backend.
    """
    if is_open:
        receipt = {**receipt, "findings": [*receipt["findings"], OPEN]}
    if one_network and receipt["proof"] == "measured" and receipt["backend_share_high"] == 1:
        receipt = {**receipt, "proof_reason": ONE_NETWORK}
    return receipt
