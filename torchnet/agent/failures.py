"""The failures that an agent reports, each with its kind, its exit code and its text.

:mod:`torchnet.agent.failure_cause` describes the failure of a process.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence

from torchnet import constants
from torchnet.agent.events import Failure
from torchnet.errors import TorchnetError
from torchnet.network.peer_table import PeerRow
from torchnet.text import listed
from torchnet.units import counted

_SHOWN_PROBLEMS = 4
_SHOWN_RANKS = 8


# -- before the start ------------------------------------------------------------------------------------------------


def own_error(name: str, error: TorchnetError) -> Failure:
    """Describe an error of this worker's discovery or join."""
    return network(name, str(error), error.exit_code)


def network(name: str, text: str, code: int = 4) -> Failure:
    return Failure("network", text, code, node=name, at=time.time())


def address_taken(name: str, text: str) -> Failure:
    return network(name, f"{text}; the pod exits so that another pod replaces it", constants.REPLACE_CODE)


def port_unavailable(name: str, port: object, error: OSError, *, host: str = "", fix: str = "") -> Failure:
    """Describe a port that cannot be opened.

    Args:
        host: the cluster's node, if the pod is in its network.
        fix: what to do if it is in use.
    """
    text = f"{name}: the rendezvous cannot open port {port}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE and host:
        text += (
            f" on {host}. Runs with --network host: need this port until their processes start; fix: start again once "
            f"the run that `kubectl get pods -A -l {constants.RUN_LABEL} --field-selector spec.nodeName={host}` shows "
            "has started, or use other hosts (--node-selector)"
        )
    elif error.errno == errno.EADDRINUSE and fix:
        text += f"; {fix}"
    elif error.errno == errno.EADDRINUSE:
        number = str(port).rpartition(":")[2]
        text += f"; fix: ss -lntup 'sport = :{number}' on that host shows which program has it"
    return network(name, text)


def rejected(name: str, reason: str, node: str | None) -> Failure:
    """Describe a worker that rank 0 does not admit; ``node`` is its name if it is known."""
    return Failure("network", f"rank 0 rejected {name}: {reason}", 4, node=node, at=time.time())


def join_timeout(name: str, rank0: str, seconds: float, why: str, code: int = 124) -> Failure:
    text = f"{name} could not join rank 0{rank0} within {seconds:g} s: {why}"
    return Failure("timeout", text, code, node=name, at=time.time())


def start_timeout(
    joined: Sequence[int],
    nnodes: int,
    seconds: float,
    wrong_tokens: int,
    *,
    names: Mapping[int, str] | None = None,
    hosts: Sequence[str] = (),
) -> Failure:
    """Describe workers that have not joined.

    Args:
        names: By node rank, as far as they are known.
        hosts: Those whose node ranks are not known.
    """
    known = names or {}
    missing = [
        f"{rank} ({known[rank]})" if rank in known else str(rank)
        for rank in sorted(set(range(nnodes)).difference(joined))
    ]
    ranks = f"{', '.join(missing[:_SHOWN_RANKS])}{' …' if len(missing) > _SHOWN_RANKS else ''}"
    text = (
        f"timed out after {seconds:g} s: {len(joined)} of {nnodes} workers joined; missing: node rank {ranks}"
    )
    if hosts:
        text += f"; {listed(hosts, _SHOWN_RANKS)} did not come"
    if wrong_tokens:
        text += f"; {wrong_tokens} connections had a wrong token"
    return Failure("timeout", text, 124, at=time.time())


def preflight_failed(name: str, problems: Sequence[str], causes: Sequence[str] = ()) -> Failure:
    """Describe the faulty paths of a worker; ``causes`` are what all workers' views of their paths show."""
    shown = [*causes[:_SHOWN_PROBLEMS], *problems[: 1 if causes else _SHOWN_PROBLEMS]]
    if len(causes) > _SHOWN_PROBLEMS:
        shown.insert(_SHOWN_PROBLEMS, f"and {counted(len(causes) - _SHOWN_PROBLEMS, 'more cause')}")
    text = "preflight: " + "\n".join(shown)
    more = len(problems) - (1 if causes else _SHOWN_PROBLEMS)
    if more > 0:
        text += f"\nand {more} more paths from {name}"
    return network(name, text)


def state_not_saved(name: str, folder: str, error: OSError) -> Failure:
    text = f"{name}: the state cannot be written to {folder}: {error.strerror}"
    return Failure("internal", text, 70, node=name, at=time.time())


def command_not_executable(name: str, command: str, error: OSError) -> Failure:
    text = f"{name}: cannot execute {command}: {error.strerror}"
    return Failure("usage", text, 2, node=name, at=time.time())


# -- lost workers ----------------------------------------------------------------------------------------------------


def worker_left(row: PeerRow, problem: str = "") -> Failure:
    """Describe a worker whose connection ended, or that violated the protocol (``problem``)."""
    return Failure("lost", f"lost {_worker(row)}: {_end(problem)}", 70, node=row.name, at=time.time())


def worker_silent(row: PeerRow, address: str, silence: float, limit: float) -> Failure:
    """Describe a worker that sent nothing for ``silence`` seconds, more than the ``limit``."""
    text = f"lost {_worker(row)}: no message from {address} for {silence:.0f} s"
    return Failure("network", text, 4, node=row.name, at=time.time() - limit)


def rank0_isolated(row: PeerRow, interface: str, others: int, limit: float) -> Failure:
    """Describe rank 0 as cut off: all others are silent at once."""
    text = (
        f"{_worker(row)} is cut off: no message from any of the {others} other workers over {interface} for "
        f"{limit:.0f} s"
    )
    return Failure("network", text, 4, node=row.name, at=time.time() - limit)


def workers_not_stopped(rows: Sequence[PeerRow], seconds: float) -> Failure:
    """Describe workers that did not stop, which rules a restart out."""
    text = f"no restart: {listed([_worker(row) for row in rows])} did not stop within {seconds:g} s"
    return Failure("lost", text, 70, node=rows[0].name, at=time.time())


def rank0_left(rank0: str, name: str, problem: str = "") -> Failure:
    text = f"lost {rank0} (node rank 0): {_end(problem)} ({name} reports this)"
    return Failure("lost", text, 70, node=rank0, at=time.time())


def rank0_silent(name: str, rank0: str, interface: str, silence: float) -> Failure:
    text = f"{name}: no message from {rank0} over {interface} for {silence:.0f} s"
    return Failure("network", text, 4, node=name, at=time.time() - silence)


def _worker(row: PeerRow) -> str:
    return f"{row.name} (node rank {row.node_rank})"


def _end(problem: str) -> str:
    return f"its agent sent an invalid message: {problem}" if problem else "its agent's connection ended"


# -- while the job runs ----------------------------------------------------------------------------------------------


def rail_lost(name: str, text: str) -> Failure:
    return network(name, f"{name}: {text}")


def stalled(explanation: str) -> Failure:
    return Failure("timeout", explanation.partition("\n")[0], 124, at=time.time())
