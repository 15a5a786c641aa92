"""What the nodes do not see of this machine: each has a /dev/shm of its own, as a pod has."""

from __future__ import annotations

import os
import sys

from torchnet.errors import UsageError
from torchnet.network.text import printable
from torchnet.spec.model import JobSpec

HIDDEN = "/dev/shm"


def check(job: JobSpec) -> None:
    """Look where the job's files are.

    Raises:
        UsageError: the nodes would not see some of them, or what they write would be gone with them; names all.
    """
    places = {"the working directory": os.getcwd(), "Python": sys.executable}
    if not job.module and os.path.exists(job.script):
        places["the script"] = job.script
    if job.output.log_dir:
        places["--log-dir"] = job.output.log_dir
    hidden = [f"{what} {printable(path, 200)}" for what, path in places.items() if _is_hidden(path)]
    if hidden:
        raise UsageError(
            f"{HIDDEN} is each node's own, as a pod's is; there is nothing of this machine in it: {', '.join(hidden)}",
            fix="put it elsewhere, below /tmp for example; or --network loopback, without nodes of their own",
        )


def _is_hidden(path: str) -> bool:
    return os.path.commonpath([os.path.realpath(path), HIDDEN]) == HIDDEN
