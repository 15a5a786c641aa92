"""Running commands, waiting, and saying what goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class ClusterFailure(Exception):
    """The test cluster cannot be built, brought up or used; the text says where to look."""


def say(text: str) -> None:
    """One line for people, with the time of day: on standard error, since a command's output is the result."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Says ``what`` and how long the block took, once it has ended without an error."""
    began = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - began:.1f} s")


def run(
    *command: str | Path,
    input: str | None = None,  # noqa: A002 - the name that subprocess gives it
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = 120,
) -> str:
    """A command's standard output.

    ClusterFailure with the command and its standard error where it ends with another code than 0, is not there, or
    takes longer than ``timeout`` seconds.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            env=env,
            cwd=cwd,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterFailure(f"{words[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise ClusterFailure(f"no end after {timeout} s: {' '.join(words)}") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-4000:]
        raise ClusterFailure(f"code {done.returncode} from {' '.join(words)}\n{said}")
    return done.stdout


def wait_until(what: str, seconds: float, true: Callable[[], bool], pause: float = 0.25) -> None:
    """Ask ``true`` again and again; ClusterFailure naming ``what`` if it stays false or fails for ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        reason = ""
        try:
            if true():
                return
        except ClusterFailure as failure:
            reason = f": {failure}"
        if time.monotonic() > deadline:
            raise ClusterFailure(f"{what}: not within {seconds:g} s{reason}")
        time.sleep(pause)
