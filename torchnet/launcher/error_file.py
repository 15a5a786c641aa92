"""The error file of the caller: where a program that starts torchnet looks for the root cause.

Source:
    dump_error_file() in torch/distributed/elastic/multiprocessing/errors/error_handler.py of PyTorch 2.15.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from torchnet.console.console import Console
from torchnet.console.files import store
from torchnet.text import printable

VARIABLE = "TORCHELASTIC_ERROR_FILE"


def report(console: Console, environ: Mapping[str, str], error: str, code: int) -> None:
    """Call :func:`write` if the rank has written an error, and say why the file could not be written."""
    if error and (problem := write(environ, error, code)):
        console.notice(problem, "warning")


def write(environ: Mapping[str, str], error: str, code: int) -> str:
    """Write the error of the rank that failed first to the file that the caller's variable names, if any.

    Args:
        error: What the rank has written to its own error file.
        code: Its exit code, which it could not write itself if a signal killed it.

    Returns:
        Why the file could not be written, or "".
    """
    path = environ.get(VARIABLE)
    if not path:
        return ""
    try:
        content = json.loads(error)
        if isinstance(content["message"], dict):
            content["message"]["errorCode"] = code
        error = json.dumps(content)
    except (ValueError, KeyError, TypeError):
        pass  # the script's own format
    why = store(path, error.encode())
    return f"{VARIABLE}={printable(path, 200)} could not be written: {why}" if why else ""
