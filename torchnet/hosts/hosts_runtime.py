"""The runtime of several hosts: this process runs this host's part of the job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchnet.text import printable

if TYPE_CHECKING:
    from torchnet.config.job_spec import JobSpec
    from torchnet.config.resolution import Resolved
    from torchnet.console.console import Listener


class HostsRuntime:
    """Implements `torchnet.runtime.Runtime`."""

    def validate(self, job: JobSpec, cwd: str) -> None:
        from torchnet.config.script_check import require_script
        from torchnet.errors import UsageError
        from torchnet.hosts.host_launch import processes

        if job.host_line is None:
            raise UsageError(
                "with on = hosts, the command line must say where the hosts meet",
                fix="torchnet launch --nnodes N --rdzv-endpoint HOST:29400 …, the same on each host",
            )
        require_script(job, cwd)
        processes(job)

    def dry_run(self, resolved: Resolved, cwd: str, form: str) -> tuple[str, tuple[str, ...]]:  # noqa: ARG002
        from torchnet.config.dump import as_json, as_yaml

        line = resolved.job.host_line
        if form == "json":
            return as_json(resolved.job, resolved.origins), ()
        comment = "" if line is None else f"# rendezvous at {line.endpoint} ({printable(line.where)})\n"
        return comment + as_yaml(resolved.job, resolved.origins), ()

    def launch(self, job: JobSpec, cwd: str, listener: Listener | None = None) -> int:  # noqa: ARG002
        from torchnet.hosts.host_launch import run

        return run(job, listener)
