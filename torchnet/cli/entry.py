"""From an argument vector to an exit code: typer parses, then the chosen command runs under a guard."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from torchnet.errors import TorchnetError

INTERRUPTED, INTERNAL, BROKEN_PIPE = 130, 70, 141
TRACEBACK_VARIABLE = "TORCHNET_TRACEBACK"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``torchnet`` with ``argv`` (without the program's name; default: the process's own).

    Returns the exit code and never raises: every failure ends as text on stderr and one of the codes in `torchnet.errors`.
    """
    return _guard(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def _run(argv: list[str]) -> int:
    from torchnet.cli.app import parse

    chosen = parse(argv)
    return chosen if isinstance(chosen, int) else chosen()


def _guard(action: Callable[[], int]) -> int:
    _never_unencodable()
    try:
        code = action()
        sys.stdout.flush()
        return code
    except TorchnetError as error:
        say(f"torchnet: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `torchnet launch --help | head -1`: nobody reads on. At its end Python would flush again and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            import traceback

            traceback.print_exc()
        say(
            f"torchnet: torchnet's own error, not the script's: {type(error).__name__}: {error}\n"
            f"  fix: run it again with {TRACEBACK_VARIABLE}=1 and report what it prints"
        )
        return INTERNAL


def say(text: str) -> None:
    """A line on stderr; lost rather than raised where stderr is gone."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _never_unencodable() -> None:
    """A name that the terminal's encoding lacks is shown as an escape; it must not end the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
