"""From a job to its objects, with all that has to be read for it: what a launch and a dry run have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchnet.errors import UsageError
from torchnet.render.code import gather
from torchnet.render.identity import new_run_name, token, user_key
from torchnet.render.objects import objects
from torchnet.render.template import load
from torchnet.spec.model import JobSpec
from torchnet.spec.pods import parse_code
from torchnet.spec.script import check_script


@dataclass(frozen=True)
class Prepared:
    """``left_out`` has a line for each file of the script's folder that could not travel."""

    run_id: str
    namespace: str
    objects: list[dict[str, Any]]
    left_out: tuple[str, ...]


def prepare(job: JobSpec, cwd: str, namespace: str, environ: Mapping[str, str]) -> Prepared:
    """Read the script's folder, the pod template and the user's key, and render.

    A run without a name gets one. Relative paths are relative to ``cwd``.

    Raises:
        UsageError: the script, its folder or the template cannot be used; nothing has been called.
    """
    run_id = job.run_id or new_run_name(job.script)
    # A module or a command may be the image's; a file that travels has to be here.
    if parse_code(job.kubernetes.code).kind == "configmap" and not job.module and not job.no_python:
        wrong = check_script(job, cwd)
        if wrong:
            raise UsageError("\n  ".join(["the script cannot be run:", *wrong]), fix="torchnet launch --help")
    path = job.kubernetes.pod_template
    patch = load(os.path.join(cwd, path)) if path else None
    code = gather(job, cwd, environ)
    secret = "" if job.kubernetes.token_secret else token(user_key(environ), run_id, namespace)
    found = objects(job, run_id, namespace, secret, code, patch)
    return Prepared(run_id, namespace, found, code.left_out)
