"""``python3 torchnet.zip agent …``: the commands for workers, without the launcher's dependencies."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from torchnet.agent import bytecode_cache

_BYTECODE = "bytecode"  # below --state
_USAGE = (
    "usage: torchnet.zip agent [FLAGS] SCRIPT [ARGS]... | torchnet.zip env [FLAGS] | torchnet.zip --version\n"
)


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit code; print torchnet's errors without a traceback."""
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape what the encoding lacks
            stream.reconfigure(errors="backslashreplace")
    archive, state = sys.path[0], rest[rest.index("--state") + 1] if "--state" in rest[:-1] else ""
    cache = os.path.join(state, _BYTECODE) if state else ""
    if os.path.isfile(archive):
        bytecode_cache.install(archive, cache)
    code = _run(command, rest)
    if os.path.isfile(archive):
        bytecode_cache.save(archive, cache)
    return code


def _run(command: str, argv: Sequence[str]) -> int:
    from torchnet.errors import TorchnetError

    try:
        if command == "agent":
            from torchnet.agent.command_line import main as agent

            return agent(argv)
        if command == "env":
            from torchnet.agent.env_command import main as env

            return env(argv)
    except TorchnetError as error:
        sys.stderr.write(f"torchnet: {error}\n")
        return error.exit_code
    if command == "--version":
        sys.stdout.write(f"torchnet {sys.modules['torchnet'].__version__}\n")
        return 0
    sys.stderr.write(_USAGE)
    return 2
