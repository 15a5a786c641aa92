"""The local runtime: the job runs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchnet import rlimits
from torchnet.local import supervisor_process
from torchnet.local.agent_channel import AgentChannels

if TYPE_CHECKING:
    from torchnet.config.job_spec import JobSpec
    from torchnet.config.resolution import Resolved
    from torchnet.console.console import Listener
    from torchnet.local.supervisor_process import Supervisor

_FILES = 6  # open files per node, in the launcher and in the supervisor


class LocalRuntime:
    """Implements `torchnet.runtime.Runtime`.

    Args:
        early: The supervisor, if it was already executed.
    """

    def __init__(self, early: Supervisor | None = None) -> None:
        self._early = early

    def validate(self, job: JobSpec, cwd: str) -> None:
        from torchnet.config.script_check import require_script
        from torchnet.local.validation import check_files, shares_of

        require_script(job, cwd)
        shares_of(job)
        check_files(job)

    def dry_run(self, resolved: Resolved, cwd: str, form: str) -> tuple[str, tuple[str, ...]]:  # noqa: ARG002
        from torchnet.config.dump import as_json, as_yaml

        return (as_json if form == "json" else as_yaml)(resolved.job, resolved.origins), ()

    def launch(self, job: JobSpec, cwd: str, listener: Listener | None = None) -> int:  # noqa: ARG002
        rlimits.allow(_FILES * job.nnodes, f"{job.nnodes} nodes", "fewer nodes")
        channels = AgentChannels(job.nnodes)
        try:
            supervisor = self._early or supervisor_process.spawn()
            try:
                # Imported here, while the supervisor loads its own modules.
                from torchnet.local.launch import run

                return run(job, listener, channels, supervisor)
            finally:
                supervisor.kill()
        finally:
            channels.close()
