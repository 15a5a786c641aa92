"""`torchnet.launch`: the ``torchnet launch`` command for notebooks, tests and programs."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchnet.agent.stop_signals import SIGNALS
from torchnet.config.parsing import parse_variables
from torchnet.config.resolution import Resolved, resolve
from torchnet.config.settings import BY_PATH, FIELDS, FORMER_PATHS, TABLES
from torchnet.config.validation_errors import FieldProblem, SpecError
from torchnet.console.files import show
from torchnet.errors import (
    JobError,
    JobStoppedError,
    JobTimeoutError,
    LostWorkerError,
    MinShareError,
    NetworkError,
    ScriptError,
    TorchnetError,
    UsageError,
)
from torchnet.runtime import runtime_of, working_directory
from torchnet.signals import on_main_thread
from torchnet.standard_streams import open_missing_streams

if TYPE_CHECKING:
    from torchnet.receipt.receipt_model import Receipt

_INTERRUPTED = 128 + signal.SIGINT
_JOB_ERRORS: dict[str, type[JobError]] = {
    "script": ScriptError,
    "lost": LostWorkerError,
    "timeout": JobTimeoutError,
    "interrupted": JobStoppedError,
}


def launch(
    script: str | os.PathLike[str], args: Sequence[str] = (), *, config: str | None = None, **settings: Any
) -> Receipt:
    """Run a script on many workers, as ``torchnet launch`` does, and return the receipt.

    Prints what the command prints, to ``sys.stdout`` and ``sys.stderr``. The calling process can use threads and
    torch: all workers are new processes. On the main thread, Ctrl-C stops the job, and KeyboardInterrupt is raised
    when it has ended. On other threads, signals are not handled; the job ends with the process.

    Args:
        script: The script; a module or a program with ``module=True`` or ``no_python=True``.
        args: The script's arguments.
        config: Job file, as with ``--config``.
        **settings: Settings by flag name (``nnodes=2, rate="1gbit"``) or by key in a TOML file
            (``env={"NAME": "value"}``, ``tune={"compress": "bf16"}``); None is the default. As for the command,
            ``TORCHNET_*`` variables, the job file and the project file set the others.

    Raises:
        UsageError: A setting is unknown or invalid, or the script cannot run.
        ClusterError: The cluster cannot be reached, or rejects an object.
        NetworkError: Namespaces are denied, or the backend network failed.
        JobError: The job failed for another reason; `torchnet.errors` has a class for each.
        KeyboardInterrupt: Ctrl-C stopped the job.
    """
    open_missing_streams()
    cwd = working_directory()
    resolved = _resolve({**settings, "script": script, "args": args}, config, cwd)
    job = resolved.job
    if job.kubernetes.detach:
        raise UsageError(
            "torchnet.launch() returns the receipt, so it does not support detach",
            fix="torchnet launch --detach",
        )
    for line in resolved.warnings:
        show(f"torchnet: {line}\n", sys.stderr)
    runtime = runtime_of(job)
    runtime.validate(job, cwd)
    receipts: list[Any] = []

    def listener(event: Mapping[str, Any]) -> bool:
        if event.get("event") == "receipt" and "attempt" not in event:  # that of an earlier attempt
            receipts.append(event["receipt"])
        return False

    try:
        with _restored_signal_handlers(job.run.signals):
            code = runtime.launch(job, cwd, listener)
    except TorchnetError as error:
        if error.exit_code == _INTERRUPTED:
            raise KeyboardInterrupt from error
        raise
    if not receipts:
        return _no_receipt(code)
    from torchnet.receipt.receipt_model import Receipt

    receipt = Receipt.model_validate(receipts[-1])
    if code:
        raise _error(receipt)
    return receipt


def _resolve(settings: Mapping[str, Any], config: str | None, cwd: str) -> Resolved:
    names, former = keywords(), _former_keywords()
    flags: dict[str, Any] = {}
    shown: dict[str, str] = {}
    unknown: list[FieldProblem] = []

    def put(name: str, path: str | None, value: Any) -> None:
        if path is None:
            near = difflib.get_close_matches(name, names, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            unknown.append(FieldProblem(name, f"unknown setting{hint}"))
        elif value is not None:
            flags[path] = _variables(value) if path == "env" else _plain(value)
            shown[path] = f"{name}="

    for name, value in settings.items():
        if name in TABLES and isinstance(value, Mapping):
            for key, one in value.items():
                path = FORMER_PATHS.get(f"{name}.{key}", f"{name}.{key}")
                put(f"{name}.{key}", path if path in BY_PATH else None, one)
        else:
            put(name, names.get(name) or former.get(name), value)
    if unknown:
        raise SpecError(unknown)
    return resolve(flags, os.environ, cwd, config, shown=shown)


def keywords() -> dict[str, str]:
    """Return the field's path for each keyword of `launch`: the last part of its path, and its flag's name."""
    names = {field.key: field.path for field in FIELDS}
    flags = {field.flag.lstrip("-").replace("-", "_"): field.path for field in FIELDS if not field.keyed}
    return names | {name: path for name, path in flags.items() if name}


def _former_keywords() -> dict[str, str]:
    """Return the same for earlier names, which are accepted but not suggested."""
    keys = {old.rpartition(".")[2]: path for old, path in FORMER_PATHS.items()}
    return keys | {field.former_flag.lstrip("-"): field.path for field in FIELDS if field.former_flag}


def _variables(value: Any) -> list[str]:
    try:
        return [f"{name}={text}" for name, text in parse_variables(value).items()]
    except ValueError as error:
        raise SpecError([FieldProblem("env", str(error), "env=", "a dict of strings")]) from None


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@contextlib.contextmanager
def _restored_signal_handlers(names: Sequence[str]) -> Iterator[None]:
    """Leave the process's signal handlers and its wake-up descriptor (asyncio's) as they were.

    Args:
        names: Of signals that the job handles (``--signals-to-handle``).
    """
    if not on_main_thread():
        yield
        return
    numbers = {*SIGNALS, signal.SIGTSTP, signal.SIGCHLD, *(signal.Signals[name] for name in names)}
    handlers = {number: signal.getsignal(number) for number in numbers}
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # else not set from Python
                signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)


def _no_receipt(code: int) -> Receipt:
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code - 128 in list(signal.Signals):
        raise JobStoppedError(f"stopped by {signal.Signals(code - 128).name}", exit_code=code)
    raise TorchnetError(f"the job exited with code {code} and without a receipt")


def _error(receipt: Receipt) -> BaseException:
    failure, code = receipt.failure, receipt.exit_code
    error: TorchnetError
    if failure is None:
        error = MinShareError(receipt.reason, exit_code=code)
    elif failure.kind == "interrupted" and code == _INTERRUPTED and on_main_thread():
        return KeyboardInterrupt()
    else:
        text, _, fix = failure.text.partition("\n  fix: ")
        if failure.kind in _JOB_ERRORS:
            error = _JOB_ERRORS[failure.kind](
                text, exit_code=code, rank=failure.rank, node=failure.node, fix=fix
            )
        else:
            kinds = {"network": NetworkError, "usage": UsageError}
            error = kinds.get(failure.kind, TorchnetError)(text, fix=fix)
    error.receipt = receipt
    return error
