"""``python3 torchnet.zip agent …``: the commands of what travels to the workers, without what the launcher needs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torchnet import __version__
from torchnet.errors import TorchnetError

_USAGE = (
    "usage: torchnet.zip agent [FLAGS] SCRIPT [ARGS]... | torchnet.zip env [FLAGS] | torchnet.zip --version\n"
)


def main(argv: Sequence[str]) -> int:
    """Run a command; its exit code. Errors of torchnet's are told as people read them."""
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    try:
        if command == "agent":
            from torchnet.agent.command import main as agent

            return agent(rest)
        if command == "env":
            from torchnet.agent.exports import main as env

            return env(rest)
    except TorchnetError as error:
        sys.stderr.write(f"torchnet: {error}\n")
        return error.exit_code
    if command == "--version":
        sys.stdout.write(f"torchnet {__version__}\n")
        return 0
    sys.stderr.write(_USAGE)
    return 2
