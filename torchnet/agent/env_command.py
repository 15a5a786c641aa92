"""``eval "$(torchnet env)"``: set a worker's environment for another launcher.

It neither joins a job nor probes paths; the addresses come from the source and the kernel.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torchnet.agent import command_line, rdma_check
from torchnet.agent.command_line import spec_of
from torchnet.agent.discovery import discover
from torchnet.agent.process_env import ProcessEnvironment
from torchnet.agent.source_selection import frontend_of, source_of
from torchnet.agent.store_port import usual_port
from torchnet.errors import NotYetError, UsageError

_T = TypeVar("_T")
_ABOUT = 'Print the environment of one process of this worker, for: eval "$(torchnet env)"'
FAILS = "false\n"
"""Output after an error, so that ``eval`` fails too."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def main(argv: Sequence[str]) -> int:
    """Print ``export NAME='value'`` lines and return the exit code.

    Raises:
        TorchnetError: the environment cannot be determined.
    """
    try:
        return _main(argv)
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:  # --help exits with 0
            sys.stdout.write(FAILS)
            sys.stdout.flush()
        raise


def _main(argv: Sequence[str]) -> int:
    options = command_line.parse(argv, "torchnet env", _ABOUT)
    if options.command:
        raise UsageError(
            f"torchnet env does not run a command: {options.command[0]}",
            fix='eval "$(torchnet env)" && …',
        )
    if not 0 <= options.local_rank < options.nproc_per_node:
        last = options.nproc_per_node - 1
        raise UsageError(
            f"--local-rank {options.local_rank} is not within 0 … {last}", fix="--nproc-per-node"
        )
    spec = spec_of(options, joins=False)
    if options.rank0_names:
        raise UsageError("torchnet env does not join, so it cannot use --rank0-names", fix="--rank0 ADDRESS")
    source, frontend = source_of(options, spec), frontend_of(options, spec)
    deadline = time.monotonic() + spec.start_timeout
    rails = retry(lambda: discover(spec, source), deadline)
    own = rails[0].address
    rank0 = source.rank0 if frontend is None else lambda: [str(at[0]) for _, at in frontend.resolve()]
    master = own if spec.node_rank == 0 else retry(rank0, deadline)[0]
    environment = ProcessEnvironment(spec, master, rails, usual_port(spec.run_id), 0)
    unusable = rdma_check.check(spec, [(rail.interface, rail.address) for rail in rails])
    for warning in (*environment.warnings(), *unusable[0], *unusable[1]):
        sys.stderr.write(f"torchnet: {warning}\n")
    sys.stderr.write(
        "torchnet: this sets the environment only: torchnet env does not join the workers or check the paths\n"
    )
    # Write bytes: an encoding that lacks a character would change a value.
    sys.stdout.buffer.write(os.fsencode(lines(environment.given(options.local_rank))))
    sys.stdout.flush()
    return 0


def lines(variables: Mapping[str, str]) -> str:
    """Format variables for ``eval`` in a POSIX shell, whatever the values contain."""
    quoted = {name: value.replace("'", "'\\''") for name, value in variables.items() if _NAME.fullmatch(name)}
    return "".join(f"export {name}='{value}'\n" for name, value in quoted.items())


def retry(request: Callable[[], _T], deadline: float) -> _T:
    """Call ``request`` again while it raises NotYetError.

    Raises:
        TorchnetError: ``request`` failed, or the deadline would pass.
    """
    while True:
        try:
            return request()
        except NotYetError as error:
            if time.monotonic() + error.seconds > deadline:
                raise error.error from None
            time.sleep(error.seconds)
