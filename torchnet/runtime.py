"""Where a job runs: on this machine, on several hosts or on a Kubernetes cluster. This module alone chooses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from torchnet.errors import UsageError

if TYPE_CHECKING:
    from torchnet.config.job_spec import JobSpec
    from torchnet.config.resolution import Resolved
    from torchnet.console.console import Listener
    from torchnet.local.supervisor_process import Supervisor


class Runtime(Protocol):
    """Runs jobs. Relative paths of a job are relative to ``cwd``, the process's working directory."""

    def validate(self, job: JobSpec, cwd: str) -> None:
        """Check what can be checked before anything starts.

        Raises:
            UsageError: The script, or another file or resource that the job needs, cannot be used.
        """

    def dry_run(self, resolved: Resolved, cwd: str, form: str) -> tuple[str, tuple[str, ...]]:
        """Render what `launch` would run, as ``form`` (yaml, json).

        Returns:
            The text, and warnings of one line each.
        """

    def launch(self, job: JobSpec, cwd: str, listener: Listener | None = None) -> int:
        """Run the job to its end, print its output, and write its receipt.

        Off the main thread, signals are not handled.

        Args:
            listener: The console's; it also gets the receipt.

        Returns:
            The exit code.

        Raises:
            TorchnetError: The job could not be started, or the contact to it was lost.
        """


def runtime_of(job: JobSpec, early: Supervisor | None = None) -> Runtime:
    """Return the runtime that the job's ``on`` selects.

    Args:
        early: A supervisor that was executed for a local job; ended if the job is not local.
    """
    if job.on == "kubernetes":
        if early is not None:
            early.kill()
        from torchnet.k8s.kubernetes_runtime import KubernetesRuntime

        return KubernetesRuntime()
    if job.on == "hosts":
        if early is not None:
            early.kill()
        from torchnet.hosts.hosts_runtime import HostsRuntime

        return HostsRuntime()
    from torchnet.local.local_runtime import LocalRuntime

    return LocalRuntime(early)


def working_directory() -> str:
    """Return the working directory.

    Raises:
        UsageError: It cannot be determined, for example because it was removed.
    """
    try:
        return os.getcwd()
    except OSError as error:
        what = f"cannot determine the working directory ({error.strerror}); it may have been removed"
        raise UsageError(what, fix="cd to an existing directory") from None
