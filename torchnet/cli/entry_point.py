"""Entry point: parse the arguments, run the selected command, and turn exceptions into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from torchnet.errors import TorchnetError
from torchnet.standard_streams import open_missing_streams

INTERRUPTED, INTERNAL, BROKEN_PIPE = 130, 70, 141
TRACEBACK_VARIABLE = "TORCHNET_TRACEBACK"


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``torchnet``. Errors are not raised, but printed on stderr and turned into exit codes.

    Args:
        argv: Arguments without the program's name; default: those of the process.

    Returns:
        The command's exit code, or after an error: a code of `torchnet.errors`, 130 for Ctrl-C, or 141 if the reader of
        stdout has exited.
    """
    return _guard(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def _run(argv: list[str]) -> int:
    from torchnet.cli.app import parse

    chosen = parse(argv)
    return chosen if isinstance(chosen, int) else chosen()


def _guard(action: Callable[[], int]) -> int:
    _prepare_streams()
    try:
        code = action()
        sys.stdout.flush()
    except TorchnetError as error:
        say(f"torchnet: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # `torchnet launch --help | head -1`: the reader has exited.
        _abandon_stdout()
        return BROKEN_PIPE
    except Exception as error:
        # Before Python 3.12, what is raised while a class is made becomes a RuntimeError (PEP 487, __set_name__).
        return _interrupted() if isinstance(error.__cause__, KeyboardInterrupt) else _internal_error(error)
    return code


def _interrupted() -> int:
    """Make CPython exit with the code that is returned.

    If the KeyboardInterrupt was raised in an exec() of text, as dataclasses are made, CPython remembers it and would
    end by SIGINT. Another exec() makes it forget (Python/pythonrun.c, run_eval_code_obj()).
    """
    exec("")
    return INTERRUPTED


def _internal_error(error: Exception) -> int:
    from torchnet.text import printable

    fix = f"run it again with {TRACEBACK_VARIABLE}=1 and report the output"
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        import traceback

        traceback.print_exc()
        fix = "report the lines above"
    what = f"{type(error).__name__}: {error}"
    say(f"torchnet: internal error: {printable(what, 500)}\n  fix: {fix}")
    return INTERNAL


def say(text: str) -> None:
    """Print a line on stderr. Write errors are ignored."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def emit(text: str) -> None:
    """Print ``text`` on stdout and flush.

    Raises:
        BrokenPipeError: The reader has exited.
        TorchnetError: Any other write error, such as a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _abandon_stdout()
        raise TorchnetError(f"cannot write to stdout ({error.strerror})") from None


def _abandon_stdout() -> None:
    """Redirect stdout to /dev/null. Otherwise Python would flush its buffer again at exit, and report the error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _prepare_streams() -> None:
    """Open missing standard streams, and escape characters that the terminal's encoding does not support."""
    open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
