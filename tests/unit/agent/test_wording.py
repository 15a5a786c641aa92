"""Each failure that an agent reports, once; the words are in tests/golden/agent-failures.txt."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import cast

from tests import golden
from tests.unit.agents import spec, table
from torchnet.agent import failures
from torchnet.agent.events import Failure
from torchnet.agent.failure_cause import explain_end
from torchnet.agent.rank_process import Process
from torchnet.agent.stop_signals import interrupted
from torchnet.errors import RefusedError
from torchnet.hosts.host_endpoint import PORT_FIX
from torchnet.network.peer_table import PeerRow

ROW: PeerRow = table().rows[1]
ERROR = OSError(98, "Address already in use")
PATH = "node-0 net1 to node-1 (fd00::1): no route; fix: ip route replace fd00::1 dev net1 src fd00::"

FAILURES = {
    "own_error": failures.own_error("node-1", RefusedError("node-1: no interface net1", fix="ip link")),
    "network": failures.network("node-0", PATH),
    "address_taken": failures.address_taken("run-1", "run-1: another machine has fd00::1"),
    "port_unavailable": failures.port_unavailable("node-0", 29499, ERROR),
    "port_unavailable (host)": failures.port_unavailable("run-0", 29499, ERROR, host="node1"),
    "port_unavailable (hosts)": failures.port_unavailable("host-a", 29499, ERROR, fix=PORT_FIX),
    "port_unavailable (other)": failures.port_unavailable("run-0", 29499, OSError(13, "Permission denied")),
    "rejected": failures.rejected("node-1", "node rank 1 is taken by node-9 (fd00::9)", "node-1"),
    "join_timeout": failures.join_timeout("node-1", " at rank0.example:29500", 30.0, "Connection refused"),
    "start_timeout": failures.start_timeout([0, 2], 4, 20.0, 3),
    "start_timeout (hosts)": failures.start_timeout([0], 3, 20.0, 0, names={1: "b"}, hosts=("c",)),
    "start_timeout (many)": failures.start_timeout([0], 20, 20.0, 0),
    "preflight_failed": failures.preflight_failed("node-0", [PATH] * 6),
    "preflight_failed (causes)": failures.preflight_failed("node-0", [PATH] * 3, ["node1 has no route"] * 6),
    "state_not_saved": failures.state_not_saved("run-1", "/torchnet", OSError(28, "No space left on device")),
    "command_not_executable": failures.command_not_executable(
        "node-1", "train", OSError(13, "Permission denied")
    ),
    "worker_left": failures.worker_left(ROW),
    "worker_left (invalid)": failures.worker_left(
        ROW, "PreflightResult.round is -1, not an integer from 0 to 9"
    ),
    "worker_silent": failures.worker_silent(ROW, "fd00::1", 13.4, 13.0),
    "rank0_isolated": failures.rank0_isolated(table().rows[0], "net1", 7, 13.0),
    "workers_not_stopped": failures.workers_not_stopped([ROW], 35.0),
    "rank0_left": failures.rank0_left("node-0", "node-1"),
    "rank0_silent": failures.rank0_silent("node-1", "node-0 (fd00::)", "net1", 13.4),
    "rail_lost": failures.rail_lost("node-1", "net1 (fd00::1) lost its carrier for more than 5 s"),
    "stalled": failures.stalled("stalled: the workers exchanged almost no data for 300 s\nmore"),
    "interrupted": interrupted(15),
}


def ended(
    code: int, number: int = 0, cause: str = "", tail: tuple[str, ...] = (), rank0_ended: bool | None = None
) -> Failure:
    process = SimpleNamespace(
        code=code, signal=number, rank=3, ended_at=1.0, cause=lambda: cause, tail=lambda: list(tail)
    )
    return explain_end(cast(Process, process), spec(1), rank0_ended=rank0_ended)


PROCESSES = {
    "exit code": ended(7),
    "error file": ended(1, cause="ValueError: bad"),
    "SIGKILL": ended(137, 9),
    "SIGBUS": ended(135, 7),
    "store": ended(1, tail=("torch.distributed.DistNetworkError: Failed to recv, got 0 bytes",)),
    "store (rank 0 elsewhere)": ended(1, tail=("DistNetworkError: Broken pipe",)),
    "store (rank 0 elsewhere, wait)": ended(1, tail=("DistStoreError: wait timeout after 3000ms, keys: /a",)),
    "store (rank 0 ended)": ended(1, tail=("DistNetworkError: Broken pipe",), rank0_ended=True),
    "store (rank 0 runs)": ended(1, tail=("DistNetworkError: Broken pipe",), rank0_ended=False),
    "store (nobody has made it)": ended(
        1,
        tail=(
            "DistNetworkError: The client socket has timed out after 3000ms while trying to connect to (::1, 1).",
        ),
        rank0_ended=False,
    ),
    "unbracketed": ended(1, tail=("Port could not be cast to integer value as '0:800::1:29500'",)),
}


def test_every_failure_has_its_words_in_the_golden_file() -> None:
    functions = {
        name for name, value in vars(failures).items() if inspect.isfunction(value) and name[0] != "_"
    }
    assert {name.partition(" ")[0] for name in FAILURES} == functions - {"counted", "listed"} | {
        "interrupted"
    }
    lines = [shown(name, failure) for name, failure in [*FAILURES.items(), *PROCESSES.items()]]
    golden.check("agent-failures.txt", "\n".join(lines))


def shown(name: str, failure: Failure) -> str:
    assert failure.code in range(1, 256)
    return f"{name}: {failure.kind}, exit code {failure.code}\n    " + failure.text.replace("\n", "\n    ")
