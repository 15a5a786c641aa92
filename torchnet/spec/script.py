"""Looks at the script before a job starts. Apart from the specification, which never touches the machine."""

from __future__ import annotations

import os

from torchnet.spec.model import JobSpec


def check_script(job: JobSpec, cwd: str | os.PathLike[str]) -> list[str]:
    """Why ``job.script`` cannot be run from ``cwd``, one sentence each; empty where it can."""
    path = os.path.join(cwd, job.script)
    if not job.module and not job.no_python and not os.path.exists(path):
        return [f"{job.script}: there is no such file"]
    return []
