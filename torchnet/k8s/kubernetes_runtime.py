"""The Kubernetes runtime: each worker of the job is a pod."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchnet.config.job_spec import JobSpec
    from torchnet.config.resolution import Resolved
    from torchnet.console.console import Listener


class KubernetesRuntime:
    """Implements `torchnet.runtime.Runtime`."""

    def validate(self, job: JobSpec, cwd: str) -> None:
        from torchnet.k8s.objects.run_objects import check_bundled_script

        check_bundled_script(job, cwd)

    def dry_run(self, resolved: Resolved, cwd: str, form: str) -> tuple[str, tuple[str, ...]]:
        from torchnet.k8s.client.kubeconfig import namespace
        from torchnet.k8s.objects.manifest_text import text
        from torchnet.k8s.objects.run_objects import prepare

        job = resolved.job
        group = job.kubernetes
        where = group.namespace or namespace(group.kubeconfig, group.context, os.environ)
        prepared = prepare(job, cwd, where, os.environ)
        secrets = [one["metadata"]["name"] for one in prepared.objects if one["kind"] == "Secret"]
        exposed = [
            f"the output contains the job's token (Secret {name}): keep it out of logs and repositories, or use "
            "--token-secret NAME with a Secret that exists"
            for name in secrets
        ]
        return text(prepared, form, job, resolved.origins), (*prepared.warnings, *exposed)

    def launch(self, job: JobSpec, cwd: str, listener: Listener | None = None) -> int:
        from torchnet.k8s.run.launch import launch

        return launch(job, cwd, listener)
